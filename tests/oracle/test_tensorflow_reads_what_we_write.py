"""Checkpoints that `convert` writes, read by TensorFlow bit for bit, and written once more by TensorFlow itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from asyncsaver import Saver, convert

from . import ours, specimens, theirs
from .theirs import Array, Piece

MANY = 2**40  # bytes a file: one file


async def native(folder: Path, state: Any) -> str:
    async with Saver(folder) as saver:
        return (await saver.save(state, step=3)).url


def shards_of(prefix: Path, names: Mapping[str, Piece]) -> list[list[tuple[str, Piece]]]:
    """What stands in each data file, in the order in which it does."""
    index = ours.index_of(prefix)
    shards: list[list[tuple[str, Piece]]] = [[] for _ in range(index.shards)]
    # Of two that begin at the same place the first one is empty.
    for name in sorted(names, key=lambda name: (index.entries[name].offset, index.entries[name].size)):
        shards[index.entries[name].shard].append((name, names[name]))
    return shards


@pytest.mark.parametrize("shard_bytes", [MANY, 1000])
async def test_every_dtype_and_shape(shard_bytes: int, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    theirs.save_v2(tmp_path / "a" / "m-1", list(specimens.everything().items()))
    await convert(tmp_path / "a" / "m-1", tmp_path / "m-1", format="tensorflow", shard_bytes=shard_bytes)
    assert (len(ours.names_in(tmp_path, "*.data-*")) > 1) is (shard_bytes == 1000)
    ours.assert_same(theirs.load(tmp_path / "m-1"), specimens.everything())


@pytest.mark.parametrize("shard_bytes", [MANY, 1000])
async def test_native_checkpoints_become_theirs(shard_bytes: int, tmp_path: Path) -> None:
    arrays = {name: piece.array for name, piece in specimens.numbers().items()}
    await convert(await native(tmp_path / "a", arrays), tmp_path / "m-3", format="tensorflow", shard_bytes=shard_bytes)
    ours.assert_same(theirs.load(tmp_path / "m-3"), specimens.numbers())


@pytest.mark.parametrize("shard_bytes", [MANY, 1000])
async def test_tensorflow_writes_the_same_bytes(shard_bytes: int, tmp_path: Path) -> None:
    arrays = {name: piece.array for name, piece in specimens.numbers().items()}
    written = tmp_path / "ours" / "m-3"
    await convert(await native(tmp_path / "a", arrays), written, format="tensorflow", shard_bytes=shard_bytes)
    (tmp_path / "theirs").mkdir()
    theirs.save_v2(tmp_path / "theirs" / "m-3", *shards_of(written, theirs.load(written)))
    assert ours.files_of(tmp_path / "theirs" / "m-3") == ours.files_of(written)


async def test_tensorflow_writes_the_same_strings(tmp_path: Path) -> None:
    for folder in ("theirs", "ours"):
        (tmp_path / folder).mkdir()
    theirs.save_v2(tmp_path / "theirs" / "m", sorted((specimens.strings() | specimens.quantized()).items()))
    await convert(tmp_path / "theirs" / "m", tmp_path / "ours" / "m", format="tensorflow")
    assert ours.files_of(tmp_path / "ours" / "m") == ours.files_of(tmp_path / "theirs" / "m")


async def test_an_index_of_many_blocks(tmp_path: Path) -> None:
    arrays = {f"{'a-name-of-some-length/' * 4}{index:05d}": np.array([index], np.int32) for index in range(10_000)}
    await convert(await native(tmp_path / "a", arrays), tmp_path / "m", format="tensorflow", shard_bytes=MANY)
    assert (tmp_path / "m.index").stat().st_size > 2**18
    ours.assert_same(theirs.load(tmp_path / "m"), dict(theirs.pieces(arrays)))
    theirs.save_v2(tmp_path / "again", theirs.pieces(arrays))
    assert ours.files_of(tmp_path / "again") == ours.files_of(tmp_path / "m")


async def test_slices_of_theirs_come_back_whole(tmp_path: Path) -> None:
    whole = np.arange(300 * 5, dtype=np.float32).reshape(300, 5)
    shards = [
        [("whole", Piece(whole[start:stop], "float32", f"300 5 {start},{stop - start}:-"))]
        for start, stop in ((0, 63), (63, 64), (64, 300))
    ]
    theirs.save_v2(tmp_path / "m", *shards)
    await convert(tmp_path / "m", tmp_path / "whole", format="tensorflow")
    ours.assert_same(theirs.load(tmp_path / "whole"), {"whole": Piece(whole, "float32")})
    found = theirs.load_slice(tmp_path / "whole", "whole", "float32", "300 5 50,100:1,2")
    ours.assert_equal(found, np.ascontiguousarray(whole[50:150, 1:3]))


async def test_replaced_by_one_with_other_files(tmp_path: Path) -> None:
    old, new = {"a": np.zeros(500), "b": np.zeros(3)}, {"a": np.arange(1000.0), "c": np.ones((2, 2), np.int8)}
    await convert(await native(tmp_path / "old", old), tmp_path / "m", format="tensorflow")
    await convert(await native(tmp_path / "new", new), tmp_path / "m", format="tensorflow", overwrite=True)
    assert {name for name in ours.files_of(tmp_path / "m") if "data" in name} == {
        ".data-00000-of-00002",
        ".data-00001-of-00002",
    }
    ours.assert_same(theirs.load(tmp_path / "m"), dict(theirs.pieces(new)))
    (tmp_path / "m.data-00001-of-00002").unlink()  # TensorFlow asks for no file that nothing is in
    ours.assert_same(theirs.load(tmp_path / "m"), dict(theirs.pieces(new)))


SESSION: dict[str, Array] = {
    "scope/w": np.arange(12, dtype=np.float32).reshape(3, 4),
    "scope/b": np.array([0.5, -0.0, np.inf]),
    "global_step": np.array(1234, np.int64),
}


async def test_a_session_restores_it(tmp_path: Path) -> None:
    await convert(await native(tmp_path / "a", SESSION), tmp_path / "m-3", format="tensorflow", shard_bytes=60)
    with theirs.session({name: np.zeros_like(array) for name, array in SESSION.items()}) as opened:
        tf.compat.v1.train.Saver().restore(opened, str(tmp_path / "m-3"))
        for name, array in theirs.values(opened).items():
            ours.assert_equal(array, SESSION[name], name)


async def test_a_partitioned_variable_is_restored_from_a_whole_tensor(tmp_path: Path) -> None:
    whole = np.arange(40, dtype=np.float32).reshape(10, 4)
    await convert(await native(tmp_path / "a", {"table": whole}), tmp_path / "m", format="tensorflow")
    with tf.Graph().as_default(), tf.compat.v1.Session() as opened:
        table = tf.compat.v1.get_variable(
            "table", [10, 4], partitioner=tf.compat.v1.fixed_size_partitioner(3), use_resource=False
        )
        assert len(list(table)) == 3
        tf.compat.v1.train.Saver([*table]).restore(opened, str(tmp_path / "m"))
        ours.assert_equal(np.concatenate(opened.run([*table])), whole)
