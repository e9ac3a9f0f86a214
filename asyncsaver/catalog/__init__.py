"""The list of checkpoints under a root: the state file, checked against what the store holds."""
