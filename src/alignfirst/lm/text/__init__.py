"""One model, one batch of text: states, log-probabilities, devices, random streams."""
