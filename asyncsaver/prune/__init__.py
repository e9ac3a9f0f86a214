"""Carrying out retention: prune and sweep."""
