"""Layouts: how the checkpoints of a saver lie under its root, and everything that depends on it."""
