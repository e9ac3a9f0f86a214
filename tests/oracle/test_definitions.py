"""Definitions of savers, and the sidecars in which they stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from asyncsaver.tensorflow.definition import make_saver_def, to_proto
from asyncsaver.tensorflow.meta import export_meta, import_meta

from . import ours, theirs

train = tf.compat.v1.train
VERSIONS = {"v1": train.SaverDef.V1, "v2": train.SaverDef.V2}


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("sharded", [True, False])
@pytest.mark.parametrize(("keep", "hours"), [(5, 10000.0), (0, 0.1), (3, float("inf")), (1, 1 / 3)])
@pytest.mark.parametrize("scope", [None, "outer", "other"])
def test_the_same_definition(version: str, sharded: bool, keep: int, hours: float, scope: str | None) -> None:
    with theirs.session({"w": np.zeros(3)}), tf.name_scope("outer/"):
        saver = train.Saver(
            max_to_keep=keep, keep_checkpoint_every_n_hours=hours, sharded=sharded, write_version=VERSIONS[version]
        )
        expected = saver.to_proto(export_scope=scope)
    definition = make_saver_def(
        max_to_keep=keep,
        keep_checkpoint_every_n_hours=hours,
        write_version=version,
        sharded=sharded,
        name="outer/save",
    )
    assert to_proto(definition, scope) == (None if expected is None else expected.SerializeToString())


async def test_a_sidecar_of_tensorflow_goes_through_our_hands(tmp_path: Path) -> None:
    with theirs.session({"scope/w": np.arange(3.0), "b": np.array(7)}) as opened:
        prefix = train.Saver(max_to_keep=4).save(opened, str(tmp_path / "m"), global_step=1)
    meta = await import_meta(f"{prefix}.meta")
    assert meta.definition is not None
    assert meta.definition.max_to_keep == 4
    assert meta.has_variables
    copy = tmp_path / "copy.meta"
    await export_meta(
        copy,
        b"any program",
        saver_def=meta.definition,
        collections=meta.collections,
        nodes=meta.nodes,
        graph=meta.graph,
    )
    with tf.Graph().as_default(), tf.compat.v1.Session() as opened:
        saver = train.import_meta_graph(str(copy))
        saver.restore(opened, prefix)
        assert theirs.values(opened)["b"] == 7
        ours.assert_equal(theirs.values(opened)["scope/w"], np.arange(3.0))


async def test_a_sidecar_of_ours_is_kept_by_tensorflow(tmp_path: Path) -> None:
    await export_meta(
        tmp_path / "m.meta", b"\x00any\xff", saver_def=make_saver_def(), collections={"n": [1, 2**40], "s": ["ü"]}
    )
    message = meta_graph_pb2.MetaGraphDef.FromString(read(tmp_path / "m.meta"))
    assert list(message.collection_def["n"].int64_list.value) == [1, 2**40]
    assert message.saver_def.SerializeToString() == to_proto(make_saver_def())
    again = tmp_path / "again.meta"
    write(again, message.SerializeToString())
    assert (await import_meta(again)).program == b"\x00any\xff"


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
