"""Reading a checkpoint that we have written in TensorFlow's format: its index, the tree of its record, and the files listed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from asyncsaver.aio.tasks import run_both
from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointCorruptError, CheckpointDeletedError
from asyncsaver.formats.tensorflow.bundle import data_sizes, decode_index, index_path
from asyncsaver.formats.tensorflow.v2 import describe_index
from asyncsaver.layout.tensorflow_evidence import Evidence
from asyncsaver.layout.tensorflow_names import crc_of, data_files
from asyncsaver.model.checkpoint import checkpoint_of
from asyncsaver.model.manifest import Manifest
from asyncsaver.restore.find import Found, explain_damage
from asyncsaver.restore.recorded import repeated
from asyncsaver.restore.source import Source, foreign_source
from asyncsaver.save.exclusive import read_if_there


async def read_own(outer: Root, records: Root, evidence: Evidence, found: Found) -> Source | None:
    """What to read of a checkpoint of ours; None where somebody else has put another one in its place.

    Args:
        outer: where TensorFlow's files are.
        records: where our records of them are.
        evidence: tells whose an index is.
        found: its record.

    Raises:
        CheckpointDeletedError: somebody else has deleted it.
        CheckpointCorruptError: what is left of it says nothing about its tensors.
    """
    manifest = found.manifest
    name = manifest.name
    standing, listing = await run_both(read_if_there(outer, index_path(name)), outer.store.list(delimiter=True))
    [copy] = manifest.files
    if standing is not None and crc_of(standing.data) == copy.crc32c:
        index = standing.data
    else:
        own = await evidence.copy_of(name, manifest.save_id)
        if own is None or crc_of(own) != copy.crc32c:
            problem = "is missing" if own is None else "is not as it was written"
            error = CheckpointCorruptError(f"{records.store.url}/{copy.path} {problem}", path=copy.path)
            await explain_damage(records, manifest, error)
            raise error
        index = own
        if standing is not None and await evidence.is_foreign(name, manifest.save_id, standing):
            return None
        if standing is None and not data_files(listing.objects, name):
            raise deleted_by_others(outer, name)

    def described() -> tuple[Source, Sequence[str]]:
        decoded = decode_index(index, index_path(name))
        foreign = describe_index(decoded, name, data_sizes(decoded, name))
        return foreign_source(outer.store.url, foreign, ()), repeated(manifest.tree, foreign.tensors)

    source, values = await outer.threads.run(described)
    return replace(
        source,
        repeated=values,
        checkpoint=checkpoint_of(manifest, outer.store.url, pinned=found.pinned),
        where=index_path(name),
        tree=manifest.tree,
        sizes={item.path: item.size for item in listing.objects},
        explain=partial(_explain, outer, records, manifest),
    )


async def _explain(outer: Root, records: Root, manifest: Manifest, error: CheckpointCorruptError) -> None:
    """Damage may be a deletion, by us or by somebody else."""
    await explain_damage(records, manifest, error)
    objects = (await outer.store.list(delimiter=True)).objects
    there = any(item.path == index_path(manifest.name) for item in objects)
    if not there and not data_files(objects, manifest.name):
        raise deleted_by_others(outer, manifest.name) from error


def deleted_by_others(outer: Root, name: str) -> CheckpointDeletedError:
    """What to raise for a checkpoint of ours of which only the record is left."""
    return CheckpointDeletedError(f"{outer.store.url}/{name}: somebody else has deleted its files")
