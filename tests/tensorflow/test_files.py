"""The files of a checkpoint: items 70 and 98 to 101, on disk against TensorFlow's answers and on every store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from asyncsaver.errors import StoreError
from asyncsaver.store import Store
from asyncsaver.store.registry import open_store
from asyncsaver.tensorflow import (
    checkpoint_exists,
    files,
    get_checkpoint_mtimes,
    map_checkpoint_mtimes,
    meta_graph_filename,
    remove_checkpoint,
)

from .golden import PROBES, files_of, names_in, write_files

PROBE = PROBES["mgmt.exists_mtimes_remove"]
# What stood in the folder of that probe: everything it says remained, and what it removed.
STOOD = sorted({*PROBE["after_remove_a"], "a.index", "a.data-00000-of-00002", "a.data-00001-of-00002", "a.meta"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_files(str(tmp_path / name) for name in STOOD)
    return tmp_path


@pytest.mark.parametrize("name", [name for name in PROBE["exists"] if name])
async def test_item_098_what_exists(folder: Path, name: str) -> None:
    assert await checkpoint_exists(folder / name) is PROBE["exists"][name]


async def test_item_098_a_folder_is_no_checkpoint(folder: Path) -> None:
    """To TensorFlow it is one, since its pattern matches the folder."""
    assert PROBE["exists"][""]
    for name in ("", ".", ".."):
        assert not await checkpoint_exists(f"{folder}/{name}")
    with pytest.raises(ValueError, match="is empty"):
        await checkpoint_exists("")
    with pytest.raises(ValueError, match="it is a bucket"):
        await checkpoint_exists("memory://bucket")


async def test_item_098_a_sharded_v1_checkpoint_is_there_when_all_its_files_are(folder: Path) -> None:
    """To TensorFlow one of them is enough."""
    (folder / "s-00001-of-00002").unlink()
    assert not await checkpoint_exists(folder / "s-?????-of-00002")
    assert not await checkpoint_exists(folder / "s-?????-of-00000")


async def test_item_099_times_as_a_list_and_by_path(folder: Path) -> None:
    for name, written in (("a.index", 5.0), ("b", 6.0), ("s-00000-of-00002", 100.0)):
        os.utime(folder / name, (written, written))
    paths = [str(folder / name) for name in ("a", "missing", "b", "s-?????-of-00002")]
    assert await get_checkpoint_mtimes(paths) == PROBE["mtimes"]
    assert await map_checkpoint_mtimes(map(Path, paths)) == {paths[0]: 5.0, paths[2]: 6.0, paths[3]: 100.0}
    assert await get_checkpoint_mtimes([]) == []


async def test_item_100_removing_in_turn(folder: Path) -> None:
    await remove_checkpoint(folder / "a")
    assert names_in(folder) == PROBE["after_remove_a"]
    await remove_checkpoint(folder / "b")
    assert names_in(folder) == PROBE["after_remove_b_as_v2"]
    await remove_checkpoint(folder / "b", "v1")
    await remove_checkpoint(folder / "s-?????-of-00002", "v1")
    assert names_in(folder) == PROBE["after_v1"]
    await remove_checkpoint(folder / "a", meta_graph_suffix="mg")
    assert names_in(folder) == PROBE["suffix"]
    await remove_checkpoint(folder / "missing")
    assert names_in(folder) == PROBE["suffix"]


async def test_item_100_the_index_goes_first(folder: Path) -> None:
    """What is interrupted must not leave an index whose data are gone."""
    (folder / "a.index").unlink()
    (folder / "a.index").mkdir()
    write_files([str(folder / "a.index" / "file")])
    before = names_in(folder)
    with pytest.raises(StoreError, match=r"a\.index"):
        await remove_checkpoint(folder / "a")
    assert names_in(folder) == before


@pytest.mark.parametrize("version", ["v3", "V2", 2])
async def test_item_100_only_two_formats_are_known(folder: Path, version: Any) -> None:
    with pytest.raises(ValueError, match="must be 'v1' or 'v2'"):
        await remove_checkpoint(folder / "a", version)
    assert names_in(folder) == STOOD


@pytest.mark.parametrize("suffix", ["", "a/b", "/"])
async def test_item_100_a_suffix_leads_nowhere_else(folder: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match="meta_graph_suffix"):
        await remove_checkpoint(folder / "a", meta_graph_suffix=suffix)
    assert names_in(folder) == STOOD


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("name", ["m*", "m?", "m[1]", "m*-1", "run?-0", "*", "m[1]-?????-of-00001"])
async def test_item_070_signs_of_patterns_are_literal(tmp_path: Path, name: str, version: files.FormatVersion) -> None:
    """TensorFlow's rotation takes them for patterns: a saver of ``m*`` deletes the checkpoints of ``mother``."""
    assert PROBES["keep.rotation_star_step"] == ["checkpoint"], "all are gone"
    mine = {Path(file).name for file in files_of(str(tmp_path / name), version=version)}
    others = {
        Path(file).name
        for other in ("mother", "m1", "m", "m-1", "mx-1", "run1-0", "m1-00000-of-00001")
        for kind in ("v1", "v2")
        for file in files_of(str(tmp_path / other), version=kind, shards=2)
    }
    write_files(str(tmp_path / file) for file in mine | others)
    assert await checkpoint_exists(tmp_path / name)
    await remove_checkpoint(tmp_path / name, version)
    assert set(names_in(tmp_path)) == others - mine
    assert not await checkpoint_exists(tmp_path / name)


@pytest.mark.parametrize(
    ("checkpoint", "sidecar"),
    [
        ("m", "m.meta"),
        ("m-12", "m-12.meta"),
        ("m-12-?????-of-00005", "m-12.meta"),
        ("m-12-00001-of-00002", "m-12.meta"),
        ("m-1-of-2", "m.meta"),
        ("run-1-of-2/m", "run-1-of-2/m.meta"),
        ("m-12-of-", "m-12-of-.meta"),
        ("m-x-of-2", "m-x-of-2.meta"),
        ("", ".meta"),
    ],
)
def test_item_101_where_the_sidecar_is(checkpoint: str, sidecar: str) -> None:
    assert meta_graph_filename(checkpoint) == sidecar
    assert meta_graph_filename(checkpoint, "mg") == sidecar.removesuffix("meta") + "mg"


async def put_all(store: Store, paths: list[str]) -> None:
    for path in paths:
        await store.put(path, b"content")


async def names_of(store: Store) -> list[str]:
    return [info.path for info in (await store.list()).objects]


async def test_items_098_to_100_on_every_store(any_root: Any) -> None:
    async with open_store(any_root.url, storage_options=any_root.storage_options) as store:
        m = files_of("m-1", version="v2", shards=2)
        v1 = files_of("w-1-?????-of-00002", version="v1")
        others = ["m-1.data-00000-of-00002.tmp", "m-10.index", "x/m-1.index"]
        await put_all(store, [*m, *v1, *others])
        options: Any = {"storage_options": any_root.storage_options}
        paths = [f"{any_root.url}/{name}" for name in ("m-1", "m-2", "w-1-?????-of-00002", "x/m-1")]
        assert [await checkpoint_exists(path, **options) for path in paths] == [True, False, True, True]
        times = await map_checkpoint_mtimes(paths, **options)
        assert list(times) == [paths[0], *paths[2:]]
        written = (await store.head("m-1.index")).modified
        assert written is not None
        assert times[paths[0]] == written.timestamp()
        await remove_checkpoint(paths[0], **options)
        await remove_checkpoint(paths[2], "v1", **options)
        assert await names_of(store) == others
