"""Finding what each entry of a PyTorch Distributed Checkpoint consists of, by reading the ends of it and nothing between.

An entry is what one ``torch.save`` wrote. Its pickle stands at the beginning and its directory at the end; the bytes of
the tensor are between them, and stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import msgspec

from asyncsaver.aio.budget import ByteBudget
from asyncsaver.aio.tasks import run_all
from asyncsaver.aio.threads import Threads
from asyncsaver.errors import ManifestError
from asyncsaver.formats.dcp.torch_file import MAGIC, TorchTensor, read_tensor, read_value
from asyncsaver.formats.dcp.values import NotPlainError, value_node
from asyncsaver.formats.dcp.windows import NotHereError, Windows
from asyncsaver.store.contract import Store

_HEAD, _TAIL = 4096, 2048  # bytes at the ends of an entry that nearly always suffice
_MAX_ROUNDS, _MAX_MORE = 4, 1 << 17  # otherwise more is read, this often and this much at once
_GAP = 4096  # windows that are no further apart than this are read together
_BATCH = 4 << 20  # bytes that are read and looked at together
_MAX_RANGES = 256
_MEMORY = 32 << 20


class Item(msgspec.Struct, frozen=True, gc=False):
    """An entry to be looked at.

    Attributes:
        name: of the tensor or value, for messages.
        file: its path in the store.
        start: first byte in the file.
        stop: one past the last.
        is_value: whether it is no tensor.
        more: further windows that are needed, as positions in the file.
    """

    name: str
    file: str
    start: int
    stop: int
    is_value: bool
    more: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class NoArchive:
    """No ``torch.save`` wrote this: perhaps it begins a safetensors file."""


@dataclass(frozen=True, slots=True)
class Value:
    """The node of a plain value."""

    node: Any


@dataclass(frozen=True, slots=True)
class Damage:
    """Why something cannot be read."""

    reason: str


Found = TorchTensor | Value | Damage | NoArchive


async def find_items(store: Store, threads: Threads, items: Sequence[Item]) -> dict[Item, Found]:
    """Look at entries, many at once.

    Args:
        store: where they are.
        threads: for parsing.
        items: none within another, all within their files.

    Raises:
        StoreError: the store failed.
    """
    budget = ByteBudget(_MEMORY)
    found: dict[Item, Found] = {}
    pending = [(item, item) for item in items]  # as given, and with what else is needed

    async def look(batch: _Batch) -> list[Found | NotHereError]:
        async with budget.hold(sum(stop - start for start, stop in batch.ranges)):
            buffers = [bytearray(stop - start) for start, stop in batch.ranges]
            await store.get_into(batch.file, batch.ranges, [memoryview(buffer) for buffer in buffers])
            return await threads.run(_parse, batch, buffers)

    for _ in range(_MAX_ROUNDS):
        given = {again: item for item, again in pending}
        batches = list(_batches(sorted(given, key=lambda item: (item.file, item.start))))
        pending = []
        for batch, results in zip(batches, await run_all(look(batch) for batch in batches), strict=True):
            for again, result in zip(batch.items, results, strict=True):
                item = given[again]
                if not isinstance(result, NotHereError):
                    found[item] = result
                elif result.stop - result.start > _MAX_MORE:
                    found[item] = Damage(_scattered(item))
                else:
                    start = item.start + result.start
                    needed = (start, min(item.stop, max(start + _HEAD, item.start + result.stop)))
                    pending.append((item, msgspec.structs.replace(again, more=(*again.more, needed))))
        if not pending:
            break
    return found | {item: Damage(_scattered(item)) for item, _ in pending}


def _scattered(item: Item) -> str:
    return f"{item.file}, bytes {item.start} to {item.stop}: its directory or its pickle is too large, or far from the ends"


@dataclass(frozen=True, slots=True)
class _Batch:
    """Entries of one file, and the ranges of it that are read for them, in order."""

    file: str
    items: Sequence[Item]
    ranges: Sequence[tuple[int, int]]


def _batches(items: Sequence[Item]) -> Iterator[_Batch]:
    for file, of_file in groupby(items, key=lambda item: item.file):
        members: list[Item] = []
        ranges: list[tuple[int, int]] = []
        nbytes = 0
        for item in of_file:
            for start, stop in _windows(item):
                if ranges and start - ranges[-1][1] <= _GAP:
                    nbytes += max(0, stop - ranges[-1][1])
                    ranges[-1] = (ranges[-1][0], max(stop, ranges[-1][1]))
                else:
                    nbytes += stop - start
                    ranges.append((start, stop))
            members.append(item)
            if nbytes >= _BATCH or len(ranges) >= _MAX_RANGES:
                yield _Batch(file, members, ranges)
                members, ranges, nbytes = [], [], 0
        if members:
            yield _Batch(file, members, ranges)


def _windows(item: Item) -> list[tuple[int, int]]:
    head, tail = (item.start, min(item.stop, item.start + _HEAD)), (max(item.start, item.stop - _TAIL), item.stop)
    return sorted([head, tail, *item.more])


def _parse(batch: _Batch, buffers: Sequence[bytearray]) -> list[Found | NotHereError]:
    read = [(start, memoryview(buffer)) for (start, _), buffer in zip(batch.ranges, buffers, strict=True)]
    results: list[Found | NotHereError] = []
    first = 0
    for item in batch.items:
        while read[first][0] + len(read[first][1]) <= item.start < item.stop:
            first += 1
        file = Windows(item.stop - item.start, list(_of_item(read, first, item)))
        where = f"{item.file}, bytes {item.start} to {item.stop}"
        try:
            results.append(_found(item, file, where))
        except NotHereError as error:
            results.append(error)
        except (ManifestError, NotPlainError) as error:
            results.append(Damage(str(error)))
    return results


def _of_item(read: Sequence[tuple[int, memoryview]], first: int, item: Item) -> Iterator[tuple[int, memoryview]]:
    """What was read of an entry, by position in it."""
    for position in range(first, len(read)):
        start, window = read[position]
        if start >= item.stop:
            return
        low, high = max(start, item.start), min(start + len(window), item.stop)
        yield low - item.start, window[low - start : high - start]


def _found(item: Item, file: Windows, where: str) -> Found:
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        return NoArchive()
    if not item.is_value:
        return read_tensor(file, where)
    value, length = read_value(file, where)
    try:
        return Value(value_node(value, length))
    except NotPlainError as error:
        raise NotPlainError(f"{where}: {error}") from error
