"""Worlds of real language models, over the modules of `lm/`."""
