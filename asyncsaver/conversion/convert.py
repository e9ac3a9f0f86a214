"""Convert: a checkpoint in one format and store becomes one in another, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from asyncsaver.aio.meter import metered
from asyncsaver.catalog.opening import open_root
from asyncsaver.catalog.root import Root
from asyncsaver.conversion.check import check_huggingface, check_native
from asyncsaver.conversion.choose import Chosen, choose
from asyncsaver.conversion.contents import stage
from asyncsaver.conversion.request import TARGETS, Conversion, foreign_checkpoint
from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.formats.folder import step_of
from asyncsaver.model.checkpoint import Checkpoint, Progress, check_metadata, encode_metrics
from asyncsaver.model.config import (
    DEFAULT_MEMORY_BUDGET,
    DEFAULT_SHARD_BYTES,
    check_positive,
)
from asyncsaver.model.names import Naming
from asyncsaver.model.retention import KeepAll
from asyncsaver.model.rotation import Rotation
from asyncsaver.model.select import Select
from asyncsaver.restore.opening import naming_of, open_source, split_url
from asyncsaver.restore.source import Source, without_record
from asyncsaver.save.attempt import Request
from asyncsaver.save.huggingface import HuggingFaceWriter
from asyncsaver.save.line import SaveLine, SaveSettings
from asyncsaver.save.stage import Staged, check_fits
from asyncsaver.version import WRITER


async def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    format: str = "native",  # noqa: A002 - as everywhere
    source_format: str = "auto",
    storage_options: Mapping[str, Any] | None = None,
    target_storage_options: Mapping[str, Any] | None = None,
    select: Select | None = None,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    overwrite: bool = False,
    single_writer: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Checkpoint:
    """Write a checkpoint once more, in another format, another store or both. Bits, names and dtypes stay as they are.

    What is written is read piece by piece when it is about to be sent, and compared with the checksums there are; a tensor
    larger than ``memory_budget`` passes in slices. Only a tensor that has to be decoded (those of V1 files, strings) is held
    whole. When it fails or is cancelled, nothing of it stays at the target, and what was there has not changed.

    A native target keeps the tree, metadata and metrics of what a saver of ours has written, in TensorFlow's files too, and is
    listed like any other checkpoint of its root, from which nothing is pruned. A folder of safetensors and TensorFlow's files
    hold tensors only, by their names.

    Args:
        source: the checkpoint's own URL, as `open_checkpoint` takes it.
        target: likewise, of what is to be written: a native checkpoint's name tells its step (``…/ckpt-00001000``), a folder for
            "huggingface", a prefix (``…/model.ckpt-1000``) for "tensorflow".
        format: "native", "huggingface" or "tensorflow".
        source_format: as for `open_checkpoint`.
        storage_options: of the source, as for `Saver`.
        target_storage_options: of the target.
        select: only these leaves, as for `Saver.restore`.
        shard_bytes: how large a shard may grow before the next one begins.
        memory_budget: bytes of tensors to hold in memory at once; the least is what a request of the stores carries.
        overwrite: replace what is at the target, atomically.
        single_writer: see `Saver`; for a native target only.
        progress: called on the event loop as it advances.

    Returns:
        What was written.

    Raises:
        CheckpointNotFoundError: there is no checkpoint at the source.
        CheckpointExistsError: there is something at the target.
        CheckpointCorruptError: the source is damaged.
        InvalidStateError: the target's format cannot hold some leaves, which the message names; nothing was written.
        UnreadableTensorError: some tensors of the source cannot be read; nothing was written.
        StructureMismatchError: the selection selects nothing.
        ImportError: an extra is missing that a format needs; the message names it.
        StoreError: a store failed.
        TypeError, ValueError: a wrong argument.
    """
    if format not in TARGETS:
        why = (
            " PyTorch's own format is not written: a folder for format='huggingface' can be read by PyTorch's DCP, too."
            * (format == "dcp")
        )
        raise ValueError(f"format={format!r} is unknown; a checkpoint can be written as {', '.join(TARGETS)}.{why}")
    check_positive("memory_budget", memory_budget)
    parent, name = split_url(target)
    conversion = Conversion(
        name=name,
        format=format,
        select=select,
        shard_bytes=check_positive("shard_bytes", shard_bytes),
        scratch=max(1, memory_budget // 4),
        overwrite=overwrite,
        single_writer=single_writer,
    )
    # What is read lands in the memory that is written from, so that counts most. The rest is for requests that bring several
    # small tensors, or what stands in gaps between them, and for what has to be put together.
    to = open_root(
        parent,
        naming_of(name) if format == "native" else Naming(),
        storage_options=target_storage_options,
        memory_budget=max(1, memory_budget // 2),
        progress=progress,
    )
    try:
        root, found = await open_source(
            source, source_format, storage_options=storage_options, memory_budget=max(1, memory_budget // 4)
        )
        try:
            return await convert_source(root, found, to, conversion)
        finally:
            await root.close()
    finally:
        await to.close()


async def convert_source(root: Root, source: Source, to: Root, conversion: Conversion) -> Checkpoint:
    """Convert a checkpoint that is open.

    Args:
        root: of the source.
        source: the checkpoint.
        to: root of the target.
        conversion: how.

    Raises:
        AsyncSaverError: see `convert`.
    """
    if source.repeated and conversion.format != "native":  # which know tensors only: here are some for the plain values
        source = await root.threads.run(without_record, source)
    chosen = await root.threads.run(choose, source, conversion.select)
    await root.threads.run(source.check_readable, chosen.tensors)
    try:
        await root.threads.run(_check_listed, source, chosen)
    except CheckpointCorruptError as error:
        await source.explain(error)
        raise
    with metered():
        match conversion.format:
            case "native":
                return await _to_native(root, source, chosen, to, conversion)
            case "huggingface":
                return await _to_huggingface(root, source, chosen, to, conversion)
            case _:
                # Imported only when asked for: it needs an extra.
                room = import_module("asyncsaver.conversion.tensorflow")
                written: Checkpoint = await room.write(root, source, chosen, to, conversion)
                return written


def _check_listed(source: Source, chosen: Chosen) -> None:
    source.check_listed({chunk.file for name in chosen.tensors for chunk in source.tensors[name].chunks})


async def _to_native(root: Root, source: Source, chosen: Chosen, to: Root, conversion: Conversion) -> Checkpoint:
    await root.threads.run(check_native, source, chosen)
    staged = await _staged(root, source, chosen, to, conversion)
    line = SaveLine(
        to,
        SaveSettings(
            shard_bytes=conversion.shard_bytes,
            commit_timeout=conversion.commit_timeout,
            single_writer=conversion.single_writer,
            policy=Rotation(KeepAll()),
            began=to.clock(),
            saver={},
            writer=WRITER,
        ),
    )
    request = Request(
        name=conversion.name,
        step=to.naming.parse(conversion.name)[1],
        metrics=encode_metrics(source.checkpoint.metrics),
        metadata=check_metadata(source.checkpoint.metadata),
        overwrite=conversion.overwrite,
        pin=False,
        report=to.report,
    )
    ticket = line.take_place(request.name)
    try:
        return await line.run(ticket, request, staged, 0.0)
    finally:
        line.leave_place(ticket)


async def _to_huggingface(root: Root, source: Source, chosen: Chosen, to: Root, conversion: Conversion) -> Checkpoint:
    await root.threads.run(check_huggingface, source, chosen)
    staged = await _staged(root, source, chosen, to, conversion)
    writer = HuggingFaceWriter(
        root=to,
        folder=conversion.name,
        step=step_of(conversion.name),
        shard_bytes=conversion.shard_bytes,
        overwrite=conversion.overwrite,
        limit=conversion.commit_timeout,
        report=to.report,
    )
    metadata = source.checkpoint.metadata
    said = metadata if isinstance(metadata, dict) else {} if metadata is None else {"metadata": metadata}
    total = await writer.write(staged, said)
    return foreign_checkpoint(to, conversion, step_of(conversion.name), total, metadata)


async def _staged(root: Root, source: Source, chosen: Chosen, to: Root, conversion: Conversion) -> Staged:
    staged = await root.threads.run(stage, root, source, chosen, conversion.scratch)
    await root.threads.run(check_fits, staged, to.store)
    return staged
