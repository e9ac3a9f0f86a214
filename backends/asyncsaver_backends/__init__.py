"""The stores: one module each, found through the entry-point group ``asyncsaver.backends``."""
