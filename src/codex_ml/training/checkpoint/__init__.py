"""Checkpoints: save, load and the state of a training."""
