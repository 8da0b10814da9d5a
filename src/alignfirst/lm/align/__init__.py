"""Alignment of a language model: rollouts and pairs, rewards, coefficients, updates."""
