"""A small exact grammar: real transformers whose ground truth is known to the last digit."""
