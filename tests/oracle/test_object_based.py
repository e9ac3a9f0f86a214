"""Checkpoints of `tf.train.Checkpoint` and `CheckpointManager`, whose keys are paths through objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.training.saver import object_graph_key_mapping as their_mapping

from asyncsaver import Saver, convert, open_checkpoint
from asyncsaver.tensorflow import get_checkpoint_state, latest_checkpoint
from asyncsaver.tensorflow.object_based import object_graph_key_mapping

from . import ours, theirs
from .theirs import Array, Piece

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def objects(first: float) -> Any:
    """Two variables, one of them in a list below an object, and what counts saves."""
    return tf.train.Checkpoint(
        weights=tf.Variable(np.arange(6, dtype=np.float32).reshape(2, 3) + first, name="w"),
        layers=[tf.Module(name="first"), tf.Variable([first, 2.5], dtype=tf.float64, name="scope/b")],
    )


def contents(first: float) -> dict[str, Array]:
    """The same by the keys of a checkpoint."""
    return {
        "weights/.ATTRIBUTES/VARIABLE_VALUE": np.arange(6, dtype=np.float32).reshape(2, 3) + np.float32(first),
        "layers/1/.ATTRIBUTES/VARIABLE_VALUE": np.array([first, 2.5]),
    }


async def test_every_key_is_read(tmp_path: Path) -> None:
    prefix = objects(4.0).save(str(tmp_path / "ckpt"))
    found = await ours.load(Path(prefix))
    counter = Piece(np.array(1, np.int64), "int64")
    expected = dict(theirs.pieces(contents(4.0))) | {"save_counter/.ATTRIBUTES/VARIABLE_VALUE": counter}
    ours.assert_same({name: piece for name, piece in found.items() if name != GRAPH}, expected)
    assert found[GRAPH].dtype == "string"


async def test_a_manager_and_we_agree_on_what_is_there(tmp_path: Path) -> None:
    for step in range(1, 5):
        manager = tf.train.CheckpointManager(objects(step), str(tmp_path), max_to_keep=2)
        manager.save(checkpoint_number=step)
    state = await get_checkpoint_state(tmp_path)
    assert state is not None
    assert list(state.paths) == manager.checkpoints
    assert await latest_checkpoint(tmp_path) == manager.latest_checkpoint == str(tmp_path / "ckpt-4")
    for path in state.paths:
        step = int(path.rpartition("-")[2])
        async with await open_checkpoint(path) as reader:
            for name, array in contents(step).items():
                ours.assert_equal(await reader.read(name), array, name)


async def test_a_copy_is_restored_into_objects(tmp_path: Path) -> None:
    prefix = objects(7.0).save(str(tmp_path / "ckpt"))
    await convert(prefix, tmp_path / "copy" / "ckpt-1", format="tensorflow", shard_bytes=16)
    target = objects(0.0)
    target.restore(str(tmp_path / "copy" / "ckpt-1")).assert_consumed()
    for found, wanted in zip((target.weights, target.layers[1]), contents(7.0).values(), strict=True):
        ours.assert_equal(found.numpy(), wanted)


async def test_a_target_with_full_names_is_filled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prefix = objects(4.0).save(str(tmp_path / "ckpt"))
    assert await object_graph_key_mapping(prefix) == their_mapping(prefix)
    target = {"w": np.zeros((2, 3), np.float32), "scope/b": np.zeros(2)}
    async with Saver(tmp_path, format="tensorflow") as saver:
        await saver.restore(target, save_path=prefix)
    for found, wanted in zip(target.values(), contents(4.0).values(), strict=True):
        ours.assert_equal(found, wanted)
    assert "full names" in caplog.text
