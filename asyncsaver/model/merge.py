"""Merging parts into one manifest's tensors and files, and refusing what is incomplete. Pure; can be repeated."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence

from asyncsaver.errors import ManifestError, RanksMissingError
from asyncsaver.model.manifest import Chunk, FileEntry, Part, TensorEntry
from asyncsaver.model.slices import overlap

_PRIME = 2**61 - 1
_COMPARISONS = 1_000_000  # of chunks with each other, only to name two: about a second


def merge_parts(
    parts: Sequence[Part], *, save_id: str, world_size: int
) -> tuple[list[FileEntry], dict[str, TensorEntry]]:
    """Join what the ranks have written.

    Args:
        parts: one a rank, in any order.
        save_id: the attempt they must belong to.
        world_size: how many there must be.

    Returns:
        All files, by path, and all tensors with their chunks pointing into those files.

    Raises:
        RanksMissingError: some rank has no part.
        ManifestError: a part of another save, of an impossible rank or twice the same rank; two ranks that wrote one file;
            ranks that disagree about a tensor; a tensor that is not covered exactly once.
    """
    by_rank: dict[int, Part] = {}
    for part in parts:
        if part.save_id != save_id or part.world_size != world_size:
            raise ManifestError(f"part of rank {part.rank} belongs to save {part.save_id}, not {save_id}")
        if not 0 <= part.rank < world_size:
            raise ManifestError(f"save {save_id}: a part says that it is rank {part.rank}'s of {world_size}")
        if part.rank in by_rank:
            raise ManifestError(f"save {save_id}: two parts say that they are rank {part.rank}'s")
        by_rank[part.rank] = part
    missing = [rank for rank in range(world_size) if rank not in by_rank]
    if missing:
        raise RanksMissingError(f"save {save_id}: no part from ranks {missing} of {world_size}")

    files: list[FileEntry] = []
    seen: set[str] = set()
    merged: dict[str, TensorEntry] = {}
    spread: dict[str, list[Chunk]] = {}  # of tensors in several parts
    for _, part in sorted(by_rank.items()):
        base = len(files)
        for file in part.files:
            if file.path in seen:
                raise ManifestError(f"save {save_id}: two ranks wrote {file.path}", path=file.path)
            seen.add(file.path)
            files.append(file)
        if not merged and not base:
            merged.update(part.tensors)
            continue
        for name, entry in part.tensors.items():
            chunks = tuple([_moved(chunk, base) for chunk in entry.chunks])
            earlier = merged.get(name)
            if earlier is None:
                merged[name] = TensorEntry(entry.dtype, entry.shape, chunks)
            elif (earlier.dtype, earlier.shape) != (entry.dtype, entry.shape):
                raise ManifestError(
                    f"save {save_id}: rank {part.rank} has {name!r} as {entry.dtype}{list(entry.shape)}, "
                    f"an earlier one as {earlier.dtype}{list(earlier.shape)}"
                )
            else:
                spread.setdefault(name, [*earlier.chunks]).extend(chunks)
    for name, together in spread.items():
        merged[name] = TensorEntry(merged[name].dtype, merged[name].shape, tuple(together))
    for name, entry in merged.items():
        check_coverage(name, entry)
    return files, merged


def _moved(chunk: Chunk, base: int) -> Chunk:
    return Chunk(chunk.offset, chunk.shape, chunk.file + base, chunk.start, chunk.stop, chunk.xxh3_128)


def check_coverage(name: str, entry: TensorEntry) -> None:
    """Raise `ManifestError` unless the chunks cover every element of the tensor exactly once.

    Linear in the number of chunks, however they split the tensor.
    """
    shape = entry.shape
    if len(entry.chunks) == 1:
        [chunk] = entry.chunks
        if chunk.shape == shape and len(chunk.offset) == len(shape) and not any(chunk.offset):
            return
    covered = 0
    for chunk in entry.chunks:
        inside = len(chunk.offset) == len(chunk.shape) == len(shape) and all(
            start >= 0 and length > 0 and start + length <= size
            for start, length, size in zip(chunk.offset, chunk.shape, shape, strict=True)
        )
        if not inside:
            raise ManifestError(
                f"tensor {name!r}: a chunk at {list(chunk.offset)} of shape {list(chunk.shape)} is outside {list(shape)}"
            )
        covered += math.prod(chunk.shape)
    if covered != math.prod(shape):
        raise ManifestError(f"tensor {name!r}: chunks hold {covered} of its {math.prod(shape)} elements")
    if entry.chunks and not _tiles(entry):
        clash = _overlap(entry.chunks)
        which = "" if clash is None else f" at {list(clash[0].offset)} and {list(clash[1].offset)}"
        raise ManifestError(f"tensor {name!r}: chunks{which} overlap")


def _tiles(entry: TensorEntry) -> bool:
    """Whether the chunks, all within the tensor, cover it exactly once.

    Weighs them instead of comparing them with each other: each position along each axis gets a random weight, and an element
    the product of those of its positions. If the chunks cover each element once, they weigh together what the tensor weighs. If
    not, the difference is a polynomial in the weights that is not zero, of a degree of at most one an axis, and happens to
    vanish with a probability below 2**-55 (Schwartz and Zippel). Nobody can prepare for weights that are drawn anew each time.
    """
    whole, weights = 1, [1] * len(entry.chunks)
    for axis, size in enumerate(entry.shape):
        if all(chunk.shape[axis] == size for chunk in entry.chunks):
            continue  # a factor that all have in common
        # The weight of all positions before an edge, so that two edges give the weight of what is between them.
        before = {edge: secrets.randbelow(_PRIME) for edge in _edges(entry, axis)}
        whole = whole * (before[size] - before[0]) % _PRIME
        weights = [
            weight * (before[chunk.offset[axis] + chunk.shape[axis]] - before[chunk.offset[axis]]) % _PRIME
            for weight, chunk in zip(weights, entry.chunks, strict=True)
        ]
    return sum(weights) % _PRIME == whole


def _edges(entry: TensorEntry, axis: int) -> set[int]:
    edges = {0, entry.shape[axis]}
    for chunk in entry.chunks:
        edges.update((chunk.offset[axis], chunk.offset[axis] + chunk.shape[axis]))
    return edges


def _overlap(chunks: Sequence[Chunk]) -> tuple[Chunk, Chunk] | None:
    """Two chunks that overlap, to be named; None where finding them would take too long."""
    by_offset: dict[tuple[int, ...], Chunk] = {}
    for chunk in chunks:
        if chunk.offset in by_offset:
            return by_offset[chunk.offset], chunk
        by_offset[chunk.offset] = chunk
    axis = max(range(len(chunks[0].shape)), key=lambda axis: len({chunk.offset[axis] for chunk in chunks}))
    active: list[Chunk] = []
    compared = 0
    for chunk in sorted(chunks, key=lambda chunk: chunk.offset[axis]):
        active = [other for other in active if other.offset[axis] + other.shape[axis] > chunk.offset[axis]]
        for other in active:
            if overlap(chunk.offset, chunk.shape, other.offset, other.shape) is not None:
                return other, chunk
        active.append(chunk)
        compared += len(active)
        if compared > _COMPARISONS:
            break
    return None


def check_sizes(files: Sequence[FileEntry], found: Mapping[str, int]) -> None:
    """Raise `ManifestError` unless every file stands on the store with the size that its writer recorded.

    Args:
        files: as merged.
        found: path → size in bytes, as the store lists them.
    """
    for file in files:
        size = found.get(file.path)
        if size is None:
            raise ManifestError(f"{file.path}: written, but the store does not list it", path=file.path)
        if size != file.size:
            raise ManifestError(f"{file.path}: {size} bytes on the store, {file.size} were written", path=file.path)
