"""Saving and restoring what is bound, by hand."""

from __future__ import annotations

from typing import Any

from asyncsaver import Saver
from asyncsaver.restore.reader import CheckpointReader
from asyncsaver.variables import Bound, restore_variables


async def restore(saver: Saver, bound: Bound, **options: Any) -> None:
    async with await saver.open() as reader:
        await restore_from(reader, bound, **options)


async def restore_from(reader: CheckpointReader, bound: Bound, **options: Any) -> None:
    await restore_variables(reader._root, reader, bound, **options)
