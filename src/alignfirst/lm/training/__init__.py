"""The loop of a training: optimiser, batches, checkpoints, processes, curves."""
