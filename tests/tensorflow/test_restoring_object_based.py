"""Items 119 to 122 of TensorFlow's behaviours: what `tf.train.Checkpoint` wrote, restored by the names of variables."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from asyncsaver import CheckpointCorruptError, CheckpointNotFoundError, CheckpointReader, Saver, StructureMismatchError
from asyncsaver import open_checkpoint as open_it
from asyncsaver.errors import ManifestError
from asyncsaver.formats.tensorflow.bundle import Index, data_path, decode_index, encode_index, index_path
from asyncsaver.formats.tensorflow.strings import encode_strings
from asyncsaver.model.foreign import GRAPH_KEY
from asyncsaver.store.registry import open_store
from asyncsaver.tensorflow import checkpoint_keys, object_graph_key_mapping

from .golden import GOLDEN, PROBES
from .restoring import put_files, restore

PROBE = PROBES["restore.object_based_fallback"]
KEYS = PROBE["key_mapping"]["ok"]
VALUES = PROBE["values"]


@pytest.fixture
async def path(memory_root: Any) -> str:
    """Two variables, called va and vb, which are a and b of an object."""
    await put_files(memory_root.url, "object")
    return f"{memory_root.url}/object"


@pytest.fixture
async def trained(memory_root: Any) -> AsyncIterator[CheckpointReader]:
    """A model with an optimizer, three of whose variables are called w."""
    async with open_store(memory_root.url) as store:
        for file in (GOLDEN / "object_based").glob("ckpt-1.*"):
            await store.put(file.name, file.read_bytes())
    async with await open_it(f"{memory_root.url}/ckpt-1") as reader:
        yield reader


def target(**shapes: int) -> dict[str, Any]:
    return {name: np.full(length, 77, np.float32) for name, length in shapes.items()}


def untouched(state: dict[str, Any]) -> bool:
    return all((array == 77).all() for array in state.values())


def lists(state: dict[str, Any]) -> dict[str, Any]:
    return {name: array.tolist() for name, array in state.items()}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# --- 119: by full name -------------------------------------------------------------------------------------------


async def test_item_119_restored_by_full_names_with_a_warning(path: str, caplog: pytest.LogCaptureFixture) -> None:
    goal = target(va=2, vb=1)
    restored = await restore(path, goal)
    assert lists(goal) == VALUES
    assert restored["va"] is goal["va"]
    [warning] = warnings(caplog)
    assert warning.startswith(f"{path}: restoring an object-based checkpoint")
    assert "somewhat fragile" in warning


async def test_item_119_its_own_keys_need_no_warning(path: str, caplog: pytest.LogCaptureFixture) -> None:
    names = [KEYS["va"], KEYS["vb"]]
    goal = dict(zip(names, target(va=2, vb=1).values(), strict=True))
    await restore(path, goal, select=names)
    assert [*lists(goal).values()] == [*VALUES.values()]
    whole = await restore(path)
    assert {*whole} == {GRAPH_KEY, *names}
    with pytest.raises(StructureMismatchError) as caught:  # as of any other checkpoint
        await restore(path, goal)
    assert caught.value.unexpected == (GRAPH_KEY,)
    assert warnings(caplog) == []


async def test_item_119_some_of_the_variables(path: str) -> None:
    """What only the checkpoint has does not matter, with `strict` as without."""
    for strict in (True, False):
        goal = target(va=2)
        await restore(path, goal, strict=strict)
        assert goal["va"].tolist() == PROBE["subset_ok"]
    assert lists(await restore(path, select="vb")) == {"vb": VALUES["vb"]}
    assert lists(await restore(path, select=["va", "vb"])) == VALUES
    goal = target(va=2, vb=1)
    await restore(path, goal, select="vb")
    assert lists(goal) == {"va": [77, 77], "vb": VALUES["vb"]}


async def test_item_119_selections_that_select_nothing(path: str) -> None:
    for select in ("vc", ["va", "vc"], lambda name: name == "vc"):
        for goal in (None, target(va=2, vb=1)):
            with pytest.raises(StructureMismatchError, match=r"selects none|chose none"):
                await restore(path, goal, select=select)


async def test_item_119_shapes_and_dtypes_are_checked_as_ever(path: str) -> None:
    goal = {"va": np.full((2, 1), 77, np.float32), "vb": np.full(1, 77)}
    with pytest.raises(StructureMismatchError, match="2 mismatched") as caught:
        await restore(path, goal)
    assert (caught.value.missing, caught.value.unexpected, len(caught.value.mismatched)) == ((), (), 2)
    assert untouched(goal)
    await restore(path, goal, reshape=True, dtype="target", select="va")
    assert goal["va"].tolist() == [[1], [2]]


async def test_item_119_through_a_saver_with_figures_and_progress(path: str) -> None:
    told: list[Any] = []
    url = path.rpartition("/")[0]
    async with Saver(url, on_stats=lambda *stats: told.append(stats), progress=told.append) as saver:
        goal = target(va=2, vb=1)
        await saver.restore(goal, save_path=path)
        assert not saver._root.in_use
    assert lists(goal) == VALUES
    assert told[-2].phase == "restored"
    assert told[-1][0].name == "object"


async def test_item_119_without_holding_the_state(trained: CheckpointReader) -> None:
    """Straight into the target, where it is larger than the memory budget."""
    trained._root.budget.resize(1)
    info = trained.tensors["model/table/a/.ATTRIBUTES/VARIABLE_VALUE"]
    goal = {"ta": np.zeros(info.shape, info.dtype)}
    await trained.restore(goal)
    np.testing.assert_array_equal(goal["ta"], await trained.read("model/table/a/.ATTRIBUTES/VARIABLE_VALUE"))


async def test_item_119_slots_and_ambiguous_names(trained: CheckpointReader, caplog: pytest.LogCaptureFixture) -> None:
    """Of several variables with one name TensorFlow takes the last, and says nothing; here a warning does."""
    last, slot = "model/layers/1/w/.ATTRIBUTES/VARIABLE_VALUE", "model/inner/w/.OPTIMIZER_SLOT/optimizer/m"
    slot += "/.ATTRIBUTES/VARIABLE_VALUE"
    names = {"w": last, "w/Adam": slot}
    goal = {name: np.zeros(trained.tensors[key].shape, trained.tensors[key].dtype) for name, key in names.items()}
    await trained.restore(goal)
    for name, key in names.items():
        np.testing.assert_array_equal(goal[name], await trained.read(key))
    assert f"3 variables were called 'w', taking {last}" in "\n".join(warnings(caplog))
    assert len(warnings(caplog)) == 2
    caplog.clear()
    await trained.restore(select="ta")
    assert len(warnings(caplog)) == 1


# --- 120: names that differ --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["other", "zz"])
async def test_item_120_missing_and_extra_names_and_how_many_did_match(path: str, lost: str) -> None:
    goal = target(va=2, **{lost: 1})
    with pytest.raises(StructureMismatchError) as caught:
        await restore(path, goal)
    assert (caught.value.missing, caught.value.unexpected) == ((lost,), ("vb",))
    theirs = PROBE["names_differ"]["message"].replace("other", lost).strip()
    assert str(caught.value).startswith(theirs[: theirs.index("(see names above)")])
    assert untouched(goal)


async def test_item_120_no_name_matches(path: str) -> None:
    goal = target(x=2)
    with pytest.raises(StructureMismatchError, match=r"\(0 variable name\(s\) did match\)") as caught:
        await restore(path, goal)
    assert (caught.value.missing, caught.value.unexpected) == (("x",), ("va", "vb"))
    await restore(path, goal, strict=False)
    assert untouched(goal)


async def test_item_120_keys_of_which_one_is_wrong(path: str) -> None:
    """Whoever uses keys hears of keys."""
    goal = {KEYS["va"]: np.full(2, 77, np.float32), "x": np.full(2, 77)}
    with pytest.raises(StructureMismatchError, match="missing, only in the target:\n  x") as caught:
        await restore(path, goal)
    assert caught.value.unexpected == (GRAPH_KEY, KEYS["vb"])
    assert untouched(goal)


async def test_item_120_not_strict(path: str) -> None:
    goal = target(va=2, other=1)
    await restore(path, goal, strict=False)
    assert lists(goal) == {"va": VALUES["va"], "other": [77]}


async def test_item_120_of_many_names_some_are_shown(path: str) -> None:
    goal = target(va=2, **{f"x{number:03d}": 1 for number in range(50)})
    with pytest.raises(StructureMismatchError, match="x019 and 30 more\n") as caught:
        await restore(path, goal)
    assert len(caught.value.missing) == 50


async def test_item_120_a_checkpoint_of_names_has_no_other_names(memory_root: Any) -> None:
    await put_files(memory_root.url, "v2")
    with pytest.raises(StructureMismatchError, match="the target does not fit"):
        await restore(f"{memory_root.url}/v2", target(va=2))


# --- 121: the mapping --------------------------------------------------------------------------------------------


async def test_item_121_the_mapping(path: str, tmp_path: Path) -> None:
    assert await object_graph_key_mapping(path) == KEYS
    await put_files(str(tmp_path), "object")
    assert await object_graph_key_mapping(tmp_path / "object") == KEYS


async def test_item_121_of_a_model_as_tensorflow_has_it(trained: CheckpointReader) -> None:
    mapping = await object_graph_key_mapping(trained.checkpoint.url)
    ends = {"step", "save_counter", "beta1_power", "beta2_power", "w", "b", "ta", "tb"}
    assert mapping.keys() == ends | {"w/Adam", "w/Adam_1", "b/Adam", "b/Adam_1"}
    assert mapping["w"] == "model/layers/1/w/.ATTRIBUTES/VARIABLE_VALUE"
    assert mapping["tb"] == "model/table/b.Sslash/.ATTRIBUTES/VARIABLE_VALUE"
    assert mapping["b/Adam_1"] == "model/inner/b/.OPTIMIZER_SLOT/optimizer/v/.ATTRIBUTES/VARIABLE_VALUE"


async def test_item_121_not_object_based(memory_root: Any) -> None:
    for name in ("v1", "v2"):
        await put_files(memory_root.url, name)
        with pytest.raises(StructureMismatchError) as caught:
            await object_graph_key_mapping(f"{memory_root.url}/{name}")
        theirs = PROBE["saver_from_not_object_based"]["message"].replace("$DIR/nb", f"{memory_root.url}/{name}")
        assert str(caught.value).startswith(theirs.rstrip("."))
        assert caught.value.missing == (GRAPH_KEY,)
    with pytest.raises(CheckpointNotFoundError, match="nope is not a valid checkpoint"):
        await object_graph_key_mapping(f"{memory_root.url}/nope")


async def test_item_121_a_graph_that_is_damaged(memory_root: Any, path: str) -> None:
    async with open_store(memory_root.url) as store:
        name = data_path("object", 0, 1)
        data = bytearray((await store.get(name)).data)
        data[-40] ^= 1
        await store.put(name, data)
    with pytest.raises(CheckpointCorruptError, match=GRAPH_KEY) as caught:
        await object_graph_key_mapping(path)
    assert caught.value.tensors == (GRAPH_KEY,)
    goal = target(va=2, vb=1)
    with pytest.raises(CheckpointCorruptError, match=GRAPH_KEY):
        await restore(path, goal)
    assert untouched(goal)
    assert lists(await restore(path, select=KEYS["va"])) == {KEYS["va"]: VALUES["va"]}


@pytest.mark.parametrize("name", ["a", "c", "s"])
async def test_item_121_a_graph_that_is_none(memory_root: Any, name: str) -> None:
    """A tensor of numbers is called what the graph is called."""
    await put_files(memory_root.url, "v2")
    async with open_store(memory_root.url) as store:
        await put_again(store, "v2", "none", lambda one: GRAPH_KEY if one == name else one)
    with pytest.raises(ManifestError, match=f"{memory_root.url}/none: {GRAPH_KEY} is not a string"):
        await restore(f"{memory_root.url}/none", target(x=2))
    with pytest.raises(ManifestError, match=f"{memory_root.url}/none: {GRAPH_KEY} is not a string"):
        await object_graph_key_mapping(f"{memory_root.url}/none")


async def test_item_121_tensors_that_the_graph_has_and_the_checkpoint_has_not(memory_root: Any, path: str) -> None:
    async with open_store(memory_root.url) as store:
        await put_again(store, "object", "part", lambda one: "elsewhere" if one == KEYS["vb"] else one)
    assert await object_graph_key_mapping(f"{memory_root.url}/part") == await object_graph_key_mapping(path)
    goal = target(va=2, vb=1)
    with pytest.raises(StructureMismatchError) as caught:
        await restore(f"{memory_root.url}/part", goal)
    assert (caught.value.missing, caught.value.unexpected) == (("vb",), ())
    assert untouched(goal)
    await restore(f"{memory_root.url}/part", {"va": goal["va"]})
    assert goal["va"].tolist() == VALUES["va"]


# --- 122: checking names -----------------------------------------------------------------------------------------


def test_item_122_keys_for_names() -> None:
    assert checkpoint_keys(["vb", "va", "vb"], KEYS) == {"vb": KEYS["vb"], "va": KEYS["va"]}
    assert checkpoint_keys([], KEYS) == {}
    with pytest.raises(
        StructureMismatchError, match=r"not in the checkpoint: x, z\n\n.*now: vb\n\n\(1 variable"
    ) as caught:
        checkpoint_keys(iter(["z", "va", "x"]), KEYS)
    assert (caught.value.missing, caught.value.unexpected) == (("x", "z"), ("vb",))


async def test_item_122_a_saver_of_variables_validates_all_names(path: str, caplog: pytest.LogCaptureFixture) -> None:
    url = path.rpartition("/")[0]
    goal = target(va=2, vb=1)
    async with Saver(url, var_list=goal) as saver:
        for _ in range(2):  # the second time as the first
            await saver.restore(save_path=path)
            assert lists(goal) == VALUES
            assert len(warnings(caplog)) == 1
            caplog.clear()
    goal = target(va=2, other=1)
    async with Saver(url, var_list=goal) as saver:
        with pytest.raises(StructureMismatchError, match="Existing variables not in the checkpoint: other\n") as caught:
            await saver.restore(save_path=path)
        assert (caught.value.missing, caught.value.unexpected) == (("other",), ("vb",))
        assert untouched(goal)
    mapping = checkpoint_keys(["va"], await object_graph_key_mapping(path))
    array = np.zeros(2, np.float32)
    async with Saver(url, var_list={mapping["va"]: array}) as saver:
        await saver.restore(save_path=path)
    assert array.tolist() == VALUES["va"]
    assert warnings(caplog) == []


async def test_item_122_a_source_for_names_validates_all_of_them(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with await open_it(path) as reader:
        assert await reader.source_for_names([KEYS["va"], GRAPH_KEY]) is reader.source
        assert await reader.source_for_names([]) is reader.source
        assert warnings(caplog) == []
        source = await reader.source_for_names(["va"])
        assert len(warnings(caplog)) == 1
        async with CheckpointReader(reader._root, source) as named:
            assert [*named.tensors] == ["va", "vb"]
            assert (await named.read("va", np.s_[1:])).tolist() == [2]
            assert (await named.verify()).tensors == 2
        with pytest.raises(StructureMismatchError) as caught:
            await reader.source_for_names(["va", "other"])
        assert (caught.value.missing, caught.value.unexpected) == (("other",), ("vb",))
        assert await reader.source_for_names([KEYS["va"], "other"]) is reader.source  # to be told of keys
        with pytest.raises(StructureMismatchError, match=r"\(0 variable name"):
            await reader.source_for_names(["other"])


async def test_item_122_of_names_alone_there_is_nothing_to_map(memory_root: Any) -> None:
    await put_files(memory_root.url, "v2")
    async with await open_it(f"{memory_root.url}/v2") as reader:
        assert await reader.source_for_names(["nothing"]) is reader.source


async def test_item_122_each_checkpoint_is_read_by_its_own_keys(memory_root: Any, path: str) -> None:
    """TensorFlow's saver keeps the keys of the first one that it restored, and only checks the names of the next."""
    old, new = KEYS["va"], "c" + KEYS["va"][1:]  # the same variable, now of another attribute
    async with open_store(memory_root.url) as store, await open_it(path) as reader:
        graph = (await reader.read(GRAPH_KEY)).item().replace(old.encode(), new.encode())
        await put_again(store, "object", "moved", lambda one: new if one == old else one, graph)
    assert await object_graph_key_mapping(f"{memory_root.url}/moved") == {**KEYS, "va": new}
    goal = target(va=2, vb=1)
    for name in ("object", "moved", "object"):
        for array in goal.values():
            array[...] = 77
        await restore(f"{memory_root.url}/{name}", goal)
        assert lists(goal) == VALUES


async def put_again(store: Any, old: str, new: str, rename: Callable[[str], str], graph: bytes | None = None) -> None:
    """Write a checkpoint once more, with other names for its tensors, or another object graph."""
    index = decode_index((await store.get(index_path(old))).data, old)
    data = bytes((await store.get(data_path(old, 0, 1))).data)
    entries = {rename(name): entry for name, entry in index.entries.items()}
    if graph is not None:
        content, checksum = encode_strings([graph])
        entries[GRAPH_KEY] = replace(entries[GRAPH_KEY], offset=len(data), size=len(content), crc32c=checksum)
        data += content
    await store.put(index_path(new), encode_index(Index(1, dict(sorted(entries.items())), {})))
    await store.put(data_path(new, 0, 1), data)
