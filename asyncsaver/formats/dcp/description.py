"""From what was found to the description of a PyTorch Distributed Checkpoint. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asyncsaver.errors import ManifestError
from asyncsaver.formats.dcp.items import Damage, Found, NoArchive, Value
from asyncsaver.formats.dcp.metadata import Described, Metadata, Piece, Place, numpy_name
from asyncsaver.formats.dcp.plan import numpy_dtype, pieces_of
from asyncsaver.formats.dcp.torch_file import TorchTensor
from asyncsaver.formats.dcp.transposed import Transposed, order_of
from asyncsaver.formats.dcp.values import build_tree
from asyncsaver.formats.folder import Folder
from asyncsaver.formats.safetensors_header import Header
from asyncsaver.model.digests import NO_DIGEST
from asyncsaver.model.dtypes import DType, dtype_from_name
from asyncsaver.model.foreign import NO_CRC, Encoding, Foreign
from asyncsaver.model.leaves import TensorSpec
from asyncsaver.model.manifest import LARGEST, Chunk, FileEntry, TensorEntry
from asyncsaver.model.merge import check_coverage

_Shape = tuple[int, ...]
_OPAQUE = np.dtype("V1")
_OBJECT = np.dtype(object)
_WIDEST = 16  # bytes of an element


class UnreadableError(Exception):
    """A tensor cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A piece of a tensor: its first byte in the file, one past the last that it can have, and its strides in elements."""

    start: int
    limit: int
    strides: _Shape


@dataclass(frozen=True, slots=True)
class Contents:
    """What is where.

    Attributes:
        folder: of the checkpoint.
        refused: places that were not looked at, and why.
        found: by path and first byte, what is there.
        headers: likewise, where a safetensors file begins.
    """

    folder: Folder
    refused: Mapping[Place, str]
    found: Mapping[tuple[str, int], Found]
    headers: Mapping[tuple[str, int], Header | Damage]

    def value(self, place: Place) -> Any:
        """The node of a value.

        Raises:
            UnreadableError: it is not plain, or damaged.
        """
        found = self._at(place)
        if isinstance(found, Value):
            return found.node
        raise UnreadableError(f"{place.file} has no value there that torch.save wrote")

    def piece(self, name: str, tensor: Described, shape: _Shape, itemsize: int, place: Place) -> Stored:
        """Where a piece of a tensor is.

        Raises:
            UnreadableError: something else is there.
        """
        found = self._at(place)
        if isinstance(found, NoArchive):
            return self._in_safetensors(name, tensor.dtype, shape, place)
        if not isinstance(found, TorchTensor):
            raise UnreadableError(f"{place.file} has a value there, no tensor")
        if found.dtype != tensor.dtype or found.shape != shape:
            raise _different(place, f"{found.dtype}{list(found.shape)}", tensor.dtype, shape)
        start = found.start + found.offset * itemsize
        return Stored(place.start + start, place.start + found.stop, found.strides)

    def _in_safetensors(self, name: str, dtype: str, shape: _Shape, place: Place) -> Stored:
        header = self.headers[self.folder.prefix + place.file, place.start]
        if isinstance(header, Damage):
            raise UnreadableError(header.reason)
        stored = header.tensors.get(name)
        if stored is None or stored.dtype != numpy_name(dtype) or stored.shape != shape:
            raise _different(place, "nothing" if stored is None else f"{stored.code}{list(stored.shape)}", dtype, shape)
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        return Stored(stored.start, stored.stop, strides)

    def _at(self, place: Place) -> TorchTensor | Value | NoArchive:
        if place in self.refused:
            raise UnreadableError(self.refused[place])
        found = self.found[self.folder.prefix + place.file, place.start]
        if isinstance(found, Damage):
            raise UnreadableError(found.reason)
        return found


def _different(place: Place, there: str, dtype: str, shape: _Shape) -> UnreadableError:
    return UnreadableError(f"{place.file} has {there[:200]} there, where .metadata says {dtype}{list(shape)}")


@dataclass(frozen=True, slots=True)
class Description:
    """Makes the description, once.

    Args:
        folder: of the checkpoint.
        metadata: of the checkpoint.
        contents: of its files.
    """

    folder: Folder
    metadata: Metadata
    contents: Contents
    _files: dict[str, int] = field(default_factory=dict)  # path → position in the list
    _tensors: dict[str, TensorEntry] = field(default_factory=dict)
    _dtypes: dict[str, DType] = field(default_factory=dict)
    _encodings: dict[str, Encoding | Sequence[Encoding]] = field(default_factory=dict)
    _unreadable: dict[str, str] = field(default_factory=dict)

    def result(self) -> Foreign:
        """The description. Blocking."""
        nodes = {name: self._node(name) for name in self.metadata.order}
        specs = {
            name: TensorSpec(self._dtypes.get(name) or dtype_from_name(entry.dtype), entry.shape)
            for name, entry in self._tensors.items()
        }
        sizes, prefix = self.folder.sizes, len(self.folder.prefix)
        return Foreign(
            format="dcp",
            name=self.folder.name,
            step=self.folder.step,
            files=[FileEntry(path, sizes[path[prefix:]], NO_CRC) for path in self._files],
            tensors=self._tensors,
            dtypes=self._dtypes,
            encodings=self._encodings,
            unreadable=self._unreadable,
            tree=build_tree(nodes, self.metadata.paths, specs),
        )

    def _node(self, name: str) -> Any:
        tensor = self.metadata.tensors.get(name)
        if tensor is not None:
            self._add(name, tensor)
            return {"tensor": name}
        place = self.metadata.places.get((name, None))
        reason = self.metadata.damaged.get(name, "" if place else ".metadata does not say where it is")
        if place is not None and not reason:
            try:
                return self.contents.value(place)
            except UnreadableError as error:
                reason = str(error)
        self._list(name, "object", (), _OBJECT, reason)
        return {"tensor": name}

    def _add(self, name: str, tensor: Described) -> None:
        called, dtype = f"torch.{tensor.dtype}", numpy_dtype(tensor.dtype)
        if math.prod(size or 1 for size in tensor.shape) > LARGEST // _WIDEST:
            self._list(name, called, (), _OPAQUE, f"impossible shape {list(tensor.shape)}")
            return
        if dtype is None:
            reason = f"NumPy has no dtype whose elements lie in memory as those of {called}"
            self._list(name, called, tensor.shape, _OPAQUE, reason)
            return
        try:
            entry, orders = self._chunks(name, tensor, dtype)
            check_coverage(name, entry)
        except (UnreadableError, ManifestError) as error:
            self._tensors[name] = TensorEntry(numpy_name(tensor.dtype), tensor.shape, ())
            self._unreadable[name] = str(error)
            return
        self._tensors[name] = entry
        usual = tuple(range(len(tensor.shape)))
        if any(order != usual for order in orders):
            self._encodings[name] = [Transposed(order) for order in orders]

    def _list(self, name: str, called: str, shape: _Shape, dtype: DType, reason: str) -> None:
        """List what cannot be read for its kind."""
        self._tensors[name] = TensorEntry(called, shape, ())
        self._dtypes[name] = dtype
        self._unreadable[name] = reason

    def _chunks(self, name: str, tensor: Described, dtype: DType) -> tuple[TensorEntry, list[_Shape]]:
        """The tensor, and for each chunk the order in which its axes lie in memory."""
        chunks: list[Chunk] = []
        orders: list[_Shape] = []
        for piece in pieces_of(tensor):
            place = self.metadata.places.get((name, piece.offset))
            if place is None:
                raise UnreadableError(f".metadata does not say where its chunk at {list(piece.offset)} is")
            stored = self.contents.piece(name, tensor, piece.shape, dtype.itemsize, place)
            order = order_of(piece.shape, stored.strides)
            if order is None:
                raise UnreadableError(f"the elements of its chunk at {list(piece.offset)} do not stand together")
            chunks.append(self._chunk(piece, stored, place, dtype))
            orders.append(order)
        if not chunks:
            raise UnreadableError("it has no chunks")
        return TensorEntry(numpy_name(tensor.dtype), tensor.shape, tuple(chunks)), orders

    def _chunk(self, piece: Piece, stored: Stored, place: Place, dtype: DType) -> Chunk:
        nbytes = math.prod(piece.shape) * dtype.itemsize
        if stored.start + nbytes > stored.limit:
            raise UnreadableError(f"the {nbytes} bytes of its chunk at {list(piece.offset)} end beyond their storage")
        number = self._files.setdefault(self.folder.prefix + place.file, len(self._files))
        return Chunk(piece.offset, piece.shape, number, stored.start, stored.start + nbytes, NO_DIGEST)
