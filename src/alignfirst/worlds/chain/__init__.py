"""The paper's chain: a real language model as p_star, models of its architecture trained from scratch on its texts."""
