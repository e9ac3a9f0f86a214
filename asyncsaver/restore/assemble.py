"""Assemble: from the chunks of a tensor to the array, or the box of one, that somebody wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncsaver.model.dtypes import Array, DType
from asyncsaver.model.manifest import TensorEntry
from asyncsaver.model.slices import byte_range, overlap, smallest_run
from asyncsaver.restore.fetch import Need, byte_view


@dataclass(frozen=True, slots=True)
class Paste:
    """What is left to do once everything is read: ``into[...] = data``."""

    into: Array
    data: Array


def needs_of_box(
    name: str, entry: TensorEntry, dtype: DType, offset: Sequence[int], into: Array, *, verify: bool
) -> tuple[list[Need], list[Paste]]:
    """What to read for a box of a tensor, straight into its memory where that is contiguous.

    Args:
        name: of the tensor.
        entry: of the manifest.
        dtype: as stored.
        offset: of the box in the tensor, per axis.
        into: C-contiguous memory of the box: its shape is the box's, its dtype as stored.
        verify: whether chunks that are needed whole are to be checked. Of a chunk needed in part only that part is read,
            and there is nothing to check it against.
    """
    needs: list[Need] = []
    pastes: list[Paste] = []
    for chunk in entry.chunks:
        shared = overlap(chunk.offset, chunk.shape, offset, into.shape)
        if shared is None:
            if not into.size and chunk.shape == into.shape and verify:
                needs.append(Need(name, chunk.file, chunk.start, chunk.stop, byte_view(into), chunk.xxh3_128))
            continue
        inside = tuple(
            slice(part.start - start, part.stop - start) for part, start in zip(shared, chunk.offset, strict=True)
        )
        run = smallest_run(chunk.shape, inside)
        start, stop = byte_range(chunk.shape, run, dtype.itemsize)
        whole = run.shape == chunk.shape
        corner = [slice(part.start - low, part.stop - low) for part, low in zip(shared, offset, strict=True)]
        index: tuple[Any, ...] = (*corner, ...)  # without the ellipsis, NumPy copies the element of a 0-d array
        place = into[index]
        if run.shape == place.shape and place.flags.c_contiguous:
            memory = place
        else:
            memory = np.empty(run.shape, dtype)
            pastes.append(Paste(place, memory[run.index]))
        digest = chunk.xxh3_128 if verify and whole else None
        needs.append(Need(name, chunk.file, chunk.start + start, chunk.start + stop, byte_view(memory), digest))
    return needs, pastes


def files_of_box(entry: TensorEntry, offset: Sequence[int], shape: tuple[int, ...]) -> set[int]:
    """Positions of the files that a box of a tensor is read from."""
    return {
        chunk.file
        for chunk in entry.chunks
        if overlap(chunk.offset, chunk.shape, offset, shape) is not None or (chunk.shape == shape and 0 in shape)
    }


def paste_all(pastes: Sequence[Paste]) -> None:
    """Carry out what `needs_of_box` has left to do. Blocking."""
    for paste in pastes:
        paste.into[...] = paste.data
