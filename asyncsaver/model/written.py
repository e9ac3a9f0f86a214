"""What is said of the tensors of a shard: before them in its header, and afterwards in the part. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from asyncsaver.model.dtypes import dtype_name, storage_dtype
from asyncsaver.model.flatten import TensorLeaf
from asyncsaver.model.manifest import Chunk, TensorEntry
from asyncsaver.model.shards import ShardPlan


def header_rows(plan: ShardPlan, tensors: Sequence[TensorLeaf]) -> Iterator[tuple[str, str, tuple[int, ...], int, int]]:
    """Rows for `formats.safetensors.encode_header`, in file order.

    Args:
        plan: of the shard.
        tensors: all that were planned.
    """
    for item in plan.tensors:
        tensor = tensors[item.index]
        code, width = storage_dtype(tensor.dtype)
        yield tensor.name, code, (*tensor.shape, width) if width else tensor.shape, item.start, item.stop


def written_entries(
    plan: ShardPlan, tensors: Sequence[TensorLeaf], file: int, data_start: int, hashes: Sequence[str]
) -> dict[str, TensorEntry]:
    """The entries of tensors that stand whole in one shard, by name.

    Args:
        plan: of the shard.
        tensors: all that were planned.
        file: position of the shard in the list of files.
        data_start: size of the shard's header in bytes.
        hashes: of its tensors, in file order.
    """
    entries: dict[str, TensorEntry] = {}
    for item, digest in zip(plan.tensors, hashes, strict=True):
        tensor = tensors[item.index]
        shape = tensor.shape
        chunk = Chunk((0,) * len(shape), shape, file, data_start + item.start, data_start + item.stop, digest)
        entries[tensor.name] = TensorEntry(dtype_name(tensor.dtype), shape, (chunk,))
    return entries
