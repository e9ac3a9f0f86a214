"""Whether an object-based checkpoint is to be read by its keys or by the full names of its variables."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING

from asyncsaver.aio.threads import Threads
from asyncsaver.errors import StructureMismatchError
from asyncsaver.model.dtypes import Array
from asyncsaver.model.foreign import GRAPH_KEY
from asyncsaver.model.select import Select
from asyncsaver.restore.source import Source

if TYPE_CHECKING:
    from asyncsaver.restore.full_names import Named

log = logging.getLogger("asyncsaver")

Plan = Callable[[Source, Select | None, bool], object]
"""Plans a restore from a source, of a selection, strictly or not; blocking."""

Read = Callable[[str], Awaitable[Array]]
"""Reads a tensor."""


async def source_for_names(source: Source, names: Collection[str], read: Read, threads: Threads) -> Source:
    """What has tensors of these names: the checkpoint as it is, or as it is seen by full names.

    Args:
        source: the checkpoint.
        names: all that are wanted.
        read: reads from it.
        threads: to decode in.

    Returns:
        The checkpoint as it is also where it has some of the names, and full names are none of the others.

    Raises:
        StructureMismatchError: it is object-based, and lacks some of the names in either view; lists them, those that only the
            checkpoint has, and how many did match.
        CheckpointCorruptError: its object graph is damaged.
    """
    missing = [name for name in names if name not in source.tensors]
    if GRAPH_KEY not in source.tensors or not missing:
        return source
    seen = await _by_full_names(source, read, threads)
    if len(missing) < len(names) and seen.source.tensors.keys().isdisjoint(missing):
        return source  # they are keys, some of them wrong
    seen.check(names)
    _warn(source, seen, names)
    return seen.source


async def source_for_plan(
    source: Source, plan: Plan, select: Select | None, read: Read, threads: Threads, *, strict: bool
) -> tuple[Source, Select | None]:
    """What a restore is to read from, and what of it: all as it is, unless the target has full names.

    Names that only the checkpoint has do not matter then: as in TensorFlow, where they never do.

    Args:
        source: the checkpoint.
        plan: of the restore.
        select: what the caller wants.
        read: reads from the checkpoint.
        threads: to plan and decode in.
        strict: whether names that are not there are an error.

    Raises:
        StructureMismatchError: some names are not there; as `source_for_names`.
        CheckpointCorruptError: the object graph is damaged.
    """
    if GRAPH_KEY not in source.tensors:
        return source, select
    mismatch = await threads.run(_mismatch, plan, source, select)
    if mismatch is None:
        return source, select
    seen = await _by_full_names(source, read, threads)

    def choose() -> tuple[Source, Select | None, Collection[str]]:
        from asyncsaver.restore.full_names import only_matched, selected_names  # noqa: PLC0415 - needs an extra

        wanted = select
        if mismatch.missing:
            known = not seen.source.tensors.keys().isdisjoint(mismatch.missing)
            if not known and (not strict or selected_names(source, select, mismatch)):
                return source, select, ()  # the target has keys, some of them wrong
            different = _mismatch(plan, seen.source, select, also_unexpected=True)
            if different is not None:
                wanted = only_matched(seen.source, different, select, strict=strict)
        return seen.source, wanted, selected_names(seen.source, wanted)  # raises where nothing is selected

    chosen, wanted, names = await threads.run(choose)
    if chosen is not source:
        _warn(source, seen, names)
    return chosen, wanted


def _mismatch(
    plan: Plan, source: Source, select: Select | None, *, also_unexpected: bool = False
) -> StructureMismatchError | None:
    """How names differ, if other names may be meant; empty lists mean that the selection selects nothing."""
    try:
        plan(source, select, True)
    except StructureMismatchError as error:
        if error.missing or also_unexpected or not (error.unexpected or error.mismatched):
            return error
    return None


async def _by_full_names(source: Source, read: Read, threads: Threads) -> Named:
    from asyncsaver.restore.full_names import named  # noqa: PLC0415 - needs an extra

    return await threads.run(named, source, await read(GRAPH_KEY))


def _warn(source: Source, seen: Named, names: Collection[str]) -> None:
    log.warning(
        "%s: restoring an object-based checkpoint by the full names of its variables, as a name-based saver does. This may be "
        "somewhat fragile: they may have changed since it was written. Its own keys are safer.",
        source.checkpoint.url,
    )
    for name in names:
        if name in seen.ambiguous:
            keys = seen.ambiguous[name]
            log.warning("%s: %d variables were called %r, taking %s", source.checkpoint.url, len(keys), name, keys[-1])
