"""Whether what a record says of its files and tensors is possible. Whatever is not is a `ManifestError`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from asyncsaver.errors import ManifestError
from asyncsaver.model.dtypes import dtype_from_name
from asyncsaver.model.manifest import LARGEST, FileEntry, TensorEntry
from asyncsaver.model.names import check_relative

_MAX_AXES = 64


def check_files(files: Sequence[FileEntry], where: str) -> None:
    """Check the files that the document ``where`` lists."""
    for file in files:
        check_relative(file.path, where)
        if not 0 <= file.size <= LARGEST:
            raise ManifestError(f"{where}: {file.path} cannot have {file.size} bytes", path=where)


def check_tensors(
    tensors: dict[str, TensorEntry], files: Sequence[FileEntry], where: str
) -> list[tuple[str, TensorEntry]]:
    """Check dtypes, shapes, and that every chunk has bytes within its file.

    Returns:
        Those whose coverage is not clear yet. All others are one chunk that is the whole tensor.
    """
    unclear: list[tuple[str, TensorEntry]] = []
    sizes = [file.size for file in files]
    count = len(sizes)
    # Few dtypes and shapes occur, however many tensors there are: bytes and first position of a whole tensor of that kind.
    whole: dict[tuple[str, tuple[int, ...]], tuple[int, tuple[int, ...]]] = {}
    for name, entry in tensors.items():
        shape = entry.shape
        kind = (entry.dtype, shape)
        known = whole.get(kind)
        if known is None:
            known = whole[kind] = (_plain_bytes(entry, where, name), (0,) * len(shape))
        if len(entry.chunks) == 1:
            [chunk] = entry.chunks
            start = chunk.start
            if (
                chunk.stop - start == known[0]
                and chunk.shape == shape
                and chunk.offset == known[1]
                and 0 <= chunk.file < count
                and 0 <= start < chunk.stop <= sizes[chunk.file]
            ):
                continue
        problem = _problem(entry, files, dtype_from_name(entry.dtype).itemsize)
        if problem:
            raise ManifestError(f"{where}: tensor {name!r}: {problem}", path=where, tensors=[name])
        unclear.append((name, entry))
    return unclear


def _plain_bytes(entry: TensorEntry, where: str, name: str) -> int:
    """How many bytes the tensor has; -1 where it has none, or an impossible shape."""
    try:
        itemsize = dtype_from_name(entry.dtype).itemsize
    except (TypeError, ValueError) as error:
        raise ManifestError(f"{where}: tensor {name!r}: {error}", path=where, tensors=[name]) from error
    possible = len(entry.shape) <= _MAX_AXES and min(entry.shape, default=1) > 0
    return itemsize * math.prod(entry.shape) if possible else -1


def _problem(entry: TensorEntry, files: Sequence[FileEntry], itemsize: int) -> str:
    # NumPy refuses shapes whose axes are too long together even where one of them is 0.
    extent = itemsize * math.prod(size or 1 for size in entry.shape[:_MAX_AXES])
    if len(entry.shape) > _MAX_AXES or any(size < 0 for size in entry.shape) or extent > LARGEST:
        return f"impossible shape {list(entry.shape)[:8]}"
    for chunk in entry.chunks:
        if not 0 <= chunk.file < len(files):
            return f"a chunk is in file {chunk.file} of {len(files)}"
        if not 0 <= chunk.start <= chunk.stop <= files[chunk.file].size:
            return f"bytes {chunk.start} to {chunk.stop} are not within {files[chunk.file].path}"
        if any(size < 0 for size in chunk.shape) or chunk.stop - chunk.start != itemsize * math.prod(chunk.shape):
            return f"{chunk.stop - chunk.start} bytes cannot be {entry.dtype}{list(chunk.shape)}"
    return ""
