"""Checkpoints for asyncio trainers, on any cloud store: whole or not there."""
