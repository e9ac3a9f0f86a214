"""Snapshot: the arrays of a state copied, so that the caller may change them while they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from asyncsaver.aio.tasks import run_all
from asyncsaver.aio.threads import Threads
from asyncsaver.model.dtypes import Array
from asyncsaver.model.flatten import TensorLeaf
from asyncsaver.model.leaves import Adapters, LeafAdapter
from asyncsaver.model.partitioned import Partitioned
from asyncsaver.save.arena import Bytes
from asyncsaver.save.stage import Staged

_BATCH = (
    64 * 2**20
)  # bytes copied in one call of a thread: small enough to share the work, large enough not to notice the call
_ALIGNMENT = 64  # of each array: a line of the cache, and the widest registers


async def snapshot(staged: Staged, adapters: Adapters, threads: Threads, take: Callable[[int], Bytes]) -> Staged:
    """Copy every array that could change, in threads, so that the caller may go on training.

    The copies lie side by side in memory of their own; arrays that are immutable (JAX's) are shared. When cancelled, waits for
    the threads.

    Args:
        staged: the state.
        adapters: for its arrays.
        threads: to copy in.
        take: gives memory of so many bytes, aligned to 64 at least. Called once, in a thread.

    Raises:
        MemoryError: there is no memory.
    """
    tensors = staged.tensors

    def lay_out() -> tuple[list[int | None], Bytes]:
        places, size = _places(tensors, adapters)
        return places, take(size)

    places, memory = await threads.run(lay_out)

    def copy(batch: slice) -> list[TensorLeaf]:
        return [
            tensor if place is None else _copied(tensor, adapters, memory, place)
            for tensor, place in zip(tensors[batch], places[batch], strict=True)
        ]

    copies = await run_all(threads.run(copy, batch) for batch in _batches(tensors))
    return replace(staged, tensors=[tensor for batch in copies for tensor in batch])


def _places(tensors: Sequence[TensorLeaf], adapters: Adapters) -> tuple[list[int | None], int]:
    """Where each copy begins (None for what is shared), and how many bytes they take together.

    No tuple for each: a hundred thousand of them would keep the garbage collector busy for longer than copying takes.
    """
    places: list[int | None] = []
    size = 0
    for tensor in tensors:
        if _owner(tensor, adapters) is None:
            places.append(None)
        else:
            places.append(size)
            size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    return places, size


def _owner(tensor: TensorLeaf, adapters: Adapters) -> LeafAdapter | None:
    """Who gives the data of a tensor that could change; None for one that could not."""
    adapter = adapters.by_kind(tensor.kind)
    return None if adapter is None or adapter.is_immutable(tensor.value) else adapter


def _copied(tensor: TensorLeaf, adapters: Adapters, memory: Bytes, place: int) -> TensorLeaf:
    adapter = adapters.by_kind(tensor.kind)
    if adapter is None:
        raise RuntimeError(f"{tensor.name}: the adapter for {tensor.kind!r} that described it is gone")
    source = adapter.to_numpy(tensor.value)
    if source.nbytes != tensor.nbytes:  # a larger one would run into its neighbour
        raise RuntimeError(f"{tensor.name}: a tensor of {tensor.nbytes} bytes had {source.nbytes} when it was copied")
    array: Array = np.ndarray(source.shape, source.dtype, memory, place)
    array[...] = source  # for small tensors much faster than `numpy.copyto`
    if isinstance(tensor.value, Partitioned):  # whose slices some formats keep
        slices = tensor.value.over(array)
        return TensorLeaf(tensor.name, tensor.dtype, tensor.shape, tensor.nbytes, tensor.kind, slices)
    return TensorLeaf(tensor.name, tensor.dtype, tensor.shape, tensor.nbytes, "numpy", array)


def _batches(tensors: Sequence[TensorLeaf]) -> Iterator[slice]:
    start = filled = 0
    for stop, tensor in enumerate(tensors, 1):
        filled += tensor.nbytes
        if filled >= _BATCH or stop == len(tensors):
            yield slice(start, stop)
            start, filled = stop, 0
