"""Convert into TensorFlow's format. In a room of its own, since it needs an extra."""

from __future__ import annotations

from asyncsaver.catalog.root import Root
from asyncsaver.conversion.check import check_tensorflow
from asyncsaver.conversion.choose import Chosen
from asyncsaver.conversion.request import Conversion, foreign_checkpoint
from asyncsaver.conversion.strings import stage_with_strings
from asyncsaver.formats.tensorflow.dtypes import NUMBERS
from asyncsaver.formats.tensorflow.naming import step_of
from asyncsaver.model.checkpoint import Checkpoint
from asyncsaver.restore.source import Source
from asyncsaver.save.stage import check_fits
from asyncsaver.save.tensorflow import TensorFlowWriter
from asyncsaver.save.tensorflow_data import Bundle


async def write(root: Root, source: Source, chosen: Chosen, to: Root, conversion: Conversion) -> Checkpoint:
    """Write; returns what was written.

    Args:
        root: of the source.
        source: the checkpoint.
        chosen: of it.
        to: root of the target.
        conversion: how.

    Raises:
        AsyncSaverError: see `convert`.
    """
    await root.threads.run(check_tensorflow, source, chosen, NUMBERS.get)
    staged, strings = await stage_with_strings(root, source, chosen, conversion.scratch)
    await root.threads.run(check_fits, staged, to.store)
    writer = TensorFlowWriter(
        root=to,
        prefix=conversion.name,
        step=step_of(conversion.name),
        shard_bytes=conversion.shard_bytes,
        overwrite=conversion.overwrite,
        limit=conversion.commit_timeout,
        report=to.report,
    )
    numbers = await root.threads.run(_numbers, source, chosen)
    await writer.write(Bundle(staged=staged, numbers=numbers, strings=strings))
    return foreign_checkpoint(to, conversion, step_of(conversion.name), staged.nbytes)


def _numbers(source: Source, chosen: Chosen) -> dict[str, int]:
    return {name: NUMBERS[source.tensors[name].dtype] for name in chosen.tensors}
