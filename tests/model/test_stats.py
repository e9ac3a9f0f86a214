"""The figures of a save and a restore, as a line for a log."""

from __future__ import annotations

import pytest

from asyncsaver.model.stats import RestoreStats, SaveStats


def test_a_save_in_one_line() -> None:
    stats = SaveStats(
        bytes_written=3 * 2**20, files=2, tensors=7, seconds_staging=0.001, seconds_waiting=0.5, seconds_writing=2,
        seconds_committing=0.25, seconds_pruning=0.125, seconds_blocked=1.5, peak_memory_bytes=5 * 2**29,
        requests={"put": 4, "create": 1}, retries=3,
    )  # fmt: skip
    assert str(stats) == (
        "3.0 MiB, 7 tensors in 2 shards, staged 0.001 s, waited 0.500 s, wrote 2.000 s, committed 0.250 s, pruned 0.125 s, "
        "blocked 1.500 s, 5 requests (1 create, 4 put), 3 retries, peak memory 2.5 GiB"
    )


def test_a_restore_in_one_line() -> None:
    stats = RestoreStats(
        bytes_read=100, tensors=1, seconds_finding=0.5, seconds_reading=1, seconds_blocked=0, peak_memory_bytes=0,
        requests={}, retries=0,
    )  # fmt: skip
    assert str(stats) == (
        "100 bytes of 1 tensors, found 0.500 s, read 1.000 s, blocked 0.000 s, no requests, 0 retries, peak memory 0 bytes"
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [(1023, "1023 bytes"), (1024, "1.0 KiB"), (2**40, "1.0 TiB"), (5000 * 2**40, "5000.0 TiB")],
)
def test_sizes(count: int, text: str) -> None:
    stats = RestoreStats(
        bytes_read=count, tensors=1, seconds_finding=0, seconds_reading=0, seconds_blocked=0, peak_memory_bytes=0,
        requests={}, retries=0,
    )  # fmt: skip
    assert str(stats).startswith(f"{text} of")
