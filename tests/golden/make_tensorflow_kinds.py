"""Make the checkpoints of tests/golden/tensorflow/kinds: one state in all ways to save it. Needs TensorFlow 2.21.

python tests/golden/make_tensorflow_kinds.py tests/golden/tensorflow/kinds
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

STATE = {
    "a": np.array([1, 2, 3, 4], np.float32),
    "b": np.array([5], np.float32),
    "c": np.arange(6, dtype=np.int32).reshape(2, 3),
    "s": np.array(1.5, np.float32),
}


def name_based(path: Path, *, sharded: bool, version: int) -> None:
    """Half of the variables on each of two devices, which sharding writes into two files."""
    v1 = tf.compat.v1
    config = v1.ConfigProto(device_count={"CPU": 2})
    with tf.Graph().as_default(), v1.Session(config=config) as session:
        for number, (name, array) in enumerate(STATE.items()):
            with tf.device(f"/cpu:{number % 2}"):
                v1.get_variable(name, initializer=array, use_resource=False)
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(sharded=sharded, write_version=version)
        saver.save(session, str(path), write_meta_graph=False, write_state=False)


def main() -> None:
    """Write all of them."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    saver_def = tf.compat.v1.train.SaverDef
    for name, version in (("v1", saver_def.V1), ("v2", saver_def.V2)):
        name_based(folder / name, sharded=False, version=version)
        name_based(folder / f"{name}_sharded", sharded=True, version=version)
    checkpoint = tf.train.Checkpoint(
        a=tf.Variable(np.array([1, 2], np.float32), name="va"), b=tf.Variable(np.array([3], np.float32), name="vb")
    )
    checkpoint.write(str(folder / "object"))


if __name__ == "__main__":
    main()
