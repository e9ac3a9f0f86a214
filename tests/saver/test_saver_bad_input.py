"""What cannot be saved is refused by name, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from asyncsaver import (
    CheckpointExistsError,
    CheckpointNotFoundError,
    InvalidStateError,
    ReadOnlyError,
    Saver,
    UnsupportedLeafError,
    UnsupportedStoreError,
)

from .place import Place

OK = {"x": np.arange(3)}


class Colour(Enum):
    RED = 1


def a_cycle() -> dict[str, Any]:
    inner: dict[str, Any] = {}
    inner["self"] = inner
    return {"inner": inner}


def too_deep() -> Any:
    state: Any = 1
    for _ in range(500):
        state = [state]
    return {"deep": state}


BAD_STATES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: {"model": {"a": np.array([object()])}}, UnsupportedLeafError, r"model\.a: arrays of Python objects"),
    (lambda: {"a": [np.zeros(2, "i4,f8")]}, UnsupportedLeafError, r"a\.0: arrays with named fields"),
    (lambda: {"a": np.zeros(2, np.longdouble)}, UnsupportedLeafError, "a: .*float64"),
    (lambda: {"a": np.ma.masked_array([1, 2], [False, True])}, UnsupportedLeafError, "a: the mask"),
    (lambda: {"a": {1, 2}}, UnsupportedLeafError, "a: .*sorted list"),
    (lambda: {"a": 1j}, UnsupportedLeafError, "a: .*complex128"),
    (lambda: {"a": bytearray(2)}, UnsupportedLeafError, "a: .*bytes"),
    (lambda: {"a": Colour.RED}, UnsupportedLeafError, "a: .*Colour"),
    (lambda: {"a": Decimal(1)}, UnsupportedLeafError, "a: .*Decimal"),
    (lambda: {"a": len}, UnsupportedLeafError, "a: .*cannot be saved"),
    (object, UnsupportedLeafError, "state: .*object"),
    (lambda: {"a": {(1, 2): 3}}, UnsupportedLeafError, r"a: the key \(1, 2\) of type tuple"),
    (lambda: {"a": {1.5: 3}}, UnsupportedLeafError, "a: the key 1.5 of type float"),
    (lambda: {None: 3}, UnsupportedLeafError, "state: the key None"),
    (lambda: {"a": {True: 3}}, UnsupportedLeafError, "a: the key True of type bool"),
    (
        lambda: {"a": {"b": 1}, "a.b": 2},
        InvalidStateError,
        r"state\['a'\]\['b'\] and state\['a.b'\] would both be named 'a.b'",
    ),
    (lambda: {1: 1, "1": 2}, InvalidStateError, r"state\[1\] and state\['1'\] would both be named '1'"),
    (lambda: {"": np.arange(2)}, InvalidStateError, "not empty"),
    (lambda: {"__metadata__": np.arange(2)}, InvalidStateError, "reserved by safetensors"),
    (a_cycle, InvalidStateError, r"inner\.self: this dict contains itself"),
    (too_deep, InvalidStateError, "nested more than"),
]


@pytest.mark.parametrize(("make", "error", "words"), BAD_STATES)
async def test_a_state_that_cannot_be_saved(
    memory: Place, make: Callable[[], Any], error: type[Exception], words: str
) -> None:
    async with memory.saver() as saver:
        with pytest.raises(error, match=words) as caught:
            await saver.save(make(), step=1)
        with pytest.raises(error, match=words):
            await saver.save_in_background(make(), step=1)
        assert isinstance(caught.value, ValueError)
        assert await memory.paths() == []
        assert (await saver.save(OK, step=1)).step == 1


@pytest.mark.parametrize("step", [True, np.bool_(True), 1.0, np.float32(1), "1", b"1", [1], np.array([1, 2])])
async def test_a_step_of_the_wrong_type(memory: Place, step: Any) -> None:
    async with memory.saver() as saver:
        for call in (saver.save(OK, step), saver.save_in_background(OK, step), saver.delete(step), saver.pin(step)):
            with pytest.raises(TypeError, match="step must be an integer"):
                await call
        for look in (saver.restore(step=step), saver.open(step), saver.verify(step), saver.unpin(step)):
            with pytest.raises(TypeError, match="step must be an integer"):
                await look
    assert await memory.paths() == []


@pytest.mark.parametrize("step", [-1, 2**63, np.int64(-5)])
async def test_a_step_out_of_range(memory: Place, step: Any) -> None:
    async with memory.saver() as saver:
        for call in (saver.save(OK, step), saver.delete(step), saver.restore(step=step)):
            with pytest.raises(ValueError, match=r"step must be between 0 and 2\*\*63-1, not"):
                await call
    assert await memory.paths() == []


@pytest.mark.parametrize("step", [0, 99_999_999, 100_000_000, 2**63 - 1, np.int16(7), np.array(7)])
@pytest.mark.parametrize("pad", [True, False])
async def test_every_integer_is_a_step(memory: Place, step: Any, *, pad: bool) -> None:
    async with memory.saver(pad_step_number=pad) as saver:
        saved = await saver.save(OK, step)
        assert type(saved.step) is int
        assert saved.step == step
        latest = await saver.latest()
        assert latest is not None
        assert latest.step == step
    async with memory.saver(pad_step_number=not pad) as other:
        np.testing.assert_array_equal((await other.restore(step=step))["x"], OK["x"])


async def test_a_step_that_exists_is_not_touched(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(OK, step=1)
        before = await memory.objects()
        with pytest.raises(CheckpointExistsError, match=r"ckpt-00000001 is committed already.*overwrite=True"):
            await saver.save({"x": np.zeros(9)}, step=1)
        assert await memory.objects() == before


@pytest.mark.parametrize(
    ("metrics", "error", "words"),
    [
        ({"loss": "0.1"}, TypeError, r"metrics\['loss'\] must be a number, not str"),
        ({"loss": None}, TypeError, r"metrics\['loss'\]"),
        ({"loss": np.zeros(2)}, TypeError, r"metrics\['loss'\]"),
        ({"loss": 10**400}, ValueError, r"metrics\['loss'\]"),
        ({5: 0.1}, TypeError, "names must be str, not int"),
        ({"a\ud800": 1}, ValueError, "metrics: .*surrogate"),
        ([0.1], TypeError, "metrics must be"),
        (0.1, TypeError, "metrics must be"),
    ],
)
async def test_bad_metrics(memory: Place, metrics: Any, error: type[Exception], words: str) -> None:
    async with memory.saver() as saver:
        with pytest.raises(error, match=words):
            await saver.save(OK, step=1, metrics=metrics)
    assert await memory.paths() == []


@pytest.mark.parametrize(
    ("metadata", "error", "words"),
    [
        ({"a": {"b": object()}}, TypeError, r"metadata\.a\.b: object is not JSON"),
        ({"a": [1, {2}]}, TypeError, r"metadata\.a\[1\]: set"),
        ({"a": {5: 1}}, TypeError, r"metadata\.a: keys must be str, not int"),
        ({"a": float("nan")}, ValueError, r"metadata\.a: nan"),
        ({"a": 2**70}, ValueError, r"metadata\.a: .*64 bits"),
        ({"a": b"x"}, TypeError, r"metadata\.a: bytes"),
        ({"a": np.float64(1)}, TypeError, r"metadata\.a: float64"),
        ({"a": "\ud800"}, ValueError, r"metadata\.a: .*surrogate"),
        ({"\ud800": 1}, ValueError, "metadata: .*surrogate"),
        (a_cycle(), ValueError, "metadata.*nested deeper"),
    ],
)
async def test_bad_metadata(memory: Place, metadata: Any, error: type[Exception], words: str) -> None:
    async with memory.saver() as saver:
        with pytest.raises(error, match=words):
            await saver.save(OK, step=1, metadata=metadata)
    assert await memory.paths() == []


async def test_an_empty_root_has_nothing_to_restore(nearby: Place) -> None:
    async with nearby.saver() as saver:
        for call in (saver.restore(), saver.open(), saver.verify()):
            with pytest.raises(CheckpointNotFoundError, match="holds no committed checkpoint"):
                await call
        for call in (saver.restore(step=3), saver.open(3), saver.delete(3), saver.pin(3), saver.unpin(3)):
            with pytest.raises(CheckpointNotFoundError, match="ckpt-00000003 is not a committed checkpoint"):
                await call
        with pytest.raises(CheckpointNotFoundError, match="/ckpt is not"):
            await saver.delete(None)
        assert await saver.latest() is None
        assert await saver.checkpoints() == []
        assert (await saver.prune()).checkpoints == []
        assert (await saver.sweep(0)).leftovers == []
    assert [path for path in await nearby.paths() if path != "checkpoint.json"] == []


async def test_read_only_refuses_every_change(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(OK, step=1)
    before = await memory.objects()
    async with memory.saver(read_only=True, max_to_keep=1) as saver:
        for call in (
            saver.save(OK, step=2),
            saver.save_in_background(OK, step=2),
            saver.delete(1),
            saver.pin(1),
            saver.unpin(1),
            saver.prune(),
            saver.sweep(),
        ):
            with pytest.raises(ReadOnlyError, match="read-only"):
                await call
        assert (await saver.restore())["x"].size == 3
        await saver.verify()
        assert [line.kept for line in (await saver.prune(dry_run=True)).checkpoints] == [True]
        assert (await saver.sweep(dry_run=True)).leftovers == []
    assert await memory.objects() == before


async def test_a_store_without_exclusive_creation_needs_a_promise(tmp_path: Path) -> None:
    filesystem = DirFileSystem(str(tmp_path), LocalFileSystem(auto_mkdir=True))
    async with Saver("run", filesystem=filesystem) as saver:
        with pytest.raises(UnsupportedStoreError, match="single_writer=True"):
            await saver.save(OK, step=1)
        assert not [path for path in filesystem.find("") if filesystem.isfile(path)]
    async with Saver("run", filesystem=filesystem, single_writer=True) as saver:
        await saver.save(OK, step=1)
        np.testing.assert_array_equal((await saver.restore())["x"], OK["x"])
