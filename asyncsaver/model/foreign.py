"""Checkpoints of other libraries, described in our own terms, so that one reader serves them all. Data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from asyncsaver.model.dtypes import Array, DType
from asyncsaver.model.manifest import FileEntry, Json, TensorEntry

NO_CRC = ""
"""`FileEntry.crc32c` of a file whose checksum nobody has written down."""


STRING = "string"
"""`TensorEntry.dtype` of tensors whose elements are `bytes`."""


GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The tensor, a string, in which a checkpoint of ``tf.train.Checkpoint`` has its object graph."""


class Encoding(Protocol):
    """How the bytes of a chunk stand on storage where they are not the elements, little-endian, in C order."""

    @property
    def checked(self) -> bool:
        """Whether decoding compares the bytes with a checksum that stands among them."""
        ...

    def decode(self, data: memoryview, dtype: DType, shape: tuple[int, ...]) -> Array:
        """Make the chunk from its bytes. Blocking; takes no more memory than a few times what ``data`` and the result take.

        Args:
            data: all bytes of the chunk, read-only.
            dtype: of the tensor: `object` for strings, whose elements become `bytes`.
            shape: of the chunk.

        Raises:
            CheckpointCorruptError: the bytes are not what was written, or no such chunk; names neither file nor tensor.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """One checkpoint of another library.

    Attributes:
        format: whose, such as "tensorflow".
        name: of the checkpoint: the last part of its path.
        step: that its name ends in, or None.
        files: that hold tensors, by path relative to the store; `NO_CRC` where there is no checksum.
        tensors: name → dtype, shape and chunks. The dtype may also be `STRING`, or, where NumPy has none
            of it, the other library's own name, which is in `dtypes` then.
        dtypes: tensor → what NumPy makes of it, for those whose `TensorEntry.dtype` `model.dtypes` does not know.
        encodings: tensor → how its chunks are to be decoded, for those whose bytes are not plain: one for all, or one for each.
        unreadable: tensor → why it cannot be read: damaged in a way that touches it alone, or of a kind without data. It is
            in `tensors` all the same.
        tree: as in a manifest; None for a flat dict of all tensors.
        metadata: JSON for the reader's ``metadata``.
    """

    format: str
    name: str
    step: int | None
    files: list[FileEntry]
    tensors: dict[str, TensorEntry]
    dtypes: Mapping[str, DType] = field(default_factory=dict)
    encodings: Mapping[str, Encoding | Sequence[Encoding]] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    tree: Json = None
    metadata: Json = None

    def encoding(self, tensor: str, chunk: int) -> Encoding | None:
        """How a chunk, by its position, is to be decoded; None where its bytes are plain."""
        encoding = self.encodings.get(tensor)
        return encoding[chunk] if isinstance(encoding, Sequence) else encoding
