"""What is written: the tensors of another checkpoint, of which each piece is read when it is about to be sent."""

from __future__ import annotations

from collections.abc import Mapping

from asyncsaver.aio.budget import ByteBudget
from asyncsaver.catalog.root import Root
from asyncsaver.conversion.choose import Chosen
from asyncsaver.model.flatten import TensorLeaf
from asyncsaver.restore.source import Source
from asyncsaver.restore.stream import Streaming
from asyncsaver.save.contents import FromCheckpoint
from asyncsaver.save.stage import Staged

_KIND = "another checkpoint"  # no adapter has this name: there is no array


def stage(root: Root, source: Source, chosen: Chosen, scratch: int) -> Staged:
    """Describe what is to be written. Blocking.

    Args:
        root: of the source.
        source: what is read.
        chosen: of it; every tensor is of a dtype that has plain bytes.
        scratch: bytes of memory for what has to be put together before it is passed on.
    """
    return staged(Streaming(root, source, ByteBudget(scratch)), chosen, {})


def staged(streaming: Streaming, chosen: Chosen, sizes: Mapping[str, int]) -> Staged:
    """What is to be written, when it is known how long each tensor is. Blocking.

    Args:
        streaming: of the source.
        chosen: of it.
        sizes: of those tensors that have another one than dtype and shape say.
    """
    leaves: list[TensorLeaf] = []
    for name in chosen.tensors:
        spec = streaming.source.spec(name)
        leaves.append(TensorLeaf(name, spec.dtype, spec.shape, sizes.get(name, spec.nbytes), _KIND, None))
    whole = sum(leaf.nbytes for leaf in leaves if streaming.is_whole(leaf.name))
    # What is held whole stays until the last of it is sent. If not all of it may, one shard goes at a time.
    contents = FromCheckpoint(streaming, one_by_one=whole > streaming.scratch.limit)
    return Staged(chosen.tree, leaves, sum(leaf.nbytes for leaf in leaves), contents)
