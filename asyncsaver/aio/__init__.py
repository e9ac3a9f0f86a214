"""Helpers for structured concurrency: a byte budget, threads that cancellation waits for, loop ownership."""
