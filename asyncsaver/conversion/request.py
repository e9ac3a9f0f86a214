"""What a caller of `convert` asked for, checked."""

from __future__ import annotations

from dataclasses import dataclass

from asyncsaver.catalog.root import Root
from asyncsaver.model.checkpoint import Checkpoint
from asyncsaver.model.config import DEFAULT_COMMIT_TIMEOUT, DEFAULT_MEMORY_BUDGET, DEFAULT_SHARD_BYTES
from asyncsaver.model.manifest import Json
from asyncsaver.model.select import Select

TARGETS = ("native", "huggingface", "tensorflow")
"""The formats that can be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """How a checkpoint is to be converted.

    Attributes:
        name: of the target, relative to its root.
        format: one of `TARGETS`.
        select: which leaves; None for all.
        shard_bytes: how large a shard may grow.
        scratch: bytes for what has to be put together before it is passed on.
        overwrite: replace what is there.
        single_writer: see `Saver`.
        commit_timeout: see `Saver`.
    """

    name: str
    format: str
    select: Select | None = None
    shard_bytes: int = DEFAULT_SHARD_BYTES
    scratch: int = DEFAULT_MEMORY_BUDGET // 4
    overwrite: bool = False
    single_writer: bool = False
    commit_timeout: float = DEFAULT_COMMIT_TIMEOUT


def foreign_checkpoint(
    to: Root, conversion: Conversion, step: int | None, total_bytes: int, metadata: Json = None
) -> Checkpoint:
    """What was written, in another library's format.

    Args:
        to: root of the target.
        conversion: what was asked for.
        step: that the name ends in.
        total_bytes: of the files that hold tensors.
        metadata: that was kept.
    """
    return Checkpoint(
        url=f"{to.store.url.rstrip('/')}/{conversion.name}",
        name=conversion.name,
        step=step,
        slot=0,
        save_id="",
        created=to.now(),
        total_bytes=total_bytes,
        world_size=1,
        metadata=metadata,
    )
