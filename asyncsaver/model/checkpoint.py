"""What users get back about checkpoints: frozen, and free of I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from asyncsaver.model.manifest import CommitRecord
from asyncsaver.model.nodes import is_text
from asyncsaver.model.statefile import Entry
from asyncsaver.model.stats import SaveStats


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A committed checkpoint.

    Attributes:
        url: of its folder, without credentials.
        name: of its folder.
        step: None where it was saved without one.
        slot: where its manifest stands.
        save_id: the attempt that wrote it.
        created: UTC.
        total_bytes: the sum of its shards, in bytes.
        world_size: how many ranks wrote it.
        metrics: as given to `save`.
        metadata: as given to `save`.
        pinned: whether it is exempt from pruning until `unpin`.
        stats: of the save, on what `save` returns; None on what was found on the store.
    """

    url: str
    name: str
    step: int | None
    slot: int
    save_id: str
    created: datetime
    total_bytes: int
    world_size: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    metadata: Any = None
    pinned: bool = False
    stats: SaveStats | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a save or a restore stands; given to the ``progress`` callback, on the event loop.

    Attributes:
        phase: what it is doing now.
        step: of the checkpoint.
        bytes_done: so far in this phase.
        bytes_total: of this phase.
    """

    phase: Literal["staging", "writing", "committing", "committed", "reading", "restored"]
    step: int | None
    bytes_done: int
    bytes_total: int


def encode_metrics(metrics: Mapping[str, Any] | None) -> dict[str, int | float | str]:
    """Metrics as JSON can hold them. Raises `TypeError` or `ValueError` for anything but real numbers by name."""
    if metrics is not None and not isinstance(metrics, Mapping):
        raise TypeError(f"metrics must be a mapping of names to numbers, not {type(metrics).__name__}")
    encoded: dict[str, int | float | str] = {}
    for key, value in (metrics or {}).items():
        if not isinstance(key, str):
            raise TypeError(f"metrics: names must be str, not {type(key).__name__} ({key!r})")
        if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
            raise TypeError(f"metrics[{key!r}] must be a number, not {type(value).__name__}")
        if not is_text(key):
            raise ValueError(f"metrics: the name {key!a} has lone surrogates, which JSON cannot hold")
        try:
            number = value if type(value) is int and abs(value) < 2**53 else float(value)
        except OverflowError:
            raise ValueError(f"metrics[{key!r}] is too large for a float") from None
        except (TypeError, ValueError) as error:  # an array of several elements, for instance
            raise TypeError(f"metrics[{key!r}] must be a number: {error}") from error
        encoded[key] = number if math.isfinite(number) else repr(float(number))
    return encoded


def decode_metrics(metrics: Mapping[str, int | float | str]) -> dict[str, float]:
    """The inverse of `encode_metrics`."""
    return {key: float(value) if isinstance(value, str) else value for key, value in metrics.items()}


def check_metadata(value: Any, path: str = "metadata", depth: int = 0) -> Any:
    """Return the user's JSON unchanged in meaning (tuples as lists), or raise `TypeError`/`ValueError` naming the place."""
    if depth > 100:
        raise ValueError(f"{path}: nested deeper than 100 levels")
    if isinstance(value, str):
        return _check_text(value, path)
    if value is None or isinstance(value, bool):
        return value
    if type(value) is int:
        if not -(2**63) <= value < 2**64:
            raise ValueError(f"{path}: {value} does not fit in 64 bits; store it as a str")
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{path}: {value} is not JSON; metrics may hold it")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{path}: keys must be str, not {type(key).__name__} ({key!r})")
            _check_text(key, path)
        return {key: check_metadata(item, f"{path}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [check_metadata(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise TypeError(f"{path}: {type(value).__name__} is not JSON")


def _check_text(value: str, path: str) -> str:
    if not is_text(value):
        raise ValueError(f"{path}: {value[:100]!a} has lone surrogates, which JSON cannot hold")
    return value


def checkpoint_of(
    record: CommitRecord | Entry, url: str, *, pinned: bool, stats: SaveStats | None = None, path: str | None = None
) -> Checkpoint:
    """Describe a committed checkpoint to users.

    Args:
        record: that of its slot, or its entry in the state file.
        url: of the root.
        pinned: whether a pin stands beside it.
        stats: of the save that made it.
        path: what its URL ends in, if that is not its name.
    """
    return Checkpoint(
        url=f"{url.rstrip('/')}/{path or record.name}",
        name=record.name,
        step=record.step,
        slot=record.slot,
        save_id=record.save_id,
        created=record.created,
        total_bytes=record.total_bytes,
        world_size=record.world_size,
        metrics=decode_metrics(record.metrics),
        metadata=record.metadata,
        pinned=pinned,
        stats=stats,
    )
