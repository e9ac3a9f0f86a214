"""Write TensorFlow's V1 files: tables that hold the tensors themselves, each one object.

Such a file has no small part that could be written last. So it goes into a save folder first, and to its own name by a copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np

from asyncsaver.aio.tasks import run_all
from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointCorruptError, InvalidStateError
from asyncsaver.formats.tensorflow.dtypes import type_of
from asyncsaver.formats.tensorflow.ordered_code import FULL, Slice
from asyncsaver.formats.tensorflow.strings import StringEncoding
from asyncsaver.formats.tensorflow.v1_write import Elements, V1Plan, V1Tensor, plan_v1
from asyncsaver.model.checkpoint import Progress
from asyncsaver.model.dtypes import Array
from asyncsaver.model.flatten import TensorLeaf
from asyncsaver.model.leaves import Adapters
from asyncsaver.model.manifest import FileEntry
from asyncsaver.save.shard_bytes import Bytes, ShardBytes, Sources
from asyncsaver.save.tensorflow_data import Bundle
from asyncsaver.save.upload import Uploads
from asyncsaver.store.contract import Store


def v1_tensors(bundle: Bundle, adapters: Adapters, positions: Iterable[int]) -> list[V1Tensor]:
    """What one file is to hold, of what would be written as V2. No data is touched.

    Args:
        bundle: tensors and slices of tensors that the caller has in memory.
        adapters: for them.
        positions: of those that go into the file, among `Bundle.staged`'s.
    """
    tensors: dict[str, V1Tensor] = {}
    slices: dict[str, list[tuple[Slice, Elements]]] = {}
    for position in positions:
        leaf = bundle.staged.tensors[position]
        part = bundle.slices.get(position)
        kept = slices.setdefault(leaf.name, [])
        kept.append(
            ((FULL,) * len(leaf.shape) if part is None else part.extents, partial(_elements, bundle, adapters, leaf))
        )
        dtype = type_of(bundle.numbers[leaf.name]).name
        tensors[leaf.name] = V1Tensor(leaf.name, dtype, leaf.shape if part is None else part.shape, kept)
    return [*tensors.values()]


def _elements(bundle: Bundle, adapters: Adapters, leaf: TensorLeaf) -> Array:
    adapter = adapters.by_kind(leaf.kind)
    if adapter is None:
        raise RuntimeError(f"{leaf.name}: the adapter for {leaf.kind!r} that described it is gone")
    array = adapter.to_numpy(leaf.value)
    if leaf.name in bundle.strings:  # what they are in V2
        return StringEncoding(bundle.strings[leaf.name]).decode(array.data, leaf.dtype, leaf.shape)
    return array


async def write_v1(
    root: Root,
    files: Sequence[tuple[str, Sequence[V1Tensor]]],
    *,
    step: int | None = None,
    report: Callable[[Progress], None] | None = None,
    begun: asyncio.Event | None = None,
    note: str = "",
) -> list[FileEntry]:
    """Write V1 files, side by side, within the memory budget.

    Args:
        root: where to.
        files: where each goes, and its tensors: ``P``, or ``P-00000-of-00002`` and so on for shards.
        step: for progress reports.
        report: told as bytes land.
        begun: set once something may be put; None to begin at once.
        note: stands in each file; see `formats.tensorflow.v1_note`.

    Returns:
        What was written, in the order of the files.

    Raises:
        InvalidStateError: V1, or the store, cannot hold a tensor, which the message names. Nothing was put.
        StoreError: a file could not be written. Others may have been.
    """
    plans = await run_all(root.threads.run(_planned, root.store, path, tensors, note) for path, tensors in files)
    largest = max([plan.size for plan in plans], default=1)
    uploads = Uploads(root, step, sum(plan.size for plan in plans), report or _nobody, begun or _at_once())
    turns = asyncio.Semaphore(uploads.at_once(largest))

    async def one(path: str, plan: V1Plan) -> FileEntry:
        await turns.acquire()
        with ExitStack() as turn:
            turn.callback(turns.release)
            content = await uploads.put(path, lambda: _FileBytes(plan), 0, turn)
        return FileEntry(path, content.size, content.crc32c)

    return await run_all(one(path, plan) for (path, _), plan in zip(files, plans, strict=True))


async def copy(root: Root, source: FileEntry, target: str) -> None:
    """Copy an object within a store, in parts, within the memory budget. What is at the target is replaced as a whole.

    Args:
        root: of the store.
        source: what is copied.
        target: where to.

    Raises:
        CheckpointCorruptError: the source has another size or checksum than its entry says. Nothing was written.
        ObjectNotFoundError: the source is not there.
        StoreError: the store failed.
    """
    size = (await root.store.head(source.path)).size
    if size != source.size:
        raise CheckpointCorruptError(
            f"{root.store.url}/{source.path} has {size} bytes, {source.size} were written", path=source.path
        )
    uploads = Uploads(root, None, size, _nobody, _at_once())
    with ExitStack() as turn:
        await uploads.put(target, lambda: _CopiedBytes(root.store, source), 0, turn)


class _FileBytes(ShardBytes):
    """A V1 file, made while it passes."""

    def __init__(self, plan: V1Plan) -> None:
        self._plan = plan
        super().__init__(b"", Sources([plan.size], _no_array))

    def _advance(self) -> Iterator[Bytes]:
        return map(_as_array, self._plan.pieces())


class _CopiedBytes(ShardBytes):
    """An object of the store, read while it passes. What comes last is given only if the checksum of all is as expected."""

    def __init__(self, store: Store, file: FileEntry) -> None:
        super().__init__(b"", Sources([file.size], _no_array))
        self._store = store
        self._file = file
        self._read = 0
        self._loaded: list[Bytes] = []

    async def load(self, size: int) -> None:
        """See `ShardBytes`."""
        start, stop = self._read, min(self._read + size, self.size)
        data = np.empty(stop - start, np.uint8)
        await self._store.get_into(self._file.path, [(start, stop)], [data.data])
        self._loaded.append(data)
        self._read = stop

    def _advance(self) -> Iterator[Bytes]:
        while self._loaded:
            yield self._loaded.pop()

    def _take(self, size: int) -> list[Bytes]:
        taken = super()._take(size)
        if self._taken == self.size and self.crc32c != self._file.crc32c:
            raise CheckpointCorruptError(
                f"{self._store.url}/{self._file.path}: its content is not what was written (crc32c differs)",
                path=self._file.path,
            )
        return taken


def _planned(store: Store, path: str, tensors: Sequence[V1Tensor], note: str) -> V1Plan:
    plan = plan_v1(tensors, note)
    largest = store.capabilities.max_object_bytes
    if plan.size > largest:
        raise InvalidStateError(
            f"{store.url}/{path} would have {plan.size} bytes, and the store takes {largest} at most: save in more shards "
            "(sharded=True), or as V2 (write_version='v2')"
        )
    return plan


def _as_array(piece: bytes | memoryview) -> Bytes:
    return np.frombuffer(piece, np.uint8)


def _at_once() -> asyncio.Event:
    begun = asyncio.Event()
    begun.set()
    return begun


def _nobody(progress: Progress) -> None:
    del progress


def _no_array(position: int) -> Array:
    raise RuntimeError(f"file {position} is made of pieces, and never is an array")
