"""What stands around trainings: trackers, lm-eval, the NumPy face for worlds."""
