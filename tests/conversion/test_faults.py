"""A fault at every operation of a conversion, on either side: the target is whole or as it was, and nothing is left."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from asyncsaver import Saver
from asyncsaver.catalog.opening import open_root
from asyncsaver.catalog.root import Root
from asyncsaver.conversion.convert import convert_source
from asyncsaver.conversion.request import Conversion
from asyncsaver.errors import AsyncSaverError, CheckpointNotFoundError, CommitUnknownError
from asyncsaver.model.names import Naming
from asyncsaver.restore.opening import naming_of, open_source
from asyncsaver.store import Store
from asyncsaver_backends.memory import MemoryStore

from ..doubles.everywhere import KINDS, script_of  # noqa: TID252
from ..doubles.scripted import Script, ScriptedStore, nothing  # noqa: TID252 - no package
from ..doubles.world import for_each  # noqa: TID252
from .checkpoints import Content, assert_same, content_of

pytestmark = pytest.mark.slow
PART = 256
NAMES = {"native": "ckpt-00000005", "tensorflow": "model.ckpt-5", "huggingface": "model-5"}


def state_of(number: int) -> dict[str, Any]:
    """Of several shards, one of which takes several parts."""
    return {
        "large": np.arange(300, dtype=np.float32) + number,
        "small": np.full(number, number, np.int64),
        "bias": np.full((3, 5), number, np.float16),
    }


def memory(url: str) -> MemoryStore:
    store = MemoryStore(url)
    store.capabilities = replace(store.capabilities, part_bytes=PART)
    return store


@asynccontextmanager
async def opened(store: Store, naming: Naming) -> AsyncIterator[Root]:
    """A root whose store gets each request as it is made: none is repeated, but for those that are settled."""
    root = open_root(store, naming, retry_timeout=0.05, memory_budget=2 * PART)
    root.store = store
    root.__post_init__()
    try:
        yield root
    finally:
        root.threads.close()


@dataclass(frozen=True, slots=True)
class Ground:
    """A target in memory, and what is converted into it."""

    into: str
    overwrite: bool
    url: str

    @property
    def target(self) -> str:
        return f"{self.url}/{NAMES[self.into]}"

    async def convert(self, source: str, store: Store | None = None, script: Script = nothing, **options: Any) -> None:
        """Convert; the script stands in the way of the source's store."""
        root, found = await open_source(source, "auto")
        root.store = ScriptedStore(memory(root.store.url), script)
        name = NAMES[self.into]
        conversion = Conversion(
            name=name, format=self.into, shard_bytes=500, scratch=PART, commit_timeout=0.3, **options
        )
        try:
            async with opened(store or memory(self.url), naming_of(name)) as to:
                await asyncio.wait_for(convert_source(root, found, to, conversion), 60)
        finally:
            await root.close()

    async def content(self) -> Content | None:
        """What stands at the target; None where nothing does."""
        try:
            return await content_of(self.target, self.into)
        except CheckpointNotFoundError:
            return None

    async def paths(self) -> set[str]:
        """Everything in the target's store, but for the records of a native root."""
        return {
            item.path for item in (await memory(self.url).list()).objects if not item.path.endswith("checkpoint.json")
        }


async def source_of(number: int) -> str:
    async with Saver(f"memory://source-{uuid.uuid4().hex}/run") as saver:
        return (await saver.save(state_of(number), step=1)).url


async def ground_of(into: str, before: str | None) -> Ground:
    ground = Ground(into, before is not None, f"memory://target-{uuid.uuid4().hex}/run")
    if before is not None:
        await ground.convert(before)
    return ground


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("into", NAMES)
async def test_a_fault_at_every_operation_on_the_target(
    into: str,
    overwrite: bool,
    kind: str,
) -> None:
    old, new = await source_of(3), await source_of(4)
    contents = {3: await content_of(old), 4: await content_of(new)}
    ground = await ground_of(into, old if overwrite else None)
    counting = ScriptedStore(memory(ground.url), nothing)
    await ground.convert(new, counting, overwrite=overwrite)
    assert counting.count("put_parts") >= 1

    async def check(number: int) -> None:
        ground = await ground_of(into, old if overwrite else None)
        before = await ground.paths()
        tasks: list[asyncio.Task[Any]] = []
        store = ScriptedStore(memory(ground.url), script_of(kind, number, lambda: tasks[0]))
        tasks.append(asyncio.ensure_future(ground.convert(new, store, overwrite=overwrite)))
        outcome: BaseException | None = None
        try:
            await tasks[0]
        except (AsyncSaverError, asyncio.CancelledError) as error:
            outcome = error
        if into != "huggingface" or kind != "dies":  # shards without an index are what other libraries take for whole
            found = await ground.content()
            allowed = [contents[4]] if outcome is None else [contents[4], contents[3] if overwrite else None]
            assert any(_equal(found, one) for one in allowed), f"after {outcome!r}"
            clean = (
                isinstance(outcome, AsyncSaverError) and not isinstance(outcome, CommitUnknownError) and kind != "dies"
            )
            if clean:
                assert _equal(found, contents[3] if overwrite else None), f"done in spite of {outcome!r}"
                assert await ground.paths() - before <= _records(await ground.paths()), f"leftovers after {outcome!r}"
        await ground.convert(new, overwrite=True)
        assert _equal(await ground.content(), contents[4])

    await for_each(list(range(len(counting.calls))), check)


def _records(paths: set[str]) -> set[str]:
    """What a native root keeps of attempts: tombstones, and what a probe of the store writes."""
    return {path for path in paths if "/manifest" in path or path.startswith(".asyncsaver")}


def _equal(found: Content | None, expected: Content | None) -> bool:
    if found is None or expected is None:
        return found is expected
    try:
        assert_same(found, expected)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("into", NAMES)
async def test_a_fault_at_every_operation_on_the_source(into: str, kind: str) -> None:
    source = await source_of(4)
    expected = await content_of(source)
    seen: list[int] = []
    await (await ground_of(into, None)).convert(source, script=lambda call: seen.append(call.number))
    assert seen

    async def check(number: int) -> None:
        ground = await ground_of(into, None)
        tasks: list[asyncio.Task[Any]] = []
        tasks.append(asyncio.ensure_future(ground.convert(source, script=script_of(kind, number, lambda: tasks[0]))))
        try:
            await tasks[0]
        except (AsyncSaverError, asyncio.CancelledError):
            assert await ground.content() is None
            assert await ground.paths() == set()
            await ground.convert(source)
        else:
            assert kind.startswith("lost"), "nothing else can be tried again"
        assert _equal(await ground.content(), expected)

    await for_each(seen, check)
