"""Module functions: looking at checkpoints without a saver."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from asyncsaver.catalog.opening import open_root
from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointNotFoundError
from asyncsaver.model.checkpoint import Checkpoint, checkpoint_of
from asyncsaver.model.names import Naming, check_prefix
from asyncsaver.restore.find import find_latest
from asyncsaver.restore.opening import open_source
from asyncsaver.restore.reader import CheckpointReader

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """What a root holds.

    Attributes:
        checkpoints: committed ones, oldest first.
        last_preserved: what `KeepEveryHours` counts on from, UTC; None before the first save.
    """

    checkpoints: Sequence[Checkpoint]
    last_preserved: datetime | None

    @property
    def latest(self) -> Checkpoint | None:
        """The one committed last."""
        return self.checkpoints[-1] if self.checkpoints else None


async def open_checkpoint(
    url: str | os.PathLike[str],
    format: str = "auto",  # noqa: A002 - the fixed name
    *,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> CheckpointReader:
    """Open one checkpoint by its own URL, such as ``s3://bucket/run/ckpt-00001000``. Close the reader afterwards.

    Besides ours, other libraries' checkpoints are read without the library: TensorFlow's by their prefix (V1 by the file, or by
    the pattern of a sharded one), Hugging Face's by the folder, the index or the one file, those of PyTorch's
    ``torch.distributed.checkpoint`` by the folder.

    Args:
        url: of the checkpoint.
        format: "auto", "native", "tensorflow", "huggingface" or "dcp".
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.

    Raises:
        CheckpointNotFoundError: no committed checkpoint stands there.
        ManifestError: its manifest, or what another library has in its place, is damaged.
        ImportError: an extra is missing that the format needs; the message names it.
    """
    root, source = await open_source(url, format, storage_options=storage_options, filesystem=filesystem)
    return CheckpointReader(root, source, owns_root=True)


async def latest_checkpoint(
    url: str | os.PathLike[str],
    *,
    prefix: str = "ckpt",
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> Checkpoint | None:
    """The checkpoint committed last under a root; None where there is none.

    Args:
        url: of the root.
        prefix: as for `Saver`.
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.
    """
    async with _opened(url, prefix, storage_options, filesystem) as root:
        found = await find_latest(root)
        return None if found is None else checkpoint_of(found.manifest, root.store.url, pinned=found.pinned)


async def checkpoint_exists(
    url: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> bool:
    """Whether a committed checkpoint stands at this URL of its own. A damaged manifest raises rather than says no.

    Args:
        url: of the checkpoint's folder.
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.
    """
    try:
        reader = await open_checkpoint(url, storage_options=storage_options, filesystem=filesystem)
    except CheckpointNotFoundError:
        return False
    await reader.close()
    return True


async def get_checkpoint_state(
    url: str | os.PathLike[str],
    *,
    prefix: str = "ckpt",
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> CheckpointState | None:
    """What a root holds, checked against the store; None where nothing was ever committed.

    Args:
        url: of the root.
        prefix: as for `Saver`.
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.
    """
    async with _opened(url, prefix, storage_options, filesystem) as root:
        catalog = await root.reader.load()
    committed = any(entry.state != "aborted" for entry in catalog.entries)  # once, if no more
    if not committed and not any(root.reader.owns(entry.name) for entry in catalog.seen.values()):
        return None
    listed = [checkpoint_of(entry, root.store.url, pinned=entry.pinned) for entry in catalog.checkpoints]
    return CheckpointState(listed, catalog.last_preserved)


@asynccontextmanager
async def _opened(
    url: str | os.PathLike[str],
    prefix: str,
    storage_options: Mapping[str, Any] | None,
    filesystem: AbstractFileSystem | None,
) -> AsyncIterator[Root]:
    naming = Naming(check_prefix(prefix))
    root = open_root(url, naming, storage_options=storage_options, filesystem=filesystem)
    try:
        yield root
    finally:
        await root.close()
