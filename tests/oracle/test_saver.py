"""`Saver(format="tensorflow")` writes; TensorFlow lists, restores and removes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from asyncsaver import Saver
from asyncsaver.variables import Partitioned

from . import ours, specimens, theirs
from .theirs import Array, Piece

train = tf.compat.v1.train
STATE: dict[str, Array] = {
    "scope/w": np.arange(12, dtype=np.float32).reshape(3, 4),
    "scope/b": np.array([0.5, -0.0, np.inf]),
    "global_step": np.array(1234, np.int64),
}


def saver(folder: Path, **arguments: Any) -> Saver:
    return Saver(folder, **{"format": "tensorflow", "prefix": "model.ckpt", "pad_step_number": False, **arguments})


async def test_a_session_restores_the_latest(tmp_path: Path) -> None:
    async with saver(tmp_path, max_to_keep=2) as writing:
        for step in (1, 2, 3):
            await writing.save({**STATE, "global_step": np.array(step)}, step=step)
    assert train.get_checkpoint_state(str(tmp_path)).all_model_checkpoint_paths == [
        str(tmp_path / "model.ckpt-2"),
        str(tmp_path / "model.ckpt-3"),
    ]
    assert ours.names_in(tmp_path, "*.index") == ["model.ckpt-2.index", "model.ckpt-3.index"]
    with theirs.session({name: np.zeros_like(array) for name, array in STATE.items()}) as opened:
        train.Saver().restore(opened, tf.train.latest_checkpoint(str(tmp_path)))
        found = theirs.values(opened)
    assert found["global_step"] == 3
    for name in ("scope/w", "scope/b"):
        ours.assert_equal(found[name], STATE[name], name)


@pytest.mark.parametrize("shard_bytes", [2**30, 500])
async def test_every_dtype_and_shape(shard_bytes: int, tmp_path: Path) -> None:
    arrays = {name: piece.array for name, piece in specimens.numbers().items()}
    async with saver(tmp_path, shard_bytes=shard_bytes) as writing:
        await writing.save(arrays, step=1)
    assert (len(ours.names_in(tmp_path, "*.data-*")) > 1) is (shard_bytes == 500)
    ours.assert_same(theirs.load(tmp_path / "model.ckpt-1"), specimens.numbers())
    ours.assert_same(await ours.load(tmp_path / "model.ckpt-1"), specimens.numbers())


async def test_two_thousand_variables(tmp_path: Path) -> None:
    arrays = {f"layer{index:04d}/w": np.full((index % 5, 3), index, np.int32) for index in range(2000)}
    async with saver(tmp_path, prefix="ckpt", pad_step_number=True) as writing:
        await writing.save(arrays, step=7)
    latest = tf.train.latest_checkpoint(str(tmp_path))
    assert latest == str(tmp_path / "ckpt-00000007")
    ours.assert_same(theirs.load(Path(latest)), dict(theirs.pieces(arrays)))
    # What TensorFlow writes of the same tensors has the same bytes.
    (tmp_path / "again").mkdir()
    theirs.save_v2(tmp_path / "again" / "ckpt", theirs.pieces(arrays))
    assert ours.files_of(Path(latest)) == ours.files_of(tmp_path / "again" / "ckpt")


@pytest.mark.parametrize(("before", "after"), [(2**30, 2**30), (2**30, 20), (20, 2**30), (20, 50)])
async def test_an_overwrite_has_other_files(before: int, after: int, tmp_path: Path) -> None:
    changed = {name: array + array.dtype.type(1) for name, array in STATE.items()}
    for shard_bytes, state in ((before, STATE), (after, changed)):
        async with saver(tmp_path, shard_bytes=shard_bytes) as writing:
            await writing.save(state, step=5, overwrite=True)
        ours.assert_same(theirs.load(tmp_path / "model.ckpt-5"), dict(theirs.pieces(state)))
    ends = {name.rpartition("-")[2] for name in ours.names_in(tmp_path, "*.data-*")}
    assert len(ends) == 1


async def test_without_a_step_the_last_one_is_replaced(tmp_path: Path) -> None:
    async with saver(tmp_path) as writing:
        for factor in (1, 2, 3):
            await writing.save({"w": STATE["scope/w"] * np.float32(factor)})
            assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "model.ckpt")
            found = theirs.load(tmp_path / "model.ckpt")
            ours.assert_equal(found["w"].array, STATE["scope/w"] * np.float32(factor))


async def test_what_tensorflow_removes_is_listed_no_more(tmp_path: Path) -> None:
    async with saver(tmp_path) as writing:
        for step in (1, 2, 3):
            await writing.save(STATE, step=step)
        train.remove_checkpoint(str(tmp_path / "model.ckpt-3"))
        assert [found.step for found in await writing.checkpoints()] == [1, 2]
        latest = await writing.latest()
        assert latest is not None
        assert latest.step == 2
    async with saver(tmp_path) as other:
        assert [found.step for found in await other.checkpoints()] == [1, 2]
        assert (await other.restore())["global_step"] == 1234
        train.remove_checkpoint(str(tmp_path / "model.ckpt-1"))
        await other.save(STATE, step=4)
        assert [found.step for found in await other.checkpoints()] == [2, 4]
    assert ours.names_in(tmp_path, "*.index") == ["model.ckpt-2.index", "model.ckpt-4.index"]


async def test_a_checkpoint_saved_in_the_background(tmp_path: Path) -> None:
    state = {name: array.copy() for name, array in STATE.items()}
    async with saver(tmp_path) as writing:
        pending = await writing.save_in_background(state, step=1)
        state["scope/w"][...] = -1
        await pending
    ours.assert_same(theirs.load(tmp_path / "model.ckpt-1"), dict(theirs.pieces(STATE)))


async def test_strings(tmp_path: Path) -> None:
    arrays = {name: piece.array for name, piece in specimens.strings().items()}
    async with saver(tmp_path) as writing:
        await writing.save(arrays, step=1)
    ours.assert_same(theirs.load(tmp_path / "model.ckpt-1"), specimens.strings())


@pytest.mark.parametrize("axis", [0, 1])
async def test_partitioned_variables_stay_so(axis: int, tmp_path: Path) -> None:
    whole = np.arange(300 * 70, dtype=np.float32).reshape(300, 70)
    parts = [np.ascontiguousarray(part) for part in np.split(whole, [63, 64], axis)]
    async with saver(tmp_path) as writing:
        await writing.save({"table": Partitioned.joined(parts, axis), "b": STATE["scope/b"]}, step=1)
    prefix, starts = tmp_path / "model.ckpt-1", (0, 63, 64)
    expected = {"table": Piece(whole, "float32"), "b": Piece(STATE["scope/b"], "float64")}
    ours.assert_same(theirs.load(prefix), expected)
    # Written as slices, as TensorFlow itself does it.
    where = [
        ":".join(f"{start},{part.shape[one]}" if one == axis else "-" for one in range(2))
        for start, part in zip(starts, parts, strict=True)
    ]
    pieces = [("table", Piece(part, "float32", f"300 70 {one}")) for part, one in zip(parts, where, strict=True)]
    theirs.save_v2(tmp_path / "theirs", [*pieces, ("b", expected["b"])])
    assert ours.index_of(prefix).slices.keys() == ours.index_of(tmp_path / "theirs").slices.keys()
    with tf.Graph().as_default(), tf.compat.v1.Session() as opened:
        partitioner = tf.compat.v1.fixed_size_partitioner(4, axis)
        table = tf.compat.v1.get_variable("table", whole.shape, partitioner=partitioner, use_resource=False)
        train.Saver([*table]).restore(opened, str(prefix))
        ours.assert_equal(np.concatenate(opened.run([*table]), axis), whole)


async def test_a_saver_with_variables(tmp_path: Path) -> None:
    arrays = {name: array.copy() for name, array in STATE.items()}
    async with saver(tmp_path, var_list=arrays) as writing:
        await writing.save(step=1)
    with theirs.session({name: np.zeros_like(array) for name, array in STATE.items()}) as opened:
        saving = train.Saver()
        saving.restore(opened, tf.train.latest_checkpoint(str(tmp_path)))
        for name, array in theirs.values(opened).items():
            ours.assert_equal(array, STATE[name], name)
        theirs.assign(opened, {"scope/w": -STATE["scope/w"]})
        saving.save(opened, str(tmp_path / "model.ckpt"), global_step=2, write_meta_graph=False)
    async with saver(tmp_path, var_list=arrays) as reading:
        await reading.restore()
    ours.assert_equal(arrays["scope/w"], -STATE["scope/w"])


async def test_the_sidecar_is_that_of_a_graph(tmp_path: Path) -> None:
    with theirs.session(STATE) as opened:
        meta = train.export_meta_graph(saver_def=train.Saver().as_saver_def()).SerializeToString()
        del opened
    async with saver(tmp_path) as writing:
        await writing.save(STATE, step=1, write_meta=meta)
    latest = tf.train.latest_checkpoint(str(tmp_path))
    with tf.Graph().as_default(), tf.compat.v1.Session() as opened:
        train.import_meta_graph(f"{latest}.meta").restore(opened, latest)
        for name, array in theirs.values(opened).items():
            ours.assert_equal(array, STATE[name], name)
