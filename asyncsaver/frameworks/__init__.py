"""Thin adapters for frameworks, imported only when asked for."""
