"""One root in memory that several savers share, and what must be true of it at any time."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from asyncsaver import Saver
from asyncsaver.errors import AsyncSaverError, StoreError, StoreTimeoutError
from asyncsaver.formats import native
from asyncsaver.formats.encodings import STATE_FILES, decode_body
from asyncsaver.model.manifest import Aborted, CommitRecord, Deleted, Manifest, Record
from asyncsaver.model.names import is_save_id, parse_slot, slot_path
from asyncsaver.store import Store
from asyncsaver_backends.memory import MemoryStore

from .scripted import Script, ScriptedStore, nothing

DAY = timedelta(days=1)


def state_of(number: int) -> dict[str, Any]:
    """A state of three arrays, with a shard each when ``shard_bytes`` is 1; no two numbers give the same bits."""
    return {
        "weights": np.arange(12, dtype=np.float32).reshape(3, 4) + number,
        "bias": np.full(5, number, dtype=np.int64),
        "number": number,
        "rng": {"key": np.array([number, 1], dtype=np.uint32)},
    }


def number_of(state: dict[str, Any]) -> int:
    """The number of which this is the state, bit for bit; anything else fails."""
    number: int = state["number"]
    expected = state_of(number)
    assert state.keys() == expected.keys()
    np.testing.assert_array_equal(state["weights"], expected["weights"], strict=True)
    np.testing.assert_array_equal(state["bias"], expected["bias"], strict=True)
    np.testing.assert_array_equal(state["rng"]["key"], expected["rng"]["key"], strict=True)
    return number


def timed_out() -> StoreTimeoutError:
    """The store did not answer; the call may or may not have been carried out."""
    return StoreTimeoutError("no answer", retryable=True)


def broken() -> StoreError:
    """The store failed for good."""
    return StoreError("broken", retryable=False)


def unretried(saver: Saver, store: Store) -> Saver:
    """The same saver on another store, whose every call reaches it as the protocol makes it: nothing is sent twice."""
    root = saver._root
    root.store = store
    root.__post_init__()  # what works on the store is made anew
    return saver


@dataclass(slots=True)
class World:
    """A root in memory.

    Attributes:
        url: of the root.
        time: what the store's clock says.
    """

    url: str = field(default_factory=lambda: f"memory://world-{uuid.uuid4().hex}/run")
    time: datetime = datetime(2030, 1, 1, tzinfo=UTC)

    def memory(self) -> MemoryStore:
        """The store itself."""
        return MemoryStore(self.url, clock=lambda: self.time)

    def store(self, script: Script = nothing, **options: Any) -> ScriptedStore:
        """The store with a script in its way."""
        return ScriptedStore(self.memory(), script, **options)

    def saver(self, store: Store | None = None, **arguments: Any) -> Saver:
        """A saver on the root, without retries in between: each call reaches the store as the protocol makes it.

        Three shards a state; its clock is half a year behind the store's, since nothing may depend on it.
        """
        behind = self.time - timedelta(days=180)
        ticks = itertools.count()
        options = {"shard_bytes": 1, "max_to_keep": None, "retry_timeout": 0.3}
        saver = Saver(self.url, **{**options, "clock": lambda: behind.timestamp() + next(ticks), **arguments})
        return unretried(saver, store or self.memory())

    def copy(self) -> World:
        """Another root with the same objects, in the same versions."""
        other = World(time=self.time)
        bucket = other.memory()._bucket
        for key, version in self.memory()._bucket.objects.items():
            bucket.keep(key, version)
        bucket.versions = itertools.count(len(bucket.objects) + 10_000)
        return other

    async def objects(self) -> dict[str, bytes]:
        """Everything under the root."""
        store = self.memory()
        return {item.path: (await store.get(item.path)).data for item in (await store.list()).objects}

    async def records(self, name: str) -> dict[int, Record]:
        """What stands at the slots of a checkpoint."""
        found = {}
        for path, data in (await self.objects()).items():
            folder, _, rest = path.partition("/")
            slot = parse_slot(rest)
            if folder == name and slot is not None:
                found[slot] = native.decode_record(data, name=name, slot=slot)
        return found

    async def put_record(self, record: Record) -> None:
        """Put a record at its slot."""
        await self.memory().put(slot_path(record.name, record.slot), native.encode(record))

    async def numbers(self) -> dict[str, int]:
        """As `numbers_of`, by a fresh saver."""
        async with self.saver() as saver:
            return await numbers_of(saver)

    async def data_folders(self) -> dict[str, list[str]]:
        """Save id → its objects, of all bytes that attempts have written."""
        folders: dict[str, list[str]] = {}
        for path in await self.objects():
            segments = path.split("/")
            if len(segments) > 2 and is_save_id(segments[1]):
                folders.setdefault(segments[1], []).append(path)
        return folders

    async def assert_nothing_unreferenced(self) -> None:
        """Every byte belongs to a committed manifest, or is a record, the state file or a mark beside a checkpoint."""
        assert_nothing_unreferenced(await self.objects())


def assert_nothing_unreferenced(objects: Mapping[str, bytes]) -> None:
    """As `World.assert_nothing_unreferenced`, of everything that any root holds: path → content."""
    referenced, committed = set(), set()
    for path, data in objects.items():
        name, _, rest = path.partition("/")
        slot = parse_slot(rest)
        if slot is not None:
            record = native.decode_record(data, name=name, slot=slot)
            if isinstance(record, CommitRecord):
                committed.add(name)
                referenced.add(record.save_id)
                manifest = record if isinstance(record, Manifest) else decode_body(objects[record.body.path], record)
                assert {file.path for file in manifest.files} <= objects.keys(), f"{path} lacks files"
            else:
                assert isinstance(record, (Aborted, Deleted))
    states = objects.keys() & STATE_FILES.values()
    assert len(states) <= 1, "two kinds of savers, and the last has not removed the state file of the other"
    for path in objects:
        name, _, rest = path.partition("/")
        if path in states or parse_slot(rest) is not None:
            continue
        if rest in {"pinned.json", "preserved.json"}:
            assert name in committed, f"{path} stands beside nothing"
            continue
        assert rest.split("/")[0] in referenced, f"{path} belongs to nothing"


async def numbers_of(saver: Saver) -> dict[str, int]:
    """Name → number of the state, of every checkpoint that a saver lists; each must restore whole."""
    return {one.name: number_of(await saver.restore(checkpoint=one)) for one in await saver.checkpoints()}


@asynccontextmanager
async def closing(saver: Saver) -> AsyncIterator[Saver]:
    """A saver whose close may fail as its store does."""
    try:
        yield saver
    finally:
        try:
            await saver.close()
        except AsyncSaverError:
            saver._root.threads.close()


async def for_each(cases: list[Any], check: Callable[[Any], Any]) -> None:
    """Check all cases, several at once, and fail with every one that failed."""
    turns = asyncio.Semaphore(6)
    failed: list[str] = []

    async def one(case: Any) -> None:
        async with turns:
            try:
                async with asyncio.timeout(600):  # for what hangs; a machine may be slow
                    await check(case)
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - all are reported together
                failed.append(f"{case}: {type(error).__name__}: {error}")

    async with asyncio.TaskGroup() as group:
        for case in cases:
            group.create_task(one(case))
    assert cases
    assert not failed, f"{len(failed)} of {len(cases)} cases:\n" + "\n".join(failed)
