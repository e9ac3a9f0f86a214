"""Object-based checkpoints: what ``tf.train.Checkpoint`` wrote, for programs that know variables by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asyncsaver.errors import StructureMismatchError
from asyncsaver.formats.tensorflow.object_graph import checkpoint_keys, decode_graph_tensor, keys_by_full_name
from asyncsaver.model.foreign import GRAPH_KEY
from asyncsaver.restore.opening import open_source
from asyncsaver.restore.reader import CheckpointReader

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["checkpoint_keys", "object_graph_key_mapping"]


async def object_graph_key_mapping(
    checkpoint_path: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> dict[str, str]:
    """What an object-based checkpoint calls its tensors, by the full names that their variables had when it was written.

    `checkpoint_keys` takes the mapping further: it checks that all names that a program wants are in it.

    Args:
        checkpoint_path: of the checkpoint: ``s3://bucket/run/ckpt-12``.
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.

    Returns:
        Full name → key. Of several variables with one name the last one counts, as in TensorFlow; without a name there is none.

    Raises:
        CheckpointNotFoundError: there is no checkpoint of TensorFlow.
        StructureMismatchError: it is not object-based.
        CheckpointCorruptError: it is damaged.
    """
    root, source = await open_source(
        checkpoint_path, "tensorflow", storage_options=storage_options, filesystem=filesystem
    )
    async with CheckpointReader(root, source, owns_root=True) as reader:
        url = reader.checkpoint.url
        if GRAPH_KEY not in reader.tensors:
            raise StructureMismatchError(
                f"Checkpoint in {url} not an object-based checkpoint: it has no {GRAPH_KEY}", missing=[GRAPH_KEY]
            )
        graph = await reader.read(GRAPH_KEY)
        return await root.threads.run(lambda: keys_by_full_name(decode_graph_tensor(graph, url)))
