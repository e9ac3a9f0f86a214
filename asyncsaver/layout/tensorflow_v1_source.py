"""Reading a checkpoint that we have written as V1: the files in the folder of its save, and the tree of its record."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointCorruptError, CheckpointNotFoundError, ManifestError, ObjectNotFoundError
from asyncsaver.formats.tensorflow.describe import describe
from asyncsaver.layout.tensorflow_source import deleted_by_others
from asyncsaver.layout.tensorflow_v1_names import copies_path, is_table, path_of
from asyncsaver.layout.tensorflow_v1_publish import Tables
from asyncsaver.model.checkpoint import checkpoint_of
from asyncsaver.model.manifest import Manifest
from asyncsaver.restore.find import Found, explain_damage
from asyncsaver.restore.recorded import repeated
from asyncsaver.restore.source import Source, foreign_source


def has_tables(found: Found) -> bool:
    """Whether a checkpoint was written as V1."""
    return any(map(is_table, found.sizes))


async def read_tables(outer: Root, records: Root, tables: Tables, found: Found) -> Source | None:
    """What to read of a checkpoint of ours; None where somebody else has put another one in its place.

    Args:
        outer: where TensorFlow's files are.
        records: where our records of them are.
        tables: the V1 files among them.
        found: its record.

    Raises:
        CheckpointDeletedError: it was deleted.
        CheckpointCorruptError: what is left of it says nothing about its tensors.
    """
    manifest = found.manifest
    name = manifest.name
    folder = await records.reader.folder(name)
    standing = await tables.look(folder, manifest.save_id)
    if standing is not None and standing.state == "lost":
        raise deleted_by_others(outer, name)
    if standing is not None and standing.state == "replaced":
        return None
    path = path_of(folder.folder.saves.get(manifest.save_id, ()), name)
    source = await _described(outer, records, manifest, path)
    return replace(
        source,
        repeated=await outer.threads.run(repeated, manifest.tree, source.tensors),
        checkpoint=checkpoint_of(manifest, outer.store.url, pinned=found.pinned, path=path),
        tree=manifest.tree,
        explain=partial(explain_damage, records, manifest),
    )


async def _described(outer: Root, records: Root, manifest: Manifest, path: str) -> Source:
    """The copies in the folder of the save. What was published of them another save may replace while it is being read."""
    try:
        copies = copies_path(manifest.name, manifest.save_id, path)
        foreign = await describe(outer.store, outer.threads, copies)
    except (CheckpointNotFoundError, ManifestError, ObjectNotFoundError) as problem:
        damage = CheckpointCorruptError(f"{outer.store.url}/{path}: {problem}", path=getattr(problem, "path", ""))
        await explain_damage(records, manifest, damage)
        raise damage from problem
    return await outer.threads.run(foreign_source, outer.store.url, foreign, ())
