"""Chunks whose axes lie in another order than in C, as PyTorch saves what was transposed. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.model.dtypes import Array, DType


@dataclass(frozen=True, slots=True)
class Transposed:
    """An `asyncsaver.model.foreign.Encoding`.

    Attributes:
        order: the axes as they lie in memory, the slowest first.
    """

    order: tuple[int, ...]

    @property
    def checked(self) -> bool:
        """As `Encoding` says."""
        return False

    def decode(self, data: memoryview, dtype: DType, shape: tuple[int, ...]) -> Array:
        """See `asyncsaver.model.foreign.Encoding`."""
        if len(shape) != len(self.order) or math.prod(shape) * dtype.itemsize != len(data):
            raise CheckpointCorruptError(f"{len(data)} bytes cannot be {dtype.name}{list(shape)}")
        lying = np.frombuffer(data, dtype).reshape([shape[axis] for axis in self.order])
        return np.ascontiguousarray(lying.transpose(np.argsort(self.order)))


def order_of(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...] | None:
    """The order of axes, the slowest first, in which elements stand together; None where there is none.

    The usual one where it is right: an axis of length 1 may be anywhere, so that there can be several.

    Args:
        shape: of the chunk.
        strides: in elements, per axis.
    """
    usual = tuple(range(len(shape)))
    for order in (usual, tuple(sorted(usual, key=lambda axis: (-strides[axis], -shape[axis])))):
        if _dense(shape, strides, order):
            return order
    return None


def _dense(shape: Sequence[int], strides: Sequence[int], order: Sequence[int]) -> bool:
    if 0 in shape:
        return True
    expected = 1
    for axis in reversed(order):
        if shape[axis] != 1 and strides[axis] != expected:
            return False
        expected *= shape[axis]
    return True
