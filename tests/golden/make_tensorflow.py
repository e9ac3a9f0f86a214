"""Make the checkpoints of tests/golden/tensorflow/extra: what the others there lack. Needs TensorFlow 2.21.

python tests/golden/make_tensorflow.py tests/golden/tensorflow/extra
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

Tensors = list[tuple[str, str, Any]]
"""Name, shape and slice, and the elements of that slice."""

NARROW = ["int4", "uint4", "int2", "uint2", "float4_e2m1fn"]
FLOATS = ["float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz"]
QUANTIZED = {"qint8": "int8", "quint8": "uint8", "qint32": "int32", "qint16": "int16", "quint16": "uint16"}


def dtypes() -> tuple[Tensors, dict[str, Any]]:
    """Narrow, 8-bit and quantized dtypes, and their elements as NumPy has them."""
    arrays: dict[str, Any] = {}
    tensors: Tensors = []
    for name in NARROW + FLOATS:
        dtype = tf.as_dtype(name)
        arrays[name] = np.arange(-1, 3).astype(dtype.as_numpy_dtype).reshape(2, 2)
        tensors.append((name, "", tf.constant(arrays[name])))
    for name, plain in QUANTIZED.items():
        arrays[name] = np.array([1, 2, 100], plain)
        tensors.append((name, "", tf.bitcast(tf.constant(arrays[name]), tf.as_dtype(name))))
    return tensors, arrays


def slices() -> tuple[Tensors, dict[str, Any]]:
    """Slices whose extents take one, two and three bytes in a key."""
    tall = np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32)
    wide = np.random.default_rng(1).integers(-100, 100, (2, 9000)).astype(np.int8)
    strings = np.array([b"abc", b"", b"\xff\x00", b"q" * 300], object)
    tensors: Tensors = [
        ("tall", f"300 5 {start},{count}:-", tall[start : start + count])
        for start, count in ((0, 63), (63, 1), (64, 136), (200, 100))
    ]
    tensors += [
        ("wide/é", f"2 9000 -:{start},{count}", wide[:, start : start + count])
        for start, count in ((0, 8192), (8192, 808))
    ]
    tensors += [("strings", f"4 {start},{count}", strings[start : start + count]) for start, count in ((0, 1), (1, 3))]
    return tensors, {"tall": tall, "wide/é": wide, "strings": strings}


def describe(dtype: Any, array: Any) -> dict[str, Any]:
    """What the tests compare with."""
    entry = {"dtype": dtype.name, "enum": dtype.as_datatype_enum, "shape": list(array.shape)}
    if array.dtype == object:
        elements = list(array.flat)
        content = b"".join(len(one).to_bytes(8, "little") + one for one in elements)
        return entry | {
            "sha256": hashlib.sha256(content).hexdigest(),
            "strings_b64": [base64.b64encode(one).decode() for one in elements],
        }
    return entry | {"nbytes": array.nbytes, "sha256": hashlib.sha256(array.tobytes()).hexdigest()}


def save(path: Path, tensors: Tensors, arrays: dict[str, Any], *, v1: bool = False) -> None:
    """Write a checkpoint, and what is in it beside it."""
    names, specs, data = ([*column] for column in zip(*tensors, strict=True))
    constants = [tf.constant(one) for one in data]
    if v1:
        tf.raw_ops.SaveSlices(filename=str(path), tensor_names=names, shapes_and_slices=specs, data=constants)
    else:
        tf.raw_ops.SaveV2(prefix=str(path), tensor_names=names, shape_and_slices=specs, tensors=constants)
    kinds = dict(zip(names, [constant.dtype for constant in constants], strict=True))
    contents = {name: describe(kinds[name], array) for name, array in arrays.items()}
    path.with_name(f"{path.name}.json").write_text(
        json.dumps({"prefix": path.name, "tensors": contents}, indent=1) + "\n"
    )


def main() -> None:
    """Write all of them."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    save(folder / "dtypes", *dtypes())
    save(folder / "sliced", *slices())
    save(folder / "sliced-v1", *slices(), v1=True)
    tensors, arrays = dtypes()
    kept = {"qint8", "quint8", "qint32"}  # TensorFlow refuses the others
    save(
        folder / "dtypes-v1", [one for one in tensors if one[0] in kept], {name: arrays[name] for name in kept}, v1=True
    )
    variant = tf.raw_ops.TensorListPushBack(
        input_handle=tf.raw_ops.EmptyTensorList(
            element_shape=tf.constant([], tf.int32), max_num_elements=3, element_dtype=tf.float32
        ),
        tensor=tf.constant(1.0),
    )
    tf.raw_ops.SaveV2(
        prefix=str(folder / "variant"), tensor_names=["list", "x"], shape_and_slices=["", ""],
        tensors=[variant, tf.constant([1.0, 2.0])],
    )  # fmt: skip


if __name__ == "__main__":
    main()
