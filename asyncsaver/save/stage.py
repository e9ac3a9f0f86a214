"""Stage: from the caller's state to a tree and tensors that may be written later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asyncsaver.aio.tasks import run_all
from asyncsaver.aio.threads import Threads
from asyncsaver.errors import InvalidStateError
from asyncsaver.formats.safetensors import encode_header
from asyncsaver.model.flatten import TensorLeaf, flatten
from asyncsaver.model.leaves import Adapters
from asyncsaver.model.manifest import Json
from asyncsaver.store.contract import Store

_BATCH = (
    64 * 2**20
)  # bytes copied in one call of a thread: small enough to share the work, large enough not to notice the call
_SEQUENTIAL_PARTS = 4  # of a shard in a store that sends them one after another


@dataclass(frozen=True, slots=True)
class Staged:
    """What is to be written.

    Attributes:
        tree: the state without its arrays.
        tensors: in the state's order.
        nbytes: of all tensors.
    """

    tree: Json
    tensors: Sequence[TensorLeaf]
    nbytes: int


def stage(state: object, adapters: Adapters) -> Staged:
    """Describe a state without copying its arrays. Blocking; raises as `flatten` does."""
    flat = flatten(state, adapters)
    return Staged(flat.tree, flat.tensors, sum([tensor.nbytes for tensor in flat.tensors]))


def check_fits(staged: Staged, store: Store) -> None:
    """Raise `InvalidStateError` for a tensor that no object of the store can hold: a tensor stands whole in one shard."""
    largest = store.capabilities.max_object_bytes
    safe = largest // 2  # the rest is more than a header takes; see `largest_shard`
    for tensor in staged.tensors:
        if tensor.nbytes <= safe:
            continue
        size = tensor.nbytes + len(encode_header([(tensor.name, tensor.dtype.name, tensor.shape, 0, tensor.nbytes)]))
        if size > largest:
            raise InvalidStateError(
                f"{tensor.name}: {tensor.dtype.name}{list(tensor.shape)} has {tensor.nbytes} bytes, {size} with its header; "
                f"{store.url} takes objects of {largest} bytes at most, and a tensor is not split: save it as several"
            )


def largest_shard(shard_bytes: int, store: Store) -> int:
    """How large a shard of several tensors may grow in this store.

    Half of what the store takes is left for the header, which safetensors limits to 100 MB. Where the parts of a shard go one
    after another, more shards are written side by side.
    """
    capabilities = store.capabilities
    if capabilities.sequential:
        shard_bytes = min(shard_bytes, _SEQUENTIAL_PARTS * capabilities.part_bytes)
    return max(1, min(shard_bytes, capabilities.max_object_bytes // 2))


async def snapshot(staged: Staged, adapters: Adapters, threads: Threads) -> Staged:
    """Copy every array that could change, in threads, so that the caller may go on training.

    Takes as much new memory as the arrays have; those that are immutable (JAX's) are shared.
    """

    def copy(batch: Sequence[TensorLeaf]) -> list[TensorLeaf]:
        return [_frozen(tensor, adapters) for tensor in batch]

    copies = await run_all(threads.run(copy, batch) for batch in _batches(staged.tensors))
    return Staged(staged.tree, [tensor for batch in copies for tensor in batch], staged.nbytes)


def _frozen(tensor: TensorLeaf, adapters: Adapters) -> TensorLeaf:
    adapter = adapters.by_kind(tensor.kind)
    if adapter is None or adapter.is_immutable(tensor.value):
        return tensor
    array = np.array(adapter.to_numpy(tensor.value), order="C", copy=True)
    return TensorLeaf(tensor.name, tensor.dtype, tensor.shape, tensor.nbytes, "numpy", array)


def _batches(tensors: Sequence[TensorLeaf]) -> Iterator[list[TensorLeaf]]:
    batch: list[TensorLeaf] = []
    filled = 0
    for tensor in tensors:
        batch.append(tensor)
        filled += tensor.nbytes
        if filled >= _BATCH:
            yield batch
            batch, filled = [], 0
    if batch:
        yield batch
