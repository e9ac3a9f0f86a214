"""The description of a checkpoint while it is being put together."""

from __future__ import annotations

from collections.abc import Sequence

from asyncsaver.errors import CheckpointCorruptError, ManifestError
from asyncsaver.formats.tensorflow.dtypes import TensorFlowType, type_of
from asyncsaver.formats.tensorflow.messages import Shape, shape_problem
from asyncsaver.model.dtypes import DType
from asyncsaver.model.foreign import NO_CRC, Encoding, Foreign
from asyncsaver.model.manifest import Chunk, FileEntry, TensorEntry
from asyncsaver.model.merge import check_coverage


class Sheet:
    """Collects what a `Foreign` consists of.

    Attributes:
        encodings: tensor → how its chunks are to be decoded.
    """

    def __init__(self) -> None:
        self.encodings: dict[str, Encoding | Sequence[Encoding]] = {}
        self._files: list[FileEntry] = []
        self._tensors: dict[str, TensorEntry] = {}
        self._dtypes: dict[str, DType] = {}
        self._unreadable: dict[str, str] = {}
        self._types: dict[int, TensorFlowType] = {}

    def add_file(self, path: str, size: int) -> int:
        """Note a file; returns its position."""
        self._files.append(FileEntry(path, size, NO_CRC))
        return len(self._files) - 1

    def add_tensor(self, name: str, dtype: int, shape: Shape) -> TensorFlowType:
        """Note a tensor, until more is known without chunks; returns what TensorFlow's number of its dtype means."""
        kind = self._types.get(dtype) or self._types.setdefault(dtype, type_of(dtype))
        self._tensors[name] = TensorEntry(kind.name, shape, ())
        if not kind.known:
            self._dtypes[name] = kind.dtype
        return kind

    def set_whole(self, name: str, chunk: Chunk) -> None:
        """Note that a tensor is stored in one piece."""
        entry = self._tensors[name]
        self._tensors[name] = TensorEntry(entry.dtype, entry.shape, (chunk,))

    def set_slices(self, name: str, chunks: Sequence[Chunk]) -> None:
        """Note that a tensor is stored in slices, none of which is empty.

        Raises:
            CheckpointCorruptError: they overlap, or leave holes.
        """
        entry = self._tensors[name]
        entry = TensorEntry(entry.dtype, entry.shape, tuple(chunks))
        try:
            check_coverage(name, entry)
        except ManifestError as error:
            raise CheckpointCorruptError(str(error).removeprefix(f"tensor {name!r}: ")) from error
        self._tensors[name] = entry

    def set_unreadable(self, name: str, why: str) -> None:
        """Note that a tensor cannot be read. What it would take memory to hold it does not matter then."""
        entry = self._tensors[name]
        shape = () if shape_problem(entry.shape) else entry.shape
        self._tensors[name] = TensorEntry(entry.dtype, shape, ())
        self._unreadable[name] = why
        self.encodings.pop(name, None)

    def foreign(self, name: str, step: int | None) -> Foreign:
        """The description."""
        return Foreign(
            format="tensorflow", name=name, step=step, files=self._files, tensors=self._tensors, dtypes=self._dtypes,
            encodings=self.encodings, unreadable=self._unreadable,
        )  # fmt: skip
