"""The state that everybody saves: made in each process from its description, and checked after each restore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, "np.ndarray[Any, np.dtype[Any]]"]


@dataclass(frozen=True, slots=True)
class Shape:
    """How many tensors of float32, and how large each is in bytes."""

    tensors: int
    tensor_bytes: int

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        return self.tensors * self.tensor_bytes

    def state(self) -> Arrays:
        """No two tensors are alike."""
        block = self._block()
        return {_name(index): _tensor(block, index) for index in range(self.tensors)}

    def target(self) -> Arrays:
        """Something to restore into, in memory that is there already."""
        return {_name(index): np.ones(self.tensor_bytes // 4, np.float32) for index in range(self.tensors)}

    def check(self, restored: Any) -> None:
        """Raise `ValueError` unless it is this state, bit by bit."""
        block = self._block()
        if len(restored) < self.tensors:
            raise ValueError(f"{len(restored)} tensors of {self.tensors} came back")
        for index in range(self.tensors):
            found, wanted = np.asarray(restored[_name(index)]), _tensor(block, index)
            if found.dtype != wanted.dtype or not np.array_equal(found.view(np.uint32), wanted.view(np.uint32)):
                raise ValueError(f"{_name(index)} came back as something else")

    def _block(self) -> np.ndarray[Any, np.dtype[Any]]:
        return np.random.default_rng(0).random(self.tensor_bytes // 4, dtype=np.float32).view(np.uint32)


def _name(index: int) -> str:
    return f"layer{index // 100}.{index % 100}"


def _tensor(block: np.ndarray[Any, np.dtype[Any]], index: int) -> np.ndarray[Any, np.dtype[Any]]:
    bits: np.ndarray[Any, np.dtype[np.uint32]] = np.bitwise_xor(block, np.uint32(index))
    return bits.view(np.float32)
