"""Saving, keeping and loading checkpoints."""
