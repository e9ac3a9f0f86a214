"""A saver that is bound to its variables, as TensorFlow's is, in every format; numbers are those of the list."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import (
    CheckpointNotFoundError,
    InvalidSavePathError,
    Partitioned,
    Saver,
    StructureMismatchError,
    Variable,
    get_default_saver,
    open_checkpoint,
)
from asyncsaver.blocking import Saver as BlockingSaver
from asyncsaver.tensorflow import SaverDef, import_meta

FORMATS = ("native", "tensorflow")


@pytest.fixture(params=FORMATS)
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Arguments of a saver of one of the formats."""
    return {"url": tmp_path / "run", "format": request.param, "pad_step_number": False, "prefix": "m"}


def variables() -> dict[str, Any]:
    return {"layer/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "step": Variable("global_step", 7)}


async def test_item_002_a_save_needs_a_state_or_variables(options: dict[str, Any]) -> None:
    async with Saver(**options) as saver:
        with pytest.raises(ValueError, match="var_list"):
            await saver.save(step=1)
        with pytest.raises(ValueError, match="var_list"):
            await saver.save_in_background(step=1)
        assert await saver.checkpoints() == []


@pytest.mark.parametrize("nothing", [[], {}, ()])
def test_item_003_no_variables(options: dict[str, Any], nothing: Any) -> None:
    with pytest.raises(ValueError, match="No variables to save"):
        Saver(**options, var_list=nothing)


@pytest.mark.parametrize("nothing", [None, [], {}])
async def test_item_004_none_where_that_is_allowed(options: dict[str, Any], nothing: Any, tmp_path: Path) -> None:
    async with Saver(**options, var_list=nothing, allow_empty=True) as saver:
        assert await saver.save(step=1) is None
        assert await saver.restore() is None
        assert await saver.restore(save_path="nowhere/m-1") is None
        assert await saver.checkpoints() == []
        assert saver.last_checkpoints == []
        assert saver.to_proto() is None
        with pytest.raises(ValueError, match="no variables"):
            await saver.save_in_background(step=1)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - a coroutine: pathlib is not for those


async def test_items_005_and_006_a_list_by_their_names_or_a_dict_by_others(options: dict[str, Any]) -> None:
    weights = Variable("weights", np.ones(3, np.float32))
    async with Saver(**options, var_list=[weights]) as saver:
        await saver.save(step=1)
        async with await saver.open() as reader:
            assert [*reader.tensors] == ["weights"]
    async with Saver(**options, var_list={"renamed": weights}) as saver:
        await saver.save(step=2)
        weights.value = np.zeros(3, np.float32)
        async with await saver.open() as reader:
            assert [*reader.tensors] == ["renamed"]
        await saver.restore()
        np.testing.assert_array_equal(weights.value, np.ones(3, np.float32), strict=True)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ([Variable("a", 1), Variable("a", 2)], ValueError),
        ({1: np.ones(2)}, TypeError),
        ({"a": "text"}, TypeError),
        ([np.ones(2)], TypeError),
        (["a"], TypeError),
        (np.ones(2), TypeError),
        ("ab", TypeError),
    ],
)
def test_items_007_to_010_wrong_lists(options: dict[str, Any], wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Saver(**options, var_list=wrong)


def test_item_008_one_object_under_two_names(options: dict[str, Any]) -> None:
    shared = np.ones(2)
    with pytest.raises(ValueError, match="two names"):
        Saver(**options, var_list={"a": shared, "b": shared})


async def test_items_011_and_012_which_they_are_is_settled_when_the_saver_is_made(options: dict[str, Any]) -> None:
    mine = variables()
    async with Saver(**options, var_list=mine) as saver:
        mine["later"] = np.ones(1)
        mine["layer/kernel"][0, 0] = 100
        await saver.save(step=1)
        async with await saver.open() as reader:
            assert {*reader.tensors} == {"layer/kernel", "step"}
            assert (await reader.read("layer/kernel"))[0, 0] == 100


async def test_a_bound_saver_saves_and_restores_in_place(options: dict[str, Any]) -> None:
    mine = variables()
    kernel = mine["layer/kernel"]
    async with Saver(**options, var_list=mine) as saver:
        first = await saver.save(step=1)
        kernel[...] = -1
        mine["step"].value = 8
        pending = await saver.save_in_background(step=2)
        kernel[...] = -2
        second = await pending
        assert await saver.restore(step=1) is None
        np.testing.assert_array_equal(kernel, np.arange(6, dtype=np.float32).reshape(2, 3), strict=True)
        assert mine["step"].value == 7
        for options_of_restore in ({}, {"checkpoint": second}, {"save_path": second.url}, {"save_path": second}):
            kernel[...] = 0
            assert await saver.restore(**options_of_restore) is None
            np.testing.assert_array_equal(kernel, np.full((2, 3), -1, np.float32), strict=True)
            assert mine["step"].value == 8
        assert first.url.endswith("/m-1")
        with pytest.raises(TypeError, match="takes no state"):
            await saver.save({"a": np.ones(1)}, step=3)


async def test_item_027_one_after_another(options: dict[str, Any]) -> None:
    mine = variables()
    async with Saver(**options, var_list=mine, restore_sequentially=True) as saver:
        await saver.save(step=1)
        mine["layer/kernel"][...] = 0
        mine["step"].value = 0
        await saver.restore()
        np.testing.assert_array_equal(mine["layer/kernel"], variables()["layer/kernel"], strict=True)
        assert mine["step"].value == 7


PARTITIONS = {
    "whole": [(0, 0)],
    "rows": [(0, 0), (1, 0), (3, 0)],
    "columns": [(0, 0), (0, 2)],
    "blocks": [(0, 0), (0, 2), (2, 0), (2, 2)],
}


def partitioned(how: str, values: Any) -> Partitioned:
    """An array of 4 x 5 in slices that begin at these offsets."""
    offsets = PARTITIONS[how]
    ends = [{*(offset[axis] for offset in offsets), length} for axis, length in enumerate((4, 5))]
    slices = []
    for row, column in offsets:
        stop = [min(end for end in ends[axis] if end > start) for axis, start in enumerate((row, column))]
        slices.append(((row, column), values[row : stop[0], column : stop[1]].copy()))
    return Partitioned((4, 5), slices)


@pytest.mark.parametrize("saved", PARTITIONS)
@pytest.mark.parametrize("restored", PARTITIONS)
async def test_items_041_and_042_partitions_restore_into_any_other(
    options: dict[str, Any], saved: str, restored: str
) -> None:
    values = np.arange(20, dtype=np.float64).reshape(4, 5)
    async with Saver(**options, var_list={"w": partitioned(saved, values)}) as saver:
        await saver.save(step=1)
    into = partitioned(restored, np.zeros((4, 5)))
    async with Saver(**options, var_list={"w": into}) as saver:
        await saver.restore()
    for part in into.slices:
        box = tuple(slice(start, start + length) for start, length in zip(part.offset, part.shape, strict=True))
        np.testing.assert_array_equal(part.array, values[box], strict=True)


async def test_items_102_to_104_paths_that_are_none(options: dict[str, Any]) -> None:
    async with Saver(**options, var_list=variables()) as saver:
        await saver.save(step=1)
        with pytest.raises(ValueError, match="Can't load save_path when it is None"):
            await saver.restore(save_path=None)
        for nowhere in (f"{saver.url}/m-2", saver.url):
            with pytest.raises(InvalidSavePathError, match="The passed save_path is not a valid checkpoint"):
                await saver.restore(save_path=nowhere)
            with pytest.raises(CheckpointNotFoundError):
                await saver.restore(save_path=nowhere)
        with pytest.raises(ValueError, match="one of them only"):
            await saver.restore(save_path=f"{saver.url}/m-1", step=1)


async def test_items_105_to_109_what_does_not_fit_changes_nothing(options: dict[str, Any]) -> None:
    async with Saver(**options, var_list=variables()) as saver:
        await saver.save(step=1)
    mine = {"layer/kernel": np.zeros(6, np.float32), "step": Variable("s", 1), "b": np.zeros(1), "c": np.zeros(1)}
    async with Saver(**options, var_list=mine) as saver:
        with pytest.raises(StructureMismatchError) as raised:
            await saver.restore()
        assert {"b", "c"} <= {*raised.value.missing}
        assert not mine["layer/kernel"].any()
        assert mine["step"].value == 1
    fitting = {name: mine[name] for name in ("layer/kernel", "step")}
    async with Saver(**options, var_list=fitting) as saver:
        with pytest.raises(StructureMismatchError, match="layer/kernel"):
            await saver.restore()
        assert not mine["layer/kernel"].any()
        assert mine["step"].value == 1
        await saver.restore(reshape=True)
        np.testing.assert_array_equal(mine["layer/kernel"], np.arange(6, dtype=np.float32), strict=True)


async def test_items_019_and_020_a_definition_overrides_the_arguments(options: dict[str, Any]) -> None:
    definition = SaverDef("save/Const:0", "save/control_dependency:0", "save/restore_all", 2, False, 1.5, 2)
    async with Saver(**options, max_to_keep=7, saver_def=definition) as saver:
        for step in range(4):
            await saver.save({"a": np.ones(1)}, step=step)
        assert [found.step for found in await saver.checkpoints()] == [2, 3]
        data = saver.to_proto()
        assert data is not None
    copy = Saver.from_proto(data, **options)
    assert copy.to_proto() == data
    with pytest.raises(ValueError, match="saver_def"):
        Saver(**options, saver_def=b"\xff")
    with pytest.raises(ValueError, match="save_tensor_name"):
        Saver(**options, saver_def=SaverDef())


def test_items_128_to_131_scopes(options: dict[str, Any]) -> None:
    saver = Saver(**options, name="tower/save", max_to_keep=3, keep_checkpoint_every_n_hours=2)
    inner = saver.to_proto(export_scope="tower")
    assert inner is not None
    assert saver.to_proto(export_scope="other") is None
    assert Saver.from_proto(inner, import_scope="tower", **options).to_proto() == saver.to_proto()


async def test_items_132_and_133_sidecars(options: dict[str, Any]) -> None:
    async with Saver(**options, max_to_keep=3) as saver:
        await saver.save({"a": np.ones(1)}, step=1)
        await saver.export_meta("m-1.meta", b"program", collections={"losses": ["loss:0"]})
    where = Path(options["url"]) / "m-1.meta"
    found = await import_meta(where)
    assert (found.program, found.collections) == (b"program", {"losses": (b"loss:0",)})
    again = await Saver.import_meta(where, **{name: value for name, value in options.items() if name != "url"})
    assert again is not None
    async with again:
        assert again.url == saver.url
        np.testing.assert_array_equal((await again.restore())["a"], np.ones(1), strict=True)
        assert again.to_proto() == saver.to_proto()
    async with Saver(**options, allow_empty=True) as empty:
        await empty.export_meta("empty.meta", b"program")
    assert await Saver.import_meta(Path(options["url"]) / "empty.meta") is None
    with pytest.raises(CheckpointNotFoundError, match="nowhere"):
        await Saver.import_meta(Path(options["url"]) / "nowhere.meta")


async def test_item_136_the_default_saver(options: dict[str, Any]) -> None:
    def make() -> Saver:
        return Saver(**options)

    async def made_here() -> Saver:
        saver = get_default_saver(make)
        assert get_default_saver(make) is saver
        await saver.close()
        return saver

    one, two = await asyncio.gather(asyncio.create_task(made_here()), asyncio.create_task(made_here()))
    assert one is not two
    with Saver(**options).as_default() as outer:
        assert get_default_saver(make) is outer
        with Saver(**options, name="second").as_default(), pytest.raises(RuntimeError, match="second"):
            get_default_saver(make)
        assert get_default_saver(make) is outer


def test_variables_without_a_loop(options: dict[str, Any]) -> None:
    mine = variables()
    with BlockingSaver(options.pop("url"), **options, var_list=mine) as saver:
        saved = saver.save(step=1)
        mine["layer/kernel"][...] = 0
        saver.restore(save_path=saved.url)
        np.testing.assert_array_equal(mine["layer/kernel"], variables()["layer/kernel"], strict=True)
        assert saver.to_proto() is not None


async def test_what_a_bound_saver_has_saved_opens_as_any_other(options: dict[str, Any]) -> None:
    async with Saver(**options, var_list=variables()) as saver:
        saved = await saver.save(step=1)
    async with await open_checkpoint(saved.url) as reader:
        np.testing.assert_array_equal(await reader.read("layer/kernel"), variables()["layer/kernel"], strict=True)
