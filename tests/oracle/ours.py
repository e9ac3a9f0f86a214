"""asyncsaver, and how what it finds is compared with what TensorFlow finds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from asyncsaver import open_checkpoint
from asyncsaver.formats.tensorflow.bundle import Index, decode_index

from .theirs import Array, Piece


async def load(prefix: Path) -> dict[str, Piece]:
    """All that we find in a checkpoint, whole."""
    async with await open_checkpoint(prefix) as reader:
        assert not (await reader.verify()).unverified
        return {name: Piece(await reader.read(name), info.dtype_name) for name, info in reader.tensors.items()}


def assert_equal(found: Array, wanted: Array, name: str = "") -> None:
    """The same dtype, shape and bits."""
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape), name
    if found.dtype.hasobject:
        assert found.tolist() == wanted.tolist(), name
    else:
        assert found.tobytes() == wanted.tobytes(), name


def assert_same(found: Mapping[str, Piece], expected: Mapping[str, Piece]) -> None:
    """The same names, and of each the same dtype, shape and bits."""
    assert found.keys() == expected.keys()
    for name, piece in found.items():
        assert piece.dtype == expected[name].dtype, name
        assert_equal(piece.array, expected[name].array, name)


def names_in(folder: Path, pattern: str = "[!.]*") -> list[str]:
    """What is in a folder, but for what begins with a dot."""
    return sorted(path.name for path in folder.glob(pattern))


def files_of(prefix: Path) -> dict[str, bytes]:
    """The files of a checkpoint, by what their names add to the prefix."""
    return {path.name.removeprefix(prefix.name): path.read_bytes() for path in prefix.parent.glob(f"{prefix.name}.*")}


def index_of(prefix: Path) -> Index:
    """What the index of a checkpoint says."""
    return decode_index(prefix.with_name(f"{prefix.name}.index").read_bytes(), str(prefix))
