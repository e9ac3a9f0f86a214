"""Records of ours beside TensorFlow's files: what they say that the files cannot. Written by `asyncsaver.layout.tensorflow`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from asyncsaver.catalog.root import Root
from asyncsaver.errors import ManifestError, ObjectNotFoundError
from asyncsaver.formats.tensorflow.bundle import index_path
from asyncsaver.formats.tensorflow.checksum import crc32c
from asyncsaver.formats.tensorflow.naming import RECORDS, prefix_of
from asyncsaver.formats.tensorflow.v1_note import HEAD, note_in
from asyncsaver.model.checkpoint import checkpoint_of
from asyncsaver.model.manifest import FileEntry, Json, TensorEntry
from asyncsaver.model.names import Naming
from asyncsaver.restore.find import Found, find_name
from asyncsaver.restore.source import Source
from asyncsaver.store.below import Below
from asyncsaver.store.contract import ObjectInfo, Store

log = logging.getLogger("asyncsaver")


async def with_record(root: Root, path: str, source: Source) -> Source:
    """A checkpoint of TensorFlow's with the tree, metrics and metadata of our record of it, if there is one.

    Takes a LIST, and two GETs where there is one: of the record, and of the index, or of the beginning of a V1 file.

    Args:
        root: where it is.
        path: its prefix, or the pattern of a sharded one of V1.
        source: what its files say.
    """
    folder, slash, called = path.rpartition("/")
    name = prefix_of(called)
    records = replace(root, store=Below(root.store, folder + slash + RECORDS), naming=Naming(name))
    try:
        found = await find_name(records, name)
    except ManifestError as error:
        log.warning("%s is read without what its record says: %s", source.checkpoint.url, error)
        return source
    if not isinstance(found, Found):
        return source
    manifest = found.manifest
    try:
        index = await root.store.get(index_path(path))
    except ObjectNotFoundError:
        if not source.files or await note_of(root.store, source.files[0]) != manifest.save_id:
            return source
        source = _copies(source, folder + slash + RECORDS, found)
    else:
        # Somebody else may have saved it anew since.
        if [file.crc32c for file in manifest.files] != [f"{crc32c(index.data):08x}"]:
            return source
    parent = source.checkpoint.url.removesuffix(f"/{called}")
    return replace(
        source,
        repeated=await root.threads.run(repeated, manifest.tree, source.tensors),
        checkpoint=replace(
            checkpoint_of(manifest, parent, pinned=found.pinned, path=called), step=source.checkpoint.step
        ),
        tree=manifest.tree,
    )


async def note_of(store: Store, file: FileEntry | ObjectInfo) -> str | None:
    """The save that has written a V1 file; None for one that none of ours has, or that is gone."""
    head = bytearray(min(file.size, HEAD))
    try:
        await store.get_into(file.path, [(0, len(head))], [memoryview(head)])
    except ObjectNotFoundError:
        return None
    return note_in(bytes(head))


def _copies(source: Source, folder: str, found: Found) -> Source:
    """The same, read from the copies among the records: V1 files another save of ours may replace while they are being read.

    Args:
        source: what the files say.
        folder: of the records.
        found: the record.
    """
    paths = [file.path for file in found.manifest.files]
    if [found.sizes.get(path) for path in paths] != [file.size for file in source.files]:
        return source
    files = [
        FileEntry(f"{folder}/{path}", file.size, file.crc32c) for path, file in zip(paths, source.files, strict=True)
    ]
    return replace(source, files=files, sizes={file.path: file.size for file in files})


def repeated(tree: Json, tensors: Mapping[str, TensorEntry]) -> list[str]:
    """Names of the tensors without axes that no node of a tree names: those of its plain values. Blocking.

    Args:
        tree: as in a manifest.
        tensors: all there are.
    """
    named: set[str] = set()
    rest = [tree]
    while rest:
        node = rest.pop()
        if isinstance(node, dict):
            named.update(name for name in (node.get("tensor"), node.get("blob")) if isinstance(name, str))
            rest.extend(node.values())
        elif isinstance(node, list):
            rest.extend(node)
    return [name for name, entry in tensors.items() if not entry.shape and name not in named]
