"""Tensors of strings: what they will be like in TensorFlow's format has to be known before they are written."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from asyncsaver.aio.budget import ByteBudget
from asyncsaver.catalog.root import Root
from asyncsaver.conversion.choose import Chosen
from asyncsaver.conversion.contents import staged
from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.formats.tensorflow.strings import encode_strings
from asyncsaver.model.dtypes import Array
from asyncsaver.model.running import Bytes
from asyncsaver.restore.source import Source
from asyncsaver.restore.stream import Streaming, TensorStream
from asyncsaver.save.stage import Staged


async def stage_with_strings(
    root: Root, source: Source, chosen: Chosen, scratch: int
) -> tuple[Staged, Mapping[str, int]]:
    """As `conversion.contents.stage`, for TensorFlow's format, which has tensors of strings.

    How long such a tensor is when written shows when it is read. So each is read here, one at a time, and once more when it is
    written, rather than kept.

    Returns:
        What is to be written, and the checksums of the tensors of strings.
    """
    known: dict[str, tuple[int, int]] = {}

    def measure(name: str, array: Array) -> Bytes:
        data, crc = encode_strings(array.reshape(-1).tolist())
        known[name] = len(data), crc
        return np.frombuffer(data, np.uint8)

    def pack(name: str, array: Array) -> Bytes:
        data, crc = encode_strings(array.reshape(-1).tolist())
        if known[name] != (len(data), crc):
            raise CheckpointCorruptError(
                f"{source.url}: tensor {name!r} changed while it was being read", tensors=[name]
            )
        return np.frombuffer(data, np.uint8)

    measuring = Streaming(root, source, ByteBudget(scratch), measure)
    for name in await root.threads.run(_of_strings, source, chosen):
        await TensorStream(measuring, [name]).load(1)
    streaming = Streaming(root, source, measuring.scratch, pack)
    sizes = {name: size for name, (size, _) in known.items()}
    return await root.threads.run(staged, streaming, chosen, sizes), {name: crc for name, (_, crc) in known.items()}


def _of_strings(source: Source, chosen: Chosen) -> list[str]:
    return [name for name in chosen.tensors if source.spec(name).dtype.hasobject]
