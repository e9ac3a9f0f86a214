"""What a save or a restore did, in figures. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveStats:
    """What a save did. As a string, one line for a log.

    Its times add up to the whole, but for ``seconds_blocked``, which lies within the others.

    Attributes:
        bytes_written: shards, part, index and manifest together.
        files: shards written.
        tensors: tensors written.
        seconds_staging: flattening the state and, in a background save, copying it.
        seconds_waiting: for earlier saves: of the same checkpoint before writing, and of any before the commit.
        seconds_writing: shards and part.
        seconds_committing: choosing the slot, merge and manifest.
        seconds_pruning: the state file and pruning, after the commit.
        seconds_blocked: waiting for memory: a background save for that of its copy, and all for room in the memory budget. High
            where the store is too slow, or the budget too small, for the pace of saving.
        peak_memory_bytes: the most that this saver's memory budget held at once, so far.
        requests: to the store, by kind (`put`, `put_parts`, `part`, `create`, `replace`, `get`, `get_range`, `head`, `list`,
            `delete`), from the call to the end of pruning; each try counts, the pages of a listing count as one.
        retries: how many of them were sent again after a failure.
        state_file_error: why the state file could not be written after the commit, or None.
        prune_error: why pruning after the commit failed, or None.
        saver: what it is called (``name=``), or None.
    """

    bytes_written: int
    files: int
    tensors: int
    seconds_staging: float
    seconds_waiting: float
    seconds_writing: float
    seconds_committing: float
    seconds_pruning: float
    seconds_blocked: float
    peak_memory_bytes: int
    requests: Mapping[str, int]
    retries: int
    state_file_error: str | None = None
    prune_error: str | None = None
    saver: str | None = None

    def __str__(self) -> str:
        times = {
            "staged": self.seconds_staging,
            "waited": self.seconds_waiting,
            "wrote": self.seconds_writing,
            "committed": self.seconds_committing,
            "pruned": self.seconds_pruning,
            "blocked": self.seconds_blocked,
        }
        what = f"{_size(self.bytes_written)}, {self.tensors} tensors in {self.files} shards"
        return ", ".join([what, *_figures(times, self.peak_memory_bytes, self.requests, self.retries)])


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreStats:
    """What a restore did. As a string, one line for a log.

    Attributes:
        bytes_read: of shards, what was read and not needed between neighbours included.
        tensors: in the checkpoint.
        seconds_finding: which checkpoint it is, and its manifest.
        seconds_reading: planning, reading, verifying, and putting the state together.
        seconds_blocked: of these, waiting for room in the memory budget.
        peak_memory_bytes: the most that this saver's memory budget held at once, so far.
        requests: to the store, by kind, as in `SaveStats`.
        retries: how many of them were sent again after a failure.
        saver: as in `SaveStats`.
    """

    bytes_read: int
    tensors: int
    seconds_finding: float
    seconds_reading: float
    seconds_blocked: float
    peak_memory_bytes: int
    requests: Mapping[str, int]
    retries: int
    saver: str | None = None

    def __str__(self) -> str:
        times = {"found": self.seconds_finding, "read": self.seconds_reading, "blocked": self.seconds_blocked}
        what = f"{_size(self.bytes_read)} of {self.tensors} tensors"
        return ", ".join([what, *_figures(times, self.peak_memory_bytes, self.requests, self.retries)])


def _figures(times: Mapping[str, float], peak: int, requests: Mapping[str, int], retries: int) -> Iterator[str]:
    yield from (f"{name} {seconds:.3f} s" for name, seconds in times.items())
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(requests.items()))
    yield f"{sum(requests.values())} requests ({kinds})" if kinds else "no requests"
    yield f"{retries} retries"
    yield f"peak memory {_size(peak)}"


def _size(count: float) -> str:
    for unit in _UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_UNITS[-1]}"
