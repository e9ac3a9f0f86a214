"""From one format and store to another."""
