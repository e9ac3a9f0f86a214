"""Saver definitions and object graphs."""

from __future__ import annotations

import json

import pytest
from google.protobuf import text_format

from asyncsaver.errors import ManifestError
from asyncsaver.formats.tensorflow.object_graph import Slot, decode_graph, keys_by_full_name
from asyncsaver.formats.tensorflow.saver_def import V2, SaverDef, decode_saver_def, encode_saver_def
from asyncsaver.model.foreign import GRAPH_KEY
from asyncsaver.proto import tensorflow_checkpoint_pb2 as messages
from asyncsaver.store.contract import Store

from .checkpoints import GOLDEN, described, put_folder, read


def test_saver_def() -> None:
    text = json.loads((GOLDEN / "meta/golden.json").read_text())["saver_def"]
    data = text_format.Parse(text, messages.SaverDef()).SerializeToString()
    definition = decode_saver_def(data, "m.meta")
    assert definition == SaverDef(
        "save/Const:0", "save/control_dependency:0", "save/restore_all", 5, False, 10000.0, V2
    )
    assert encode_saver_def(definition) == data
    assert data in (GOLDEN / "meta/model-1000.meta").read_bytes()


def test_an_unknown_version() -> None:
    data = encode_saver_def(SaverDef(version=V2)).replace(b"\x38\x02", b"\x38\x03")
    with pytest.raises(ManifestError, match="unknown version 3"):
        decode_saver_def(data, "m.meta")


def test_hours_have_the_precision_that_tensorflow_keeps() -> None:
    kept = decode_saver_def(encode_saver_def(SaverDef(keep_checkpoint_every_n_hours=0.1)), "x")
    assert kept.keep_checkpoint_every_n_hours == pytest.approx(0.1, abs=1e-8)
    assert kept.keep_checkpoint_every_n_hours != 0.1


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff", b"\x0a\x02x", b"\x0b"])
def test_what_is_no_definition_and_no_graph(data: bytes) -> None:
    with pytest.raises(ManifestError, match=r"m.meta: not a SaverDef"):
        decode_saver_def(data, "m.meta")
    with pytest.raises(ManifestError, match=r"m.index: _CHECKPOINTABLE_OBJECT_GRAPH: not a TrackableObjectGraph"):
        decode_graph(data, "m.index")


@pytest.mark.parametrize("name", ["ckpt-1", "written"])
async def test_object_graphs(store: Store, name: str) -> None:
    await put_folder(store, GOLDEN / "object_based")
    foreign = await described(store, f"object_based/{name}")
    nodes = decode_graph((await read(store, foreign, GRAPH_KEY)).item(), name)
    expected = json.loads((GOLDEN / "object_based/golden.json").read_text())["object_graphs"]["ckpt-1"]
    assert [
        {
            "children": dict(node.children),
            "attributes": [[one.name, one.full_name, one.key] for one in node.attributes],
            "slots": [[one.original, one.name, one.node] for one in node.slots],
        }
        for node in nodes
    ] == expected
    assert nodes[2].slots[0] == Slot(10, "m", 20)
    keys = keys_by_full_name(nodes)
    assert keys["step"] == "step/.ATTRIBUTES/VARIABLE_VALUE"
    assert keys["w"] == "model/layers/1/w/.ATTRIBUTES/VARIABLE_VALUE"  # the last of three
    assert {*keys.values()} <= {*foreign.tensors}
    assert "" not in keys


def test_a_graph_that_refers_to_nowhere() -> None:
    graph = messages.TrackableObjectGraph
    node = graph.TrackableObject(children=[graph.TrackableObject.ObjectReference(node_id=1, local_name="x")])
    with pytest.raises(ManifestError, match="refers to one that there is not"):
        decode_graph(graph(nodes=[node]).SerializeToString(), "m.index")
