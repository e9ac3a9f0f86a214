"""Make the sidecars of tests/golden/tensorflow/sidecars: what `meta` there lacks. Needs TensorFlow 2.21.

python tests/golden/make_tensorflow_sidecars.py tests/golden/tensorflow/sidecars
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import any_pb2

v1 = tf.compat.v1


def values(collection: Any) -> Any:
    """What is in a collection, as JSON; bytes as what Latin-1 makes of them."""
    kind = collection.WhichOneof("kind")
    if kind is None or kind == "any_list":
        return {"kind": kind}
    found = [one.decode("latin-1") if isinstance(one, bytes) else one for one in getattr(collection, kind).value]
    return {"kind": kind, "values": found}


def describe(meta: Any) -> dict[str, Any]:
    """What the tests compare with."""
    return {
        "saver_def": str(meta.saver_def) if meta.HasField("saver_def") else None,
        "nodes": [node.name for node in meta.graph_def.node],
        "graph_size": meta.graph_def.ByteSize(),
        "collections": {name: values(one) for name, one in sorted(meta.collection_def.items())},
    }


def collections(path: Path) -> Any:
    """A sharded V1 saver in a scope, and a collection of every kind."""
    with tf.Graph().as_default() as graph:
        with tf.name_scope("model"):
            weights = v1.get_variable("weights", shape=[2, 3])
            saver = v1.train.Saver(
                name="mine", sharded=True, write_version=1, max_to_keep=None, keep_checkpoint_every_n_hours=0.1
            )
        for name, *items in (
            ("words", "text", "é", b"\xff\x00", ""),
            ("numbers", 3, -1, 2**63 - 1, -(2**63)),
            ("floats", 0.1, 2, -1.5, float("inf")),
            ("train_op", weights.op, weights.initializer),
            ("messages", any_pb2.Any(type_url="x/y", value=b"z")),
        ):
            for item in items:
                graph.add_to_collection(name, item)
        return saver.export_meta_graph(str(path))


def no_variables(path: Path) -> Any:
    """A graph without a variable, and so without a saver."""
    with tf.Graph().as_default():
        tf.constant(1.0, name="one")
        return v1.train.export_meta_graph(str(path))


def main() -> None:
    """Write all of them."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    made = {make.__name__: make(folder / f"{make.__name__}.meta") for make in (collections, no_variables)}
    golden = {name: describe(meta) for name, meta in made.items()}
    (folder / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
