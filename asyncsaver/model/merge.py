"""Merging parts into one manifest's tensors and files, and refusing what is incomplete. Pure; can be repeated."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from asyncsaver.errors import ManifestError, RanksMissingError
from asyncsaver.model.manifest import Chunk, FileEntry, Part, TensorEntry


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
    for _, part in sorted(by_rank.items()):
        base = len(files)
        for file in part.files:
            if file.path in seen:
                raise ManifestError(f"save {save_id}: two ranks wrote {file.path}", path=file.path)
            seen.add(file.path)
            files.append(file)
        for name, entry in part.tensors.items():
            chunks = [_moved(chunk, base) for chunk in entry.chunks]
            earlier = merged.get(name)
            if earlier is None:
                merged[name] = TensorEntry(entry.dtype, entry.shape, chunks)
            elif (earlier.dtype, earlier.shape) != (entry.dtype, entry.shape):
                raise ManifestError(
                    f"save {save_id}: rank {part.rank} has {name!r} as {entry.dtype}{list(entry.shape)}, "
                    f"an earlier one as {earlier.dtype}{list(earlier.shape)}"
                )
            else:
                earlier.chunks.extend(chunks)
    for name, entry in merged.items():
        check_coverage(name, entry)
    return files, merged


def _moved(chunk: Chunk, base: int) -> Chunk:
    if base == 0:
        return chunk
    return Chunk(chunk.offset, chunk.shape, chunk.file + base, chunk.start, chunk.stop, chunk.xxh3_128)


def check_coverage(name: str, entry: TensorEntry) -> None:
    """Raise `ManifestError` unless the chunks cover every element of the tensor exactly once.

    Linear in the number of chunks, unless they split the tensor along many axes.
    """
    shape = entry.shape
    if len(entry.chunks) == 1 and entry.chunks[0].shape == shape and entry.chunks[0].offset == (0,) * len(shape):
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
    if not _tiles(entry) and (clash := _overlap(entry.chunks)) is not None:
        raise ManifestError(f"tensor {name!r}: chunks at {list(clash[0].offset)} and {list(clash[1].offset)} overlap")


def _tiles(entry: TensorEntry) -> bool:
    """Whether the chunks, all within the tensor, cover it exactly once; False also where telling would take too long.

    Boxes add up to one large box just if their corners do, each counted with a sign that changes along every edge: inside of a
    tiling the signs cancel out. Along axes that no chunk splits there is nothing to cancel.
    """
    axes = [axis for axis, size in enumerate(entry.shape) if any(chunk.shape[axis] != size for chunk in entry.chunks)]
    if 2 ** len(axes) > len(entry.chunks):
        return False
    corners: Counter[tuple[int, ...]] = Counter()
    whole = Chunk((0,) * len(entry.shape), entry.shape, 0, 0, 0, "")
    for box, weight in ((whole, -1), *((chunk, 1) for chunk in entry.chunks)):
        edges = [((box.offset[axis], 1), (box.offset[axis] + box.shape[axis], -1)) for axis in axes]
        for corner in itertools.product(*edges):
            corners[tuple(at for at, _ in corner)] += weight * math.prod(sign for _, sign in corner)
    return not any(corners.values())


def _overlap(chunks: Sequence[Chunk]) -> tuple[Chunk, Chunk] | None:
    active: list[Chunk] = []
    for chunk in sorted(chunks, key=lambda chunk: chunk.offset):
        active = [other for other in active if other.offset[0] + other.shape[0] > chunk.offset[0]]
        for other in active:
            if all(
                a < b + n and b < a + m
                for a, m, b, n in zip(chunk.offset, chunk.shape, other.offset, other.shape, strict=True)
            ):
                return other, chunk
        active.append(chunk)
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
