"""Pure data and pure decisions: no I/O, no asyncio."""
