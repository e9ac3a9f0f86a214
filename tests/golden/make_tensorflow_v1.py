"""Make tests/golden/tensorflow/v1_blocks.json: what TensorFlow makes of a state that takes many blocks. Needs TensorFlow 2.21.

PYTHONPATH=tests/formats/tensorflow python tests/golden/make_tensorflow_v1.py tests/golden/tensorflow/v1_blocks.json
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import tensorflow as tf
from v1_states import many_blocks


def main() -> None:
    """Only its size and checksum are kept."""
    state = many_blocks()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        data = [tf.constant(array.tolist() if array.dtype == object else array) for array in state.values()]
        tf.raw_ops.Save(filename=str(path), tensor_names=[*state], data=data)
        content = path.read_bytes()
    golden = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    Path(sys.argv[1]).write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
