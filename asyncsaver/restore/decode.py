"""Decode: from the bytes of a chunk that are not its elements to where those belong."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.model.dtypes import Array
from asyncsaver.model.foreign import Encoding


@dataclass(frozen=True, slots=True)
class Decoding:
    """What is to be done with the bytes of a chunk once they are there.

    Attributes:
        tensor: it belongs to, for messages.
        shape: of the chunk.
        encoding: of the chunk.
        inside: which of its elements are wanted.
        into: where they go.
    """

    tensor: str
    shape: tuple[int, ...]
    encoding: Encoding
    inside: tuple[slice, ...]
    into: Array

    @property
    def nbytes(self) -> int:
        """What the whole chunk takes in memory when decoded; of strings, their references."""
        return prod(self.shape) * self.into.dtype.itemsize

    def decode(self, data: memoryview, where: str, path: str) -> None:
        """Do it. Blocking.

        Args:
            data: all bytes of the chunk.
            where: file and range, for messages.
            path: of the file.

        Raises:
            CheckpointCorruptError: they cannot be decoded.
        """
        try:
            chunk = self.encoding.decode(data.toreadonly(), self.into.dtype, self.shape)
        except CheckpointCorruptError as error:
            raise CheckpointCorruptError(
                f"{where}: tensor {self.tensor!r}: {error}", path=path, tensors=[self.tensor]
            ) from error
        index: tuple[Any, ...] = (*self.inside, ...)
        self.into[...] = chunk[index]
