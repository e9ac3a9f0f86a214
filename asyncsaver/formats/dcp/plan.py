"""Which places of a PyTorch Distributed Checkpoint are to be looked at. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from asyncsaver.errors import ManifestError
from asyncsaver.formats.dcp.items import Item
from asyncsaver.formats.dcp.metadata import Described, Metadata, Piece, Place, numpy_name
from asyncsaver.formats.folder import Folder
from asyncsaver.model.dtypes import DType, dtype_from_name


@dataclass(frozen=True, slots=True)
class Plan:
    """What to look at.

    Attributes:
        items: in the order of the files, each place once, and none that reaches into another.
        refused: places that are not looked at, and why.
    """

    items: Sequence[Item]
    refused: Mapping[Place, str]


def plan_items(folder: Folder, metadata: Metadata) -> Plan:
    """Choose. Blocking."""
    items: list[Item] = []
    refused: dict[Place, str] = {}
    for place, name, is_value in sorted(_places(metadata), key=lambda entry: (entry[0].file, entry[0].start)):
        problem = _problem(folder, place)
        path = folder.prefix + place.file
        before = items[-1] if items else None
        if not problem and before is not None and before.file == path and place.start < before.stop:
            if place.start == before.start and not is_value and not before.is_value:
                continue  # those of a safetensors file all begin with it; of an archive, only one of them fits
            problem = f"its place is also that of {before.name[:200]!a}"
        if problem:
            refused[place] = problem
        else:
            items.append(Item(name, path, place.start, place.start + place.length, is_value))
    return Plan(items, refused)


def numpy_dtype(name: str) -> DType | None:
    """What a dtype of PyTorch is in NumPy; None where it has none that lies in memory like it."""
    try:
        return dtype_from_name(numpy_name(name))
    except ManifestError:
        return None


def pieces_of(tensor: Described) -> tuple[Piece, ...]:
    """The pieces that matter: all that hold something; of a tensor that holds nothing itself, one that is all of it."""
    if 0 in tensor.shape:
        return tuple(piece for piece in tensor.pieces if piece.shape == tensor.shape)[:1]
    return tuple(piece for piece in tensor.pieces if 0 not in piece.shape)


def _places(metadata: Metadata) -> Iterator[tuple[Place, str, bool]]:
    for name in metadata.values:
        place = metadata.places.get((name, None))
        if place is not None:
            yield place, name, True
    for name, tensor in metadata.tensors.items():
        for piece in pieces_of(tensor):
            place = metadata.places.get((name, piece.offset))
            if place is not None:
                yield place, name, False


def _problem(folder: Folder, place: Place) -> str:
    """Why a place is not looked at; "" where it is."""
    if place.transformed:
        return f"it was transformed on its way to storage ({place.transformed})"
    try:
        path = folder.path(place.file, ".metadata")
    except ManifestError as error:
        return str(error)
    size = folder.sizes.get(place.file)
    if size is None:
        return f"its file {path} is missing"
    if place.start + place.length > size:
        return f"bytes {place.start} to {place.start + place.length} are not within {path}, which has {size}"
    return ""
