"""Two savers with one state file: item 66, where TensorFlow's last writer wins."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.catalog.opening import open_root
from asyncsaver.errors import StoreError
from asyncsaver.formats.tensorflow.state_text import State
from asyncsaver.model.names import Naming
from asyncsaver.store.registry import open_store
from asyncsaver.tensorflow import CheckpointList, get_checkpoint_state, remove_rotated, update_checkpoint_state
from asyncsaver.tensorflow.merge import merge_states
from asyncsaver.tensorflow.writing import change_object
from asyncsaver.testing import FaultyStore
from asyncsaver.testing.faults import FailBefore, LoseReply, on

from .golden import PROBES


def merged(found: State, wanted: State, dropped: tuple[str, ...] = ()) -> State:
    return merge_states(found, wanted, dropped, lambda path: path.removeprefix("./"))


def test_item_066_what_others_noted_comes_first_and_what_was_dropped_goes() -> None:
    found = State("y-1", ("m-0", "m-1", "y-1"), (), 5.0)
    assert merged(found, State("m-2", ("m-1", "m-2")), ("./m-0",)) == State("m-2", ("y-1", "m-1", "m-2"), (), 5.0)
    assert merged(State("m-1", ("./m-1",)), State("m-2", ("m-1", "m-2"))) == State("m-2", ("m-1", "m-2"))


def test_item_066_times_stay_where_all_have_one() -> None:
    wanted = State("m", ("m",), (2.0,), 7.0)
    assert merged(State("y", ("y",), (1.0,), 3.0), wanted) == State("m", ("y", "m"), (1.0, 2.0), 7.0)
    assert merged(State("y", ("y",)), wanted) == State("m", ("y", "m"), (), 7.0)
    assert merged(State("y", ("y",), (1.0,)), State("m", ("m",))) == State("m", ("y", "m"))
    assert merged(State("y", ("y",), (1.0, 2.0)), wanted) == State("m", ("y", "m"), (), 7.0), "as damaged as that is"


paths = st.lists(st.sampled_from("abcdef"), unique=True)


@given(paths, paths.filter(bool), paths)
def test_item_066_nothing_but_what_was_dropped_is_forgotten(
    found: list[str], mine: list[str], dropped: list[str]
) -> None:
    state = merged(State("z", tuple(found)), State(mine[-1], tuple(mine)), tuple(dropped))
    assert set(state.paths) == set(mine) | (set(found) - set(dropped))
    assert len(state.paths) == len(set(state.paths))
    assert list(state.paths[-len(mine) :]) == mine


async def save(url: str, name: str, checkpoints: CheckpointList, options: Any) -> None:
    path = f"{url}/{name}"
    checkpoints.record(path)
    await update_checkpoint_state(
        url, path, checkpoints.last_checkpoints, save_relative_paths=True, dropped=checkpoints.dropped, **options
    )
    await remove_rotated(checkpoints, **options)


async def test_item_066_two_savers_at_once_forget_nothing(any_root: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert "x-1" not in PROBES["graph.two_savers_same_checkpoint_file"]["last_writer_wins"]
    options: Any = {"storage_options": any_root.storage_options}
    savers = {name: CheckpointList(2) for name in ("x", "y")}

    async def run(name: str) -> None:
        for step in range(4):
            await save(any_root.url, f"{name}-{step}", savers[name], options)

    with caplog.at_level(logging.WARNING, "asyncsaver"):
        await asyncio.gather(*map(run, savers))
    state = await get_checkpoint_state(any_root.url, **options)
    assert state is not None
    assert sorted(state.paths) == sorted(path for saver in savers.values() for path in saver.last_checkpoints)
    assert state.latest in {saver.last_checkpoints[-1] for saver in savers.values()}
    assert "another saver writes there as well" in caplog.text


async def test_item_066_one_saver_sees_no_other(memory_root: Any, caplog: pytest.LogCaptureFixture) -> None:
    for most in (2, None):
        checkpoints = CheckpointList(most, clock=lambda: 0.0)
        for name in ("a", "b", "c", "c", "d"):
            await save(f"{memory_root.url}/{most}", name, checkpoints, {})
    state = await get_checkpoint_state(f"{memory_root.url}/None")
    assert state == State(f"{memory_root.url}/None/d", (f"{memory_root.url}/None/d",))
    assert caplog.records == []


async def test_a_damaged_state_file_is_replaced(memory_root: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with open_store(memory_root.url) as store:
        await store.put("checkpoint", b"garbage")
    await save(memory_root.url, "m-1", CheckpointList(2), {})
    assert await get_checkpoint_state(memory_root.url) is not None
    assert "Replaced" in caplog.text


async def overtaken_once(url: str, *, there: bool) -> bytes:
    """Change an object that another writer changes between our reading and our writing."""
    root = open_root(url, Naming())

    async def other_writer() -> None:
        async with open_store(url) as store:
            await store.put("state", b"other ")

    def change(data: bytes | None) -> bytes:
        if data in {None, b"old "}:
            asyncio.run(other_writer())
        return (data or b"") + b"mine"

    if there:
        await root.store.put("state", b"old ")
    await change_object(root, "state", change)
    data = (await root.store.get("state")).data
    await root.close()
    return data


@pytest.mark.parametrize("there", [True, False])
async def test_item_066_who_is_overtaken_looks_again(memory_root: Any, there: bool) -> None:
    assert await overtaken_once(memory_root.url, there=there) == b"other mine"


async def test_what_is_refused_for_good_is_an_error(memory_root: Any) -> None:
    root = open_root(FaultyStore(open_store(memory_root.url), [FailBefore(on("create"))]), Naming())
    with pytest.raises(StoreError, match="create state: broken"):
        await change_object(root, "state", lambda _: b"mine")
    await root.close()


@pytest.mark.parametrize("operation", ["create", "replace_if"])
async def test_item_066_a_lost_reply_does_no_harm(memory_root: Any, operation: str) -> None:
    store = FaultyStore(open_store(memory_root.url), [LoseReply(on(operation), times=1)])
    root = open_root(store, Naming())
    if operation == "replace_if":
        await root.store.put("state", b"mine")
    await change_object(root, "state", lambda data: data or b"mine")
    assert len(store.injected) == 1
    assert (await root.store.get("state")).data == b"mine"
    await root.close()
