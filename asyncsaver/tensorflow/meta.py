"""Writing and reading the sidecar of a checkpoint, ``.meta``, on any store."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from asyncsaver.errors import CheckpointNotFoundError, ManifestError, ObjectNotFoundError
from asyncsaver.formats.tensorflow.meta_graph import LARGEST, Meta, Values, decode_meta, encode_meta
from asyncsaver.formats.tensorflow.saver_def import SaverDef
from asyncsaver.store.paths import redact
from asyncsaver.tensorflow.definition import (
    Serializable,
    check_saver_def,
    in_scope,
    prepend_name,
    prepend_scope,
    strip_name,
    strip_scope,
)
from asyncsaver.tensorflow.paths import split_prefix
from asyncsaver.tensorflow.stores import Stores

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

log = logging.getLogger("asyncsaver")


async def export_meta(
    url: str | os.PathLike[str],
    program: bytes = b"",
    *,
    saver_def: SaverDef | bytes | Serializable | None = None,
    collections: Mapping[str, Values] | None = None,
    nodes: Mapping[str, Sequence[str]] | None = None,
    graph: bytes | None = None,
    export_scope: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> Meta:
    """Write a sidecar, atomically; one that is there already is replaced.

    Args:
        url: of the file, `meta_graph_filename` of a checkpoint for one.
        program: what the tensors are for: an exported model, source code, any bytes.
        saver_def: the definition of the saver.
        collections: values by the name of their collection: text or bytes, integers, or floats.
        nodes: collections of parts of ``graph``, by their names in it.
        graph: a graph of TensorFlow's, the bytes of a ``GraphDef``. Only TensorFlow has a use for it.
        export_scope: what is taken off the names in ``saver_def`` and ``nodes``; of what is not in that scope none is written.
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.

    Returns:
        What was written.

    Raises:
        TypeError: a collection has values of several kinds, or of one that no sidecar can hold.
        ValueError: another wrong argument. Nothing was written.
        StoreError: it could not be written.
    """
    meta = make_meta(
        program, saver_def=saver_def, collections=collections, nodes=nodes, graph=graph, export_scope=export_scope
    )
    folder, name = _split(url)
    async with Stores(storage_options, filesystem) as stores:
        root = stores.at(folder)
        await root.store.put(name, await root.threads.run(encode_meta, meta))
    return meta


async def import_meta(
    url: str | os.PathLike[str],
    import_scope: str | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> Meta:
    """Read a sidecar, ours or TensorFlow's.

    Nothing in it is run, and the graph is not looked into: there are no devices to clear.

    Args:
        url: of the file.
        import_scope: what the names in the definition and of nodes are to begin with besides. Values of collections, and the
            graph, stay as they are.
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.

    Raises:
        CheckpointNotFoundError: there is no such file.
        ManifestError: it is no sidecar, or damaged.
        StoreError: it could not be read.
    """
    folder, name = _split(url)
    async with Stores(storage_options, filesystem) as stores:
        root = stores.at(folder)
        where = f"{root.store.url}/{name}"
        try:
            size = (await root.store.head(name)).size
            if size > LARGEST:  # before memory is taken: it may be any file
                raise ManifestError(f"{where}: not a MetaGraphDef: {size} bytes are too many", path=where)
            blob = await root.store.get(name)
        except ObjectNotFoundError as error:
            raise CheckpointNotFoundError(f"File does not exist. Received: {where}.") from error
        meta = await root.threads.run(decode_meta, blob.data, where)
    for unreadable in meta.unreadable:
        log.warning("%s: Cannot identify data type for collection %s. Skipping.", where, unreadable)
    return _prepended(meta, import_scope) if import_scope else meta


def make_meta(
    program: bytes = b"",
    *,
    saver_def: SaverDef | bytes | Serializable | None = None,
    collections: Mapping[str, Values] | None = None,
    nodes: Mapping[str, Sequence[str]] | None = None,
    graph: bytes | None = None,
    export_scope: str | None = None,
) -> Meta:
    """What a sidecar is to hold; see `export_meta`. Pure: ``encode_meta`` makes the file of it."""
    if export_scope and graph is not None:
        raise ValueError("graph and export_scope cannot both be specified: names in the graph would not lose the scope")
    for argument, value in (("program", program), ("graph", b"" if graph is None else graph)):
        if not isinstance(value, bytes):
            raise TypeError(f"{argument} must be bytes, not {type(value).__name__}")
    meta = Meta(
        program,
        None if saver_def is None else check_saver_def(saver_def),
        {name: copy(values) for name, values in (collections or {}).items()},
        {name: tuple(names) for name, names in (nodes or {}).items()},
        graph,
    )
    return _stripped(meta, export_scope) if export_scope else meta


def check_meta_suffix(suffix: object) -> str:
    """Return what the name of a sidecar may end in, or raise `TypeError` or `ValueError`.

    It must not be what one of the checkpoint's own files ends in.
    """
    if not isinstance(suffix, str):
        raise TypeError(f"meta_suffix must be a str, not {type(suffix).__name__}")
    if not suffix or "/" in suffix or "\0" in suffix:
        raise ValueError(f"meta_suffix={suffix!r} must be the end of a file's name")
    if suffix == "index" or suffix.startswith("data-"):
        raise ValueError(f"meta_suffix={suffix!r} is what a file of the checkpoint itself ends in")
    return suffix


def _split(url: str | os.PathLike[str]) -> tuple[str, str]:
    folder, name = split_prefix(url)
    if name in {"", ".", ".."}:
        raise ValueError(f"{redact(os.fspath(url))!r} is not the path of a file")
    return folder, name


def _stripped(meta: Meta, scope: str) -> Meta:
    return dataclasses.replace(
        meta,
        definition=None if meta.definition is None else strip_scope(meta.definition, scope),
        nodes={
            name: tuple(strip_name(node, scope) for node in nodes if in_scope(node, scope))
            for name, nodes in meta.nodes.items()
        },
    )


def _prepended(meta: Meta, scope: str) -> Meta:
    return dataclasses.replace(
        meta,
        definition=None if meta.definition is None else prepend_scope(meta.definition, scope),
        nodes={name: tuple(prepend_name(node, scope) for node in nodes) for name, nodes in meta.nodes.items()},
    )
