"""What TensorFlow's saver does with files while it saves, in every format, by the list's numbers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import Saver, Variable, convert, open_checkpoint
from asyncsaver.errors import AccessDeniedError, StoreError
from asyncsaver.formats.tensorflow.bundle import decode_index
from asyncsaver.model.leaves import Adapters
from asyncsaver.store.registry import open_store
from asyncsaver.tensorflow import get_checkpoint_state, update_checkpoint_state
from asyncsaver.testing import FailBefore, FaultyStore, Operation, on
from asyncsaver.variables import bind

from ..variables.through import restore  # noqa: TID252 - test folders are no packages

FORMATS = ("native", "tensorflow")
DATA = {"native": "*.safetensors", "tensorflow": "*.data-*"}
STATE_FILE = {"native": "checkpoint.json", "tensorflow": "checkpoint"}
COMMIT = {"native": "m-{}/manifest*.json", "tensorflow": ".asyncsaver/m-{}/manifest*.json"}
STATE = {name: np.full(1000, number, np.float32) for number, name in enumerate("abcd")}
WRITES = ("put", "put_parts", "create", "replace_if")
every_format = pytest.mark.parametrize("kind", FORMATS)


def options(kind: str) -> dict[str, Any]:
    return {"format": kind, "prefix": "m", "pad_step_number": False, "shard_bytes": 4000}


async def files(url: str) -> set[str]:
    """All but our records beside TensorFlow's files, some of which outlive what they are about."""
    async with open_store(url) as store:
        return {item.path for item in (await store.list("")).objects if not item.path.startswith(".asyncsaver/")}


def places(operations: list[Operation], names: tuple[str, ...], path: str) -> list[int]:
    """At which places among the operations one of these was done to such a path."""
    return [
        operation.count for operation in operations if operation.name in names and on(operation.name, path)(operation)
    ]


@every_format
async def test_item_026_a_preferred_shard_is_a_hint(memory_root: Any, kind: str) -> None:
    """What was saved under one key restores into variables of another."""
    adapters = Adapters.discover()
    async with Saver(memory_root.url, **options(kind)) as saver:
        saved = [Variable(name, array.copy(), shard_key=f"host:{name}") for name, array in STATE.items()]
        await saver.save(bind(saved, adapters).state(), step=1)
        for key in ("", "host:a"):
            others = [Variable(name, np.zeros(1000, np.float32), shard_key=key) for name in STATE]
            await restore(saver, bind(others, adapters))
            assert {one.name: one.value.tolist() for one in others} == {
                name: array.tolist() for name, array in STATE.items()
            }


@every_format
@pytest.mark.parametrize("strikes", [0, 2])
async def test_item_033_a_save_that_fails_leaves_nothing(memory_root: Any, kind: str, strikes: int) -> None:
    async with Saver(memory_root.url, **options(kind)) as saver:
        await saver.save(STATE, step=1)
    before = await files(memory_root.url)
    refuse = FailBefore(lambda operation: on("put", DATA[kind])(operation) and operation.count > strikes, times=None)
    async with Saver(FaultyStore(open_store(memory_root.url), [refuse]), **options(kind)) as saver:
        with pytest.raises(StoreError):
            await saver.save(STATE, step=2)
    assert await files(memory_root.url) == before


@every_format
async def test_item_034_every_save_has_an_id_of_its_own(memory_root: Any, kind: str) -> None:
    async with Saver(memory_root.url, **options(kind)) as saver:
        saved = [await saver.save(STATE, step=1, overwrite=True) for _ in range(3)]
        saved += [await saver.save(STATE, step=step) for step in (2, 3)]
    assert len({checkpoint.save_id for checkpoint in saved}) == len(saved)
    assert all(checkpoint.save_id for checkpoint in saved)


@every_format
async def test_item_056_an_error_keeps_its_cause(memory_root: Any, kind: str) -> None:
    """Not a missing folder, which it is not, but what the store has said."""
    cause = PermissionError(13, "not yours")

    def refuse(operation: Operation) -> AccessDeniedError:
        refused = AccessDeniedError(f"{operation.path} cannot be written")
        refused.__cause__ = cause
        return refused

    store = FaultyStore(open_store(memory_root.url), [FailBefore(on("put", DATA[kind]), error=refuse, times=None)])
    async with Saver(store, **options(kind)) as saver:
        with pytest.raises(AccessDeniedError, match="cannot be written") as caught:
            await saver.save(STATE, step=1)
    assert caught.value.__cause__ is cause


async def test_item_056_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    async with Saver(tmp_path / "run" / "deeper") as saver:
        with pytest.raises(StoreError, match="run") as caught:
            await saver.save(STATE, step=1)
    causes = [caught.value.__cause__, getattr(caught.value.__cause__, "__cause__", None)]
    assert any(isinstance(cause, NotADirectoryError | FileExistsError) for cause in causes)


@every_format
async def test_item_060_data_before_commit_before_state_before_deletions(memory_root: Any, kind: str) -> None:
    store = FaultyStore(open_store(memory_root.url))
    async with Saver(store, **options(kind), max_to_keep=1) as saver:
        await saver.save(STATE, step=1)
        begin = len(store.operations)
        await saver.save(STATE, step=2)
        assert [one.name for one in await saver.checkpoints()] == ["m-2"]
    done = store.operations[begin:]
    data = places(done, WRITES, DATA[kind])
    commits = places(done, ("create",), COMMIT[kind].format(2))
    states = places(done, WRITES, STATE_FILE[kind])
    deletions = places(done, ("delete",), "m-1[./]*")
    assert data
    assert len(commits) == 1
    assert states
    assert deletions
    assert max(data) < commits[0] < min(states) < min(deletions)


@every_format
async def test_item_062_files_of_the_older_save_go_after_the_commit(memory_root: Any, kind: str) -> None:
    async with Saver(memory_root.url, **options(kind)) as saver:
        await saver.save(STATE, step=1)
    old = {path for path in await files(memory_root.url) if on("", DATA[kind])(Operation("", path, 1))}
    assert len(old) > 1
    store = FaultyStore(open_store(memory_root.url))
    async with Saver(store, **options(kind)) as saver:
        await saver.save({"a": STATE["a"]}, step=1, overwrite=True)
        assert list(await saver.restore()) == ["a"]
    left = {path for path in await files(memory_root.url) if on("", DATA[kind])(Operation("", path, 1))}
    assert len(left) == 1
    assert not left & old
    [commit] = places(store.operations, ("create",), COMMIT[kind].format(1))
    deletions = places(store.operations, ("delete",), "m-1[./]*")
    assert deletions
    assert min(deletions) > commit


async def test_item_067_readers_see_one_state_or_the_other(tmp_path: Path) -> None:
    """TensorFlow renames a temporary file over it; so must we, on a disk where readers look all the time."""
    folder = str(tmp_path)
    lists = [[f"{folder}/m-{step}" for step in range(count)] for count in (300, 1)]
    await update_checkpoint_state(folder, lists[0][-1], lists[0])
    seen: set[int] = set()
    written = asyncio.Event()

    async def write() -> None:
        for turn in range(60):
            now = lists[turn % 2]
            await update_checkpoint_state(folder, now[-1], now)
        written.set()

    async def look() -> None:
        while not written.is_set():
            state = await get_checkpoint_state(folder)
            assert state is not None
            assert list(state.paths) in lists
            seen.add(len(state.paths))

    await asyncio.gather(write(), look(), look())
    assert seen == {300, 1}


@every_format
async def test_item_044_a_save_gives_what_restores_it(memory_root: Any, kind: str) -> None:
    """TensorFlow's returns the prefix; a converted checkpoint is one, too."""
    url = memory_root.url
    async with Saver(url, **options(kind)) as saver:
        saved = await saver.save(STATE, step=7)
    assert saved.url == f"{url}/m-7"
    converted = await convert(saved.url, f"{url}/other/n-8", format="tensorflow")
    assert converted.url == f"{url}/other/n-8"
    assert f"{url}/other/n-8.index" in {f"{url}/{path}" for path in await files(url)}
    for checkpoint in (saved, converted):
        async with await open_checkpoint(checkpoint.url) as reader:
            assert (await reader.read("b")).tolist() == STATE["b"].tolist()


@every_format
async def test_item_001_variables_or_a_state_but_not_both(memory_root: Any, kind: str) -> None:
    """TensorFlow's way to be given both was to build later; here nothing is built later."""
    async with Saver(memory_root.url, **options(kind), var_list={"a": np.ones(3)}) as saver:
        with pytest.raises(TypeError, match="bound to variables"):
            await saver.save(STATE, step=1)
        assert await saver.checkpoints() == []
        await saver.save(step=1)
        assert [one.name for one in await saver.checkpoints()] == ["m-1"]


@pytest.mark.parametrize("shards", [4, 1])
async def test_items_031_and_032_data_files_then_one_index(memory_root: Any, shards: int) -> None:
    """The protocol is the same for one data file as for many: data, a merged index, and nothing temporary is left."""
    store = FaultyStore(open_store(memory_root.url))
    async with Saver(store, **{**options("tensorflow"), "shard_bytes": 16_000 // shards}) as saver:
        await saver.save(STATE, step=1)
    data = {f"m-1.data-{shard:05d}-of-{shards:05d}" for shard in range(shards)}
    assert await files(memory_root.url) == {*data, "m-1.index", "checkpoint"}
    [index] = places(store.operations, ("create",), "m-1.index")
    assert max(places(store.operations, WRITES, "m-1.data-*")) < index
    async with open_store(memory_root.url) as plain:
        merged = decode_index((await plain.get("m-1.index")).data, "m-1.index")
    assert merged.shards == shards
    assert list(merged.entries) == list(STATE)
    assert {entry.shard for entry in merged.entries.values()} == set(range(shards))


async def test_item_058_a_sidecar_is_written_only_when_there_is_one(memory_root: Any) -> None:
    async with Saver(memory_root.url, **options("tensorflow")) as saver:
        await saver.save(STATE, step=1)
        assert not [path for path in await files(memory_root.url) if path.endswith(".meta")]
        await saver.save(STATE, step=2, write_meta=b"a graph")
        await saver.save(STATE, step=3, write_meta=b"")
    async with open_store(memory_root.url) as store:
        assert (await store.get("m-2.meta")).data == b"a graph"
        assert (await store.get("m-3.meta")).data == b""
    assert "m-1.meta" not in await files(memory_root.url)
