"""V1 files of ours: TensorFlow reads them, and writes the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from asyncsaver import Saver
from asyncsaver.formats.tensorflow.v1_write import V1Tensor, plan_v1

from . import ours, specimens, theirs
from .theirs import Array, Piece

KNOWN = {name: piece for name, piece in specimens.everything().items() if piece.dtype not in specimens.NOT_IN_V1}


def full(rank: int) -> tuple[tuple[int, int], ...]:
    """All of a tensor, as a slice."""
    return ((0, -1),) * rank


def write(path: Path, tensors: list[V1Tensor]) -> None:
    path.write_bytes(b"".join(plan_v1(tensors).pieces()))


async def test_every_dtype_and_shape(tmp_path: Path) -> None:
    tensors = [
        V1Tensor(name, piece.dtype, piece.array.shape, [(full(piece.array.ndim), piece.array)])
        for name, piece in KNOWN.items()
    ]
    write(tmp_path / "ours", tensors)
    ours.assert_same(theirs.load(tmp_path / "ours"), KNOWN)
    theirs.save_v1(tmp_path / "theirs", list(KNOWN.items()))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_slices(tmp_path: Path) -> None:
    whole = np.arange(600, dtype=np.float32).reshape(6, 100)
    parts = [(start, np.ascontiguousarray(whole[:, start:stop])) for start, stop in ((0, 64), (64, 65), (65, 100))]
    slices = [(((0, -1), (start, part.shape[1])), part) for start, part in parts]
    write(tmp_path / "ours", [V1Tensor("whole", "float32", whole.shape, slices)])
    shard = [("whole", Piece(part, "float32", f"6 100 -:{start},{part.shape[1]}")) for start, part in parts]
    theirs.save_v1(tmp_path / "theirs", shard)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    ours.assert_equal(theirs.load(tmp_path / "ours")["whole"].array, whole)
    found = theirs.load_slice(tmp_path / "ours", "whole", "float32", "6 100 2,3:60,10")
    ours.assert_equal(found, np.ascontiguousarray(whole[2:5, 60:70]))


def test_a_table_of_many_blocks(tmp_path: Path) -> None:
    arrays = {f"tensor{index:05d}": np.full(index % 90, index, np.float64) for index in range(5000)}
    tensors = [V1Tensor(name, "float64", array.shape, [(full(1), array)]) for name, array in arrays.items()]
    write(tmp_path / "ours", tensors)
    theirs.save_v1(tmp_path / "theirs", theirs.pieces(arrays))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert (tmp_path / "ours").stat().st_size > 5 * 2**18


STATE: dict[str, Array] = {"w": np.arange(12, dtype=np.float32).reshape(3, 4), "step": np.array(5, np.int64)}


def restored(prefix: Path) -> dict[str, Array]:
    """What a session has after it has restored a checkpoint."""
    with theirs.session({name: np.zeros_like(array) for name, array in STATE.items()}) as opened:
        tf.compat.v1.train.Saver().restore(opened, str(prefix))
        return theirs.values(opened)


def test_a_session_restores_several_files(tmp_path: Path) -> None:
    for rank, (name, array) in enumerate(STATE.items()):
        tensor = V1Tensor(name, array.dtype.name, array.shape, [(full(array.ndim), array)])
        write(tmp_path / f"m-{rank:05d}-of-00002", [tensor])
    for name, array in restored(tmp_path / "m-?????-of-00002").items():
        ours.assert_equal(array, STATE[name], name)


async def test_a_session_restores_what_a_saver_wrote(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="[vV]1"):
        saver = Saver(tmp_path, format="tensorflow", write_version="v1", prefix="m", pad_step_number=False)
    async with saver:
        await saver.save(STATE, step=5)
        await saver.save(STATE, step=6)
        assert [found.step for found in await saver.checkpoints()] == [5, 6]
        assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "m-6")
        for name, array in restored(tmp_path / "m-6").items():
            ours.assert_equal(array, STATE[name], name)
        tf.compat.v1.train.remove_checkpoint(str(tmp_path / "m-6"), tf.compat.v1.train.SaverDef.V1)
        assert [found.step for found in await saver.checkpoints()] == [5]


async def test_items_035_and_044_a_session_restores_what_a_sharded_saver_wrote(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="[vV]1"):
        saver = Saver(tmp_path, format="tensorflow", write_version="v1", sharded=True, shard_bytes=1, prefix="m")
    async with saver:
        await saver.save({name: array + 1 for name, array in STATE.items()}, step=5)
        saved = await saver.save(STATE, step=5, overwrite=True)
        assert saved.url == str(tmp_path / "m-00000005-?????-of-00003")
        assert tf.train.latest_checkpoint(str(tmp_path)) == saved.url
        for name, array in restored(Path(saved.url)).items():
            ours.assert_equal(array, STATE[name], name)
        await saver.save(STATE, step=6)
        tf.compat.v1.train.remove_checkpoint(saved.url, tf.compat.v1.train.SaverDef.V1)
        assert [found.step for found in await saver.checkpoints()] == [6]
