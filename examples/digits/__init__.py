"""A small but complete trainer that runs in an event loop, and a supervisor that kills it in the middle of a save."""
