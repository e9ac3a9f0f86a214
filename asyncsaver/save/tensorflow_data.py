"""TensorFlow's data files (V2): tensors, and slices of tensors, one after another, and the index that says where each is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from asyncsaver.aio.tasks import run_all
from asyncsaver.formats.tensorflow.bundle import Entry, Index
from asyncsaver.formats.tensorflow.ordered_code import Slice
from asyncsaver.model.digests import crc32c_digest
from asyncsaver.model.flatten import TensorLeaf
from asyncsaver.model.manifest import FileEntry
from asyncsaver.model.shard_keys import shards_by_key
from asyncsaver.model.shards import Placed, ShardPlan
from asyncsaver.save.contents import Contents, InMemory
from asyncsaver.save.stage import Staged
from asyncsaver.save.upload import Uploads

MOST_FILES = 99_999
"""Five digits in their names."""

_CRC32C = crc32c_digest(0)
_DIGITS = 8


@dataclass(frozen=True, slots=True)
class SliceOf:
    """Which slice of a tensor is written.

    Attributes:
        shape: of the whole tensor.
        extents: of the slice, as they stand in the index.
    """

    shape: tuple[int, ...]
    extents: Slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What is to be written.

    Attributes:
        staged: the tensors, in the order in which they are packed; of tensors of strings, the bytes that `encode_strings` gives.
        numbers: TensorFlow's numbers of their dtypes, by name.
        strings: checksums of the tensors of strings, by name: in an entry stands another one than that of its bytes.
        slices: of those that are slices of a tensor, which; by their position among the tensors.
    """

    staged: Staged
    numbers: Mapping[str, int]
    strings: Mapping[str, int] = field(default_factory=dict)
    slices: Mapping[int, SliceOf] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file as it was written.

    Attributes:
        file: its path, size and checksum.
        placed: what is in it.
        digests: of each of those.
    """

    file: FileEntry
    placed: Sequence[Placed]
    digests: Sequence[str]


def plan_data(tensors: Sequence[TensorLeaf], shard_bytes: int) -> list[ShardPlan]:
    """Fill data files in the given order, without gaps, as TensorFlow does; one at least, which may be empty."""
    plans: list[ShardPlan] = []
    placed: list[Placed] = []
    filled = 0
    for index, tensor in enumerate(tensors):
        if placed and filled + tensor.nbytes > shard_bytes:
            plans.append(ShardPlan(placed, filled))
            placed, filled = [], 0
        placed.append(Placed(index, filled, filled + tensor.nbytes))
        filled += tensor.nbytes
    return [*plans, ShardPlan(placed, filled)]


def plan_shards(tensors: Sequence[TensorLeaf], shard_bytes: int, keys: Mapping[str, str]) -> list[ShardPlan]:
    """Fill data files for each key apart, by the order of the keys, with its tensors in the order of their names.

    Args:
        tensors: in any order; slices of one tensor stay in theirs.
        shard_bytes: how large one may grow before the next one for the same key begins.
        keys: of the tensors, by name.
    """
    places: dict[str, list[int]] = {}
    for index, tensor in enumerate(tensors):
        places.setdefault(tensor.name, []).append(index)
    plans: list[ShardPlan] = []
    for names in shards_by_key(sorted(places), keys.__getitem__).values():
        chosen = [index for name in names for index in places[name]]
        for plan in plan_data([tensors[index] for index in chosen], shard_bytes):
            placed = [Placed(chosen[item.index], item.start, item.stop) for item in plan.tensors]
            plans.append(ShardPlan(placed, plan.nbytes))
    return plans or [ShardPlan((), 0)]


async def put_data(
    uploads: Uploads, bundle: Bundle, files: Sequence[tuple[str, ShardPlan]], shard_bytes: int
) -> list[DataFile]:
    """Write data files, side by side, within the memory budget.

    Args:
        uploads: to the store.
        bundle: what.
        files: where each goes, and what is in it.
        shard_bytes: how large one was allowed to grow.

    Raises:
        StoreError: a file could not be written. Others may have been.
    """
    tensors = bundle.staged.tensors
    contents: Contents = bundle.staged.contents or InMemory(uploads.root.adapters)
    at_once = asyncio.Semaphore(1 if contents.one_by_one else uploads.at_once(shard_bytes))

    async def one(path: str, plan: ShardPlan) -> DataFile:
        await at_once.acquire()
        with ExitStack() as turn:
            turn.callback(at_once.release)
            content = await uploads.put(
                path, lambda: contents.shard(b"", [tensors[item.index] for item in plan.tensors], _CRC32C), 0, turn
            )
        return DataFile(FileEntry(path, content.size, content.crc32c), plan.tensors, content.hashes)

    return await run_all(one(path, plan) for path, plan in files)


def index_of(bundle: Bundle, shards: int, written: Sequence[DataFile]) -> Index:
    """What the index says.

    Args:
        bundle: what was written.
        shards: as how many data files readers are to take it; those that hold nothing need not be there.
        written: the first of them.
    """
    entries: dict[str, Entry] = {}
    slices: dict[tuple[str, Slice], Entry] = {}
    for number, data in enumerate(written):
        for item, digest in zip(data.placed, data.digests, strict=True):
            tensor = bundle.staged.tensors[item.index]
            name = tensor.name
            crc = bundle.strings.get(name, int(digest[-_DIGITS:], 16))
            entry = Entry(bundle.numbers[name], tensor.shape, number, item.start, item.stop - item.start, crc)
            part = bundle.slices.get(item.index)
            if part is None:
                entries[name] = entry
                continue
            slices[name, part.extents] = entry
            others = entries[name].slices if name in entries else ()
            entries[name] = Entry(entry.dtype, part.shape, slices=(*others, part.extents))
    return Index(shards, entries, slices)
