"""What of a checkpoint is restored, and as what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from asyncsaver import Saver, StructureMismatchError

from .place import Place
from .states import bits


def small_state() -> dict[str, Any]:
    return {
        "model": {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.arange(3, dtype=np.float64)},
        "optimizer": {"step": 5, "moments": [np.ones(2), np.zeros(2)]},
        "ids": np.arange(4),
    }


@pytest.fixture
async def saver(memory: Place) -> AsyncIterator[Saver]:
    """One checkpoint of `small_state` is there."""
    async with memory.saver() as saver:
        await saver.save(small_state(), step=1)
        yield saver


@pytest.mark.parametrize("select", ["model", "model.*", ["model.weight", "model.bias"], lambda name: "model" in name])
async def test_a_selection_without_a_target(saver: Saver, select: Any) -> None:
    assert bits(await saver.restore(select=select)) == bits({"model": small_state()["model"]})


async def test_a_selection_of_a_list_keeps_positions(saver: Saver) -> None:
    restored = await saver.restore(select="optimizer.moments.1")
    assert bits(restored) == bits({"optimizer": {"moments": [None, np.zeros(2)]}})


async def test_a_selection_leaves_the_rest_of_the_target_alone(saver: Saver) -> None:
    target = {"model": {"weight": np.zeros((2, 3), np.float32), "extra": 1}, "ids": np.full(4, 9)}
    restored = await saver.restore(target, select="model.weight")
    assert bits(restored) == bits(
        {"model": {"weight": small_state()["model"]["weight"], "extra": 1}, "ids": np.full(4, 9)}
    )
    assert restored["ids"] is target["ids"]


async def test_a_selection_of_nothing_is_an_error(saver: Saver) -> None:
    with pytest.raises(StructureMismatchError, match=r"'modle\.\*' selects none of the"):
        await saver.restore(select="modle.*")


@pytest.mark.parametrize("dtype", [np.float16, "float64", ml_dtypes.bfloat16])
async def test_a_dtype_casts_floating_tensors_only(saver: Saver, dtype: Any) -> None:
    restored = await saver.restore(dtype=dtype)
    assert restored["model"]["weight"].dtype == np.dtype(dtype)
    assert restored["model"]["bias"].dtype == np.dtype(dtype)
    assert restored["ids"].dtype == np.int64
    np.testing.assert_array_equal(
        restored["model"]["weight"], small_state()["model"]["weight"].astype(dtype), strict=True
    )


async def test_the_dtypes_of_the_target(saver: Saver) -> None:
    target = small_state()
    target["model"] = {"weight": np.zeros((2, 3), ml_dtypes.bfloat16), "bias": np.zeros(3, ">f4")}
    restored = await saver.restore(target, dtype="target")
    assert restored["model"]["weight"] is target["model"]["weight"]
    np.testing.assert_array_equal(target["model"]["weight"].astype(np.float32), small_state()["model"]["weight"])
    np.testing.assert_array_equal(target["model"]["bias"], [0, 1, 2])


async def test_not_strict_keeps_what_only_the_target_has(saver: Saver) -> None:
    target = {"model": {"weight": np.zeros((2, 3), np.float32), "new": np.full(2, 7)}, "also": "new"}
    restored = await saver.restore(target, strict=False)
    assert bits(restored) == bits(
        {"model": {"weight": small_state()["model"]["weight"], "new": np.full(2, 7)}, "also": "new"}
    )


async def test_not_strict_still_refuses_another_shape(saver: Saver) -> None:
    target = {"model": {"weight": np.zeros((3, 2), np.float32)}}
    with pytest.raises(StructureMismatchError, match="reshape=True would"):
        await saver.restore(target, strict=False)
    assert not target["model"]["weight"].any()


async def test_reshape_fills_in_c_order(saver: Saver) -> None:
    target = {"model": {"weight": np.zeros((3, 2), np.float32, order="F")}}
    restored = await saver.restore(target, strict=False, reshape=True)
    assert restored["model"]["weight"] is target["model"]["weight"]
    np.testing.assert_array_equal(target["model"]["weight"], [[0, 1], [2, 3], [4, 5]])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"dtype": "target"}, ValueError, "needs a target"),
        ({"dtype": np.int32}, ValueError, "int32"),
        ({"dtype": "no-such-dtype"}, TypeError, "no-such-dtype"),
        ({"select": 5}, TypeError, "select"),
        ({"select": [5]}, TypeError, "select"),
        ({"step": "1"}, TypeError, "step"),
        ({"step": -1}, ValueError, "step"),
        ({"checkpoint": "ckpt-00000001"}, TypeError, "checkpoint"),
    ],
)
async def test_wrong_arguments(saver: Saver, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        await saver.restore(**options)


async def test_a_step_and_a_checkpoint_together_are_refused(saver: Saver) -> None:
    with pytest.raises(ValueError, match="a step or a checkpoint"):
        await saver.restore(step=1, checkpoint=await saver.latest())


async def test_a_checkpoint_is_no_target(saver: Saver) -> None:
    newest = await saver.latest()
    with pytest.raises(TypeError, match="checkpoint="):
        await saver.restore(newest)
    assert bits(await saver.restore(checkpoint=newest)) == bits(small_state())


async def test_every_difference_is_listed_and_nothing_is_assigned(saver: Saver) -> None:
    target: dict[str, Any] = {
        "model": {
            "weight": np.full((2, 4), -1, np.float32),
            "bias": np.full(3, -1, np.float32),
            "extra": np.full(1, -1),
        },
        "optimizer": {"step": "five", "moments": [np.full(2, -1.0)]},
        "ids": np.full(4, -1),
    }
    before = bits(target)
    with pytest.raises(StructureMismatchError) as caught:
        await saver.restore(target)
    error = caught.value
    assert error.missing == ("model.extra",)
    assert error.unexpected == ("optimizer.moments.1",)
    assert [line.partition(":")[0] for line in error.mismatched] == ["model.weight", "model.bias", "optimizer.step"]
    for name in (*error.missing, *error.unexpected, *error.mismatched):
        assert name in str(error)
    assert bits(target) == before


async def test_a_state_larger_than_the_memory_budget(memory: Place) -> None:
    state = {"a": np.random.default_rng(0).random(5000), "b": [np.arange(3000), np.asfortranarray(np.ones((40, 50)))]}
    target = {"a": np.zeros(5000), "b": [np.zeros(3000, np.int64), np.zeros((40, 50), order="F")]}
    async with memory.saver(memory_budget=1000, shard_bytes=30_000) as saver:
        saved = await saver.save(state, step=1)
        pending = await saver.save_in_background(state, step=2)
        assert bits(await saver.restore()) == bits(state)
        restored = await saver.restore(target)
        await pending
    assert saved.stats is not None
    assert saved.stats.files == 3
    assert restored["a"] is target["a"]
    assert bits(restored) == bits(state)


@pytest.mark.parametrize(
    ("weight", "remedy"),
    [
        (np.zeros((2, 3), np.float64), ' (dtype="target" would cast it)'),
        (np.zeros(6, np.float32), " (reshape=True would reshape it)"),
        (np.zeros(6, np.float64), ' (dtype="target" would cast it, reshape=True would reshape it)'),
        (np.zeros((3, 3), np.float64), ""),
        (np.zeros(6, np.int8), ""),
    ],
)
async def test_a_mismatch_names_what_would_help_and_only_that(saver: Saver, weight: Any, remedy: str) -> None:
    with pytest.raises(StructureMismatchError) as caught:
        await saver.restore({"model": {"weight": weight}}, select="model.weight")
    [line] = caught.value.mismatched
    assert line.endswith(" in the target" + remedy)
