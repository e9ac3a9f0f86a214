"""Real TensorFlow: writing and reading single files by its own kernels, and sessions of the kind that `tf.train.Saver` is for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

Array = np.ndarray[Any, np.dtype[Any]]
QUANTIZED = {"qint8": "int8", "quint8": "uint8", "qint32": "int32", "qint16": "int16", "quint16": "uint16"}
"""Dtypes that NumPy has no name for, and those of the numbers in them."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What stands under a name, or under a slice of it.

    Attributes:
        array: the elements; strings as objects of `bytes`, quantized ones as plain numbers.
        dtype: TensorFlow's name of it.
        where: the slice, as TensorFlow writes it: ``"300 5 0,63:-"``.
    """

    array: Array
    dtype: str
    where: str = ""

    def tensor(self) -> Any:
        """As TensorFlow has it."""
        if self.dtype in QUANTIZED:
            return tf.bitcast(tf.constant(self.array), tf.as_dtype(self.dtype))
        return tf.constant(self.array, tf.as_dtype(self.dtype))


Pieces = Sequence[tuple[str, Piece]]
"""With their names, which repeat where a tensor is in slices."""


def pieces(arrays: Mapping[str, Array]) -> Pieces:
    """Whole tensors, with the dtypes that NumPy says they have."""
    return [(name, Piece(array, tf.as_dtype(array.dtype).name)) for name, array in arrays.items()]


def save_v2(prefix: Path, *shards: Pieces) -> None:
    """Write a checkpoint, each list of tensors into a data file of its own, as `tf.train.Saver` does it."""
    parts = [str(prefix.with_name(f"{prefix.name}_temp") / f"part-{rank:05d}") for rank in range(len(shards))]
    for part, shard in zip(parts, shards, strict=True):
        tf.raw_ops.SaveV2(
            prefix=part,
            tensor_names=[name for name, _ in shard],
            shape_and_slices=[piece.where for _, piece in shard],
            tensors=[piece.tensor() for _, piece in shard],
        )
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(prefix), delete_old_dirs=True)


def save_v1(path: Path, shard: Pieces) -> None:
    """Write a file of V1."""
    tf.raw_ops.SaveSlices(
        filename=str(path),
        tensor_names=[name for name, _ in shard],
        shapes_and_slices=[piece.where for _, piece in shard],
        data=[piece.tensor() for _, piece in shard],
    )


def load(prefix: Path) -> dict[str, Piece]:
    """All that TensorFlow finds in a checkpoint, whole."""
    reader = tf.train.load_checkpoint(str(prefix))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    found = {}
    for name, dtype in dtypes.items():
        (tensor,) = tf.raw_ops.RestoreV2(prefix=str(prefix), tensor_names=[name], shape_and_slices=[""], dtypes=[dtype])
        assert list(tensor.shape) == shapes[name], name
        found[name] = Piece(_array(tensor), dtype.name)
    return found


def load_slice(prefix: Path, name: str, dtype: str, where: str) -> Array:
    """A slice of a tensor, which may cut across those that were written."""
    (tensor,) = tf.raw_ops.RestoreV2(
        prefix=str(prefix), tensor_names=[name], shape_and_slices=[where], dtypes=[tf.as_dtype(dtype)]
    )
    return _array(tensor)


def _array(tensor: Any) -> Array:
    if tensor.dtype.name in QUANTIZED:
        tensor = tf.bitcast(tensor, tf.as_dtype(QUANTIZED[tensor.dtype.name]))
    return np.asarray(tensor.numpy(), object if tensor.dtype == tf.string else None)


@contextlib.contextmanager
def session(initial: Mapping[str, Array]) -> Iterator[Any]:
    """A graph with these variables, and a session in which they are initialised: as a program of TensorFlow 1 has it."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as opened:
        for name, array in initial.items():
            tf.compat.v1.get_variable(name, initializer=tf.constant(array))
        opened.run(tf.compat.v1.global_variables_initializer())
        yield opened


def values(opened: Any) -> dict[str, Array]:
    """What the variables of a session hold."""
    variables = {variable.op.name: variable for variable in tf.compat.v1.global_variables()}
    return {name: np.asarray(value) for name, value in opened.run(variables).items()}


def assign(opened: Any, arrays: Mapping[str, Array]) -> None:
    """Change variables of a session."""
    for variable in tf.compat.v1.global_variables():
        if variable.op.name in arrays:
            variable.load(arrays[variable.op.name], opened)
