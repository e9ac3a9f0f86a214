"""Numbers as a big-endian machine has left them."""

from __future__ import annotations

from math import prod

import numpy as np

from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.model.dtypes import Array, DType


class BigEndianEncoding:
    """How a chunk of numbers is to be decoded that stands there big-endian."""

    @property
    def checked(self) -> bool:
        """As `Encoding` says."""
        return False

    def decode(self, data: memoryview, dtype: DType, shape: tuple[int, ...]) -> Array:
        """Make the array, little-endian; raises as `Encoding.decode`."""
        if len(data) != dtype.itemsize * prod(shape):
            raise CheckpointCorruptError(f"{len(data)} bytes cannot be {dtype}{list(shape)}")
        # As unsigned integers, since NumPy cannot swap the bytes of what ml_dtypes defines. A complex number is two of them.
        unit = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
        return np.frombuffer(data, f"<u{unit}").byteswap().view(dtype.newbyteorder("<")).reshape(shape)
