"""Restoring in place what a saver is bound to: all of it, or nothing."""

from __future__ import annotations

import logging
import re
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import (
    CheckpointCorruptError,
    Partitioned,
    Saver,
    SaveSpec,
    SliceInfo,
    StructureMismatchError,
    Variable,
    open_checkpoint,
)
from asyncsaver.model.dtypes import Array
from asyncsaver.model.leaves import Adapters
from asyncsaver.variables import bind

from .through import restore, restore_from

GOLDEN = Path(__file__).parents[1] / "golden" / "tensorflow"
EITHER_WAY = pytest.mark.parametrize("sequentially", [False, True])


class Doubled:
    """A saveable that holds the half of what it saves, and takes any shape."""

    name = "s"

    def __init__(self, x: float, y: float) -> None:
        self.x, self.y = np.full(2, x, "f4"), np.full(3, y, "f4")
        self.shapes: Any = "not called"

    def specs(self) -> Sequence[SaveSpec]:
        return [SaveSpec("s/x", self.x * 2), SaveSpec("s/y", self.y * 2)]

    def restore(self, values: Sequence[Array], shapes: Sequence[tuple[int, ...]] | None) -> None:
        self.shapes = shapes
        self.x, self.y = (value / 2 for value in values)


class Rows:
    """A saveable of some rows of a larger tensor."""

    def __init__(self, name: str, start: int, rows: int) -> None:
        self.name, self.start, self.array = name, start, np.zeros((rows, 2))

    def specs(self) -> Sequence[SaveSpec]:
        return [SaveSpec("table", self.array, SliceInfo((4, 2), (self.start, 0)))]

    def restore(self, values: Sequence[Array], shapes: Sequence[tuple[int, ...]] | None) -> None:
        [self.array] = values


class Steps:
    """A saveable that says nothing true of its shape."""

    name = "steps"
    value: Any = None

    def specs(self) -> Sequence[SaveSpec]:
        return [SaveSpec("step", np.zeros(5, "i8"))]

    def restore(self, values: Sequence[Array], shapes: Sequence[tuple[int, ...]] | None) -> None:
        [self.value] = values


class Refusing(Doubled):
    def restore(self, values: Sequence[Array], shapes: Sequence[tuple[int, ...]] | None) -> None:
        raise RuntimeError("not today")


def damage(saver: Saver) -> None:
    """Change one bit of the number 777."""
    [shard] = Path(saver.url.removeprefix("file://")).rglob("*.safetensors")
    data = bytearray(shard.read_bytes())
    data[data.index(np.float64(777).tobytes())] ^= 1
    shard.write_bytes(data)


def remove(saver: Saver, path: str) -> None:
    (Path(saver.url.removeprefix("file://")) / path).unlink()


@EITHER_WAY
async def test_items_005_and_006_a_round_trip_in_place(sequentially: bool, saver: Saver, adapters: Adapters) -> None:
    array, held = np.arange(6.0).reshape(2, 3), Variable("held", np.ones(2, "i8"))
    bound = bind({"w": array, "renamed": held, "p": Partitioned.joined([np.ones(1), np.zeros(2)])}, adapters)
    await saver.save(bound.state(), step=1)
    inner = held.value
    array[...] = inner[...] = 0
    await restore(saver, bound, sequentially=sequentially)
    assert np.array_equal(array, np.arange(6.0).reshape(2, 3))
    assert held.value is inner
    assert inner.tolist() == [1, 1]
    async with await saver.open() as reader:
        assert list(reader.tensors) == ["p", "renamed", "w"]
        assert (await reader.read("p")).tolist() == [1, 0, 0]


@pytest.mark.parametrize("value", [3, True, 0.1, np.float32(0.5), np.int64(-7), np.bool_(0)])
async def test_item_005_a_number_comes_back_as_what_it_was(value: Any, saver: Saver, adapters: Adapters) -> None:
    variable = Variable("step", value)
    bound = bind([variable], adapters)
    await saver.save(bound.state(), step=1)
    variable.value = type(value)(1)
    await restore(saver, bound)
    assert variable.value == value
    assert type(variable.value) is type(value)


async def test_item_005_tensors_of_pytorch_are_filled(saver: Saver, adapters: Adapters) -> None:
    torch = pytest.importorskip("torch")
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    await saver.save(bind(model.state_dict(), adapters).state(), step=1)
    weight = other.weight
    held = Variable("bias", other.bias)
    await restore(saver, bind({"weight": weight, "any": held}, adapters), select="weight")
    assert other.weight is weight
    assert torch.equal(weight, model.weight)
    assert not torch.equal(other.bias, model.bias)
    await restore(saver, bind([held], adapters))
    assert held.value is other.bias
    assert torch.equal(other.bias, model.bias)


async def test_item_005_arrays_of_jax_are_replaced(saver: Saver, adapters: Adapters) -> None:
    jax = pytest.importorskip("jax")
    first, second = jax.numpy.arange(3.0), jax.numpy.zeros(3)
    variable = Variable("w", first)
    parts = Variable("p", Partitioned.joined([first, second]))
    bound = bind([variable, parts], adapters)
    await saver.save(bound.state(), step=1)
    variable.value, parts.value = second, Partitioned.joined([second, second])
    await restore(saver, bound)
    assert isinstance(variable.value, jax.Array)
    assert variable.value.tolist() == [0, 1, 2]
    assert parts.value.slices[0].array.tolist() == [0, 1, 2]
    assert second.tolist() == [0, 0, 0]


@EITHER_WAY
async def test_item_037_and_039_a_saveable_takes_back_what_it_likes(
    sequentially: bool, saver: Saver, adapters: Adapters
) -> None:
    await saver.save(bind([Doubled(1, 2)], adapters).state(), step=1)
    async with await saver.open() as reader:
        assert (await reader.read("s/x")).tolist() == [2, 2]
    target = Doubled(0, 0)
    target.x = np.zeros((5, 5), "f4")  # its shape is its own business
    await restore(saver, bind([target], adapters), sequentially=sequentially)
    assert target.x.tolist() == [1, 1]
    assert target.y.tolist() == [2, 2, 2]
    assert target.shapes is None
    target.x = np.zeros((2, 1), "f4")
    await restore(saver, bind([target], adapters), sequentially=sequentially, reshape=True)
    assert target.shapes == [(2, 1), (3,)]


async def test_item_039_the_dtype_of_a_saveable_has_to_fit(saver: Saver, adapters: Adapters) -> None:
    await saver.save({"s/x": np.ones(2), "s/y": np.ones(3, "f4")}, step=1)
    target, other = Doubled(0, 0), np.zeros(1)
    bound = bind([target], adapters)
    with pytest.raises(
        StructureMismatchError, match=r"s/x: float64\[2\] in the checkpoint, float32\[2\] in the target"
    ):
        await restore(saver, bound)
    assert target.shapes == "not called"
    await restore(saver, bound, dtype="target")
    assert target.x.dtype == "f4"
    assert target.x.tolist() == [0.5, 0.5]
    assert other == 0


@EITHER_WAY
async def test_item_038_saveables_get_their_slices(sequentially: bool, saver: Saver, adapters: Adapters) -> None:
    table = np.arange(8.0).reshape(4, 2)
    await saver.save({"table": table}, step=1)
    first, second = Rows("a", 0, 3), Rows("b", 3, 1)
    await restore(saver, bind([first, second], adapters), sequentially=sequentially)
    assert np.array_equal(first.array, table[:3])
    assert np.array_equal(second.array, table[3:])
    await saver.save({"table": table[:3]}, step=2)
    with pytest.raises(StructureMismatchError, match=r"table: float64\[3, 2\] in the checkpoint, float64\[4, 2\]"):
        await restore(saver, bind([first, second], adapters), sequentially=sequentially)


async def test_item_039_a_saveable_that_raises_is_told_of_as_it_is(saver: Saver, adapters: Adapters) -> None:
    bound = bind([Refusing(1, 2)], adapters)
    await saver.save(bound.state(), step=1)
    with pytest.raises(RuntimeError, match="not today") as caught:
        await restore(saver, bound)
    assert caught.value.__notes__ == ["raised by the saveable 's', after its tensors were read"]


@EITHER_WAY
async def test_item_105_missing_names_are_listed_all_and_nothing_is_assigned(
    sequentially: bool, saver: Saver, adapters: Adapters
) -> None:
    await saver.save({"a": np.ones(2), "s/x": np.ones(2, "f4")}, step=1)
    a, b, s = np.zeros(2), Variable("b", 0.0), Doubled(0, 0)
    bound = bind({"a": a, "zz": np.zeros(1), "b": b, "s": s}, adapters)
    with pytest.raises(StructureMismatchError) as caught:
        await restore(saver, bound, sequentially=sequentially)
    assert sorted(caught.value.missing) == ["b", "s/y", "zz"]
    assert not a.any()
    assert b.value == 0
    assert s.shapes == "not called"


@EITHER_WAY
async def test_item_105_none_of_the_names_is_there(sequentially: bool, saver: Saver, adapters: Adapters) -> None:
    await saver.save({"other": np.ones(2)}, step=1)
    with pytest.raises(StructureMismatchError, match=r"has none of the variables[^$]*a\n  b$") as caught:
        await restore(saver, bind({"b": np.zeros(2), "a": np.zeros(2)}, adapters), sequentially=sequentially)
    assert caught.value.missing == ("a", "b")
    many = {f"v{number:02}": np.zeros(1) for number in range(30)}
    with pytest.raises(StructureMismatchError, match=r"30 missing:\n  v00\n[^$]*  v19\n  ... and 10 more$") as caught:
        await restore(saver, bind(many, adapters), sequentially=sequentially)
    assert caught.value.missing == tuple(many)


@EITHER_WAY
async def test_item_105_what_is_missing_keeps_its_value_when_asked_for(
    sequentially: bool, saver: Saver, adapters: Adapters
) -> None:
    await saver.save({"a": np.ones(2), "s/x": np.ones(2, "f4")}, step=1)
    a, b, n, s = np.zeros(2), np.full(2, 7.0), Variable("n", 5), Doubled(0, 0)
    bound = bind({"a": a, "b": b, "n": n, "s": s}, adapters)
    await restore(saver, bound, strict=False, sequentially=sequentially)
    assert a.tolist() == [1, 1]
    assert b.tolist() == [7, 7]
    assert n.value == 5
    assert s.shapes == "not called"


@EITHER_WAY
async def test_item_106_what_only_the_checkpoint_has_is_ignored(
    sequentially: bool, saver: Saver, adapters: Adapters
) -> None:
    await saver.save({"a": np.ones(2), "more": np.ones(3), "text": "x", "nested": {"b": np.ones(1)}}, step=1)
    a, b = np.zeros(2), np.zeros(1)
    await restore(saver, bind({"a": a, "nested.b": b}, adapters), sequentially=sequentially)
    assert a.tolist() == [1, 1]
    assert b.tolist() == [1]


@EITHER_WAY
async def test_item_107_a_wrong_shape_assigns_nothing(sequentially: bool, saver: Saver, adapters: Adapters) -> None:
    await saver.save({"a": np.ones(2), "b": np.ones(3), "c": np.ones(1)}, step=1)
    a, b, c = np.zeros(2), np.zeros(2), Variable("c", np.zeros(1))
    with pytest.raises(StructureMismatchError, match=r"b: float64\[3\] in the checkpoint, float64\[2\] in the target"):
        await restore(saver, bind({"a": a, "b": b, "c": c}, adapters), sequentially=sequentially)
    assert not a.any()
    assert not b.any()
    assert not c.value.any()


@EITHER_WAY
async def test_items_108_and_109_reshape(sequentially: bool, saver: Saver, adapters: Adapters) -> None:
    await saver.save({"a": np.arange(6.0), "one": np.ones(1)}, step=1)
    a, one = np.zeros((2, 3)), Variable("one", 0.0)
    bound = bind({"a": a, "one": one}, adapters)
    with pytest.raises(StructureMismatchError, match="reshape=True would reshape it") as caught:
        await restore(saver, bound, sequentially=sequentially)
    assert len(caught.value.mismatched) == 2
    await restore(saver, bound, reshape=True, sequentially=sequentially)
    assert np.array_equal(a, np.arange(6.0).reshape(2, 3))
    assert one.value == 1
    assert type(one.value) is float
    with pytest.raises(StructureMismatchError):
        await restore(saver, bind({"a": np.zeros(5)}, adapters), reshape=True, sequentially=sequentially)


async def test_item_110_a_wrong_dtype_is_cast_only_when_asked_for(saver: Saver, adapters: Adapters) -> None:
    await saver.save({"a": np.ones(2, "f4"), "n": np.int32(3)}, step=1)
    a = np.zeros(2)
    with pytest.raises(StructureMismatchError, match='dtype="target" would cast it'):
        await restore(saver, bind({"a": a}, adapters))
    assert not a.any()
    await restore(saver, bind({"a": a}, adapters), dtype="target")
    assert a.tolist() == [1, 1]


async def test_item_115_damage_assigns_nothing(local_root: Any, adapters: Adapters) -> None:
    a, b, s = np.ones(2), np.arange(1000.0), Doubled(1, 2)
    bound = bind({"a": a, "b": b, "s": s}, adapters)
    async with Saver(local_root.url) as saver:
        await saver.save(bound.state(), step=1)
        damage(saver)
        a[...] = b[...] = 0
        with pytest.raises(CheckpointCorruptError, match="'b'"):
            await restore(saver, bound)
    assert not a.any()
    assert not b.any()
    assert s.shapes == "not called"


@EITHER_WAY
async def test_item_116_a_missing_file_is_noticed_before_anything_is_assigned(
    sequentially: bool, local_root: Any, adapters: Adapters
) -> None:
    values = {f"v{number}": np.full(2 << 20, number, np.uint8) for number in range(8)}
    bound = bind(values, adapters)
    async with Saver(local_root.url, shard_bytes=4 << 20) as saver:
        await saver.save(bound.state(), step=1)
        async with await saver.open() as reader:
            last = reader.source.files[reader.source.tensors["v7"].chunks[0].file].path
        remove(saver, last)
        for value in values.values():
            value[...] = 255
        with pytest.raises(CheckpointCorruptError, match=r"is missing; in it: .*v7"):
            await restore(saver, bound, sequentially=sequentially)
    assert all((value == 255).all() for value in values.values())


async def test_item_105_a_selection_is_of_the_variables(saver: Saver, adapters: Adapters) -> None:
    await saver.save({"m/a": np.ones(1), "m/b": np.ones(1), "s/x": np.ones(2, "f4"), "s/y": np.ones(3, "f4")}, step=1)
    a, b, s = np.zeros(1), np.zeros(1), Doubled(0, 0)
    bound = bind({"m/a": a, "m/b": b, "s": s}, adapters)
    await restore(saver, bound, select=["m/a", "s/*"])
    assert (a, b) == (1, 0)
    assert s.y.tolist() == [0.5] * 3
    with pytest.raises(ValueError, match=re.escape("'s' is restored as a whole: s/x of it is selected, s/y is not")):
        await restore(saver, bound, select="s/x")
    with pytest.raises(StructureMismatchError, match="'nothing' selects none of"):
        await restore(saver, bound, select="nothing")


async def test_item_004_nothing_to_restore(saver: Saver, adapters: Adapters) -> None:
    await saver.save({"a": np.ones(1)}, step=1)
    await restore(saver, bind([], adapters, allow_empty=True), select="whatever")


async def test_item_009_an_array_that_was_frozen_meanwhile_is_noticed_before_anything_is_read(
    saver: Saver, adapters: Adapters
) -> None:
    a, b = np.zeros(2), np.zeros(2)
    await saver.save({"a": np.ones(2), "b": np.ones(2)}, step=1)
    bound = bind({"a": a, "b": b}, adapters)
    b.flags.writeable = False
    with pytest.raises(TypeError, match=r"^b: .* cannot be changed in place"):
        await restore(saver, bound)
    assert not a.any()


async def test_item_027_one_after_another_takes_less_memory(saver: Saver, adapters: Adapters) -> None:
    count, size = 12, 4 << 20
    bound = bind({f"v{number:02}": np.full(size, number, np.uint8) for number in range(count)}, adapters)
    await saver.save(bound.state(), step=1)
    peaks = []
    for sequentially in (False, True):
        for value in bound.state().values():
            value[...] = 255
        tracemalloc.start()
        await restore(saver, bound, sequentially=sequentially)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert [set(value[:: size // 7].tolist()) for value in bound.state().values()] == [{n} for n in range(count)]
    assert peaks[0] > count * size, peaks
    assert peaks[1] < count * size / 2


async def test_item_027_small_variables_go_together(saver: Saver, adapters: Adapters) -> None:
    bound = bind({"a": np.zeros(1), "b": np.zeros(10), "c": np.zeros(10), "s": Doubled(1, 1)}, adapters)
    assert bound.batches({"a": 8, "b": 80, "c": 80, "s/x": 8, "s/y": 12}, 100) == [["a", "b"], ["c", "s/x", "s/y"]]
    assert bound.batches({}, 100) == [["a", "b", "c", "s/x", "s/y"]]
    assert bound.batches({"b": 1000}, 100) == [["a"], ["b"], ["c", "s/x", "s/y"]]


@EITHER_WAY
async def test_item_119_an_object_based_checkpoint_restores_by_full_names(
    sequentially: bool, adapters: Adapters, caplog: pytest.LogCaptureFixture
) -> None:
    key = "model/table/{}/.ATTRIBUTES/VARIABLE_VALUE"
    async with await open_checkpoint(GOLDEN / "object_based/ckpt-1", format="tensorflow") as reader:
        found = reader.tensors[key.format("a")]
        ta, steps = np.zeros(found.shape, found.dtype), Steps()
        bound = bind({"ta": ta, "s": steps}, adapters)
        with caplog.at_level(logging.WARNING):
            await restore_from(reader, bound, sequentially=sequentially)
        assert np.array_equal(ta, await reader.read(key.format("a")))
        assert steps.value == await reader.read("step/.ATTRIBUTES/VARIABLE_VALUE")
        assert len(caplog.records) == 1
        with pytest.raises(StructureMismatchError, match=r"not in the checkpoint:\s+other"):
            await restore_from(reader, bind({"ta": ta, "other": np.zeros(1)}, adapters), sequentially=sequentially)
        await restore_from(reader, bind({key.format("a"): ta}, adapters), sequentially=sequentially)
        assert len(caplog.records) == 1
