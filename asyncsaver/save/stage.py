"""Stage: from the caller's state to a tree and tensors that may be written later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asyncsaver.errors import InvalidStateError
from asyncsaver.formats.safetensors import encode_header
from asyncsaver.model.flatten import TensorLeaf, flatten
from asyncsaver.model.leaves import Adapters
from asyncsaver.model.manifest import Json
from asyncsaver.model.shards import spread
from asyncsaver.save.contents import Contents
from asyncsaver.store.contract import Store

_SEQUENTIAL_PARTS = 4  # of a shard in a store that sends them one after another
_SHARDS_AT_ONCE = 4  # for each request in flight: the last round is short beside the others, and listings stay short


@dataclass(frozen=True, slots=True)
class Staged:
    """What is to be written.

    Attributes:
        tree: the state without its arrays.
        tensors: in the state's order.
        nbytes: of all tensors.
        contents: gives their bytes; None where they are arrays in memory.
    """

    tree: Json
    tensors: Sequence[TensorLeaf]
    nbytes: int
    contents: Contents | None = None


Stage = Callable[[object, Adapters], Staged]
"""What describes a state as `stage` does."""


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


def largest_shard(shard_bytes: int, store: Store, nbytes: int, concurrency: int) -> int:
    """How large a shard of several tensors may grow in this store.

    Half of what the store takes is left for the header, which safetensors limits to 100 MB. Where the parts of a shard go one
    after another, more shards are written side by side.

    Args:
        shard_bytes: what the user allows.
        store: where to.
        nbytes: of the whole state.
        concurrency: how many requests are in flight at once.
    """
    capabilities = store.capabilities
    if capabilities.put_bytes:
        most = _SHARDS_AT_ONCE * concurrency
        shard_bytes = spread(nbytes, shard_bytes, part_bytes=capabilities.part_bytes, most=most)
    if capabilities.sequential:
        shard_bytes = min(shard_bytes, _SEQUENTIAL_PARTS * capabilities.part_bytes)
    return max(1, min(shard_bytes, capabilities.max_object_bytes // 2))
