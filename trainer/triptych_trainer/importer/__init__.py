"""Converts public checkpoints to our models, without executing them."""
