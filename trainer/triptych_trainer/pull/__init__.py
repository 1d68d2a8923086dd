"""Known models from the hub to a bundle, in one command (`docs/models.md`)."""
