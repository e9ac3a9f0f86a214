"""Restoring variables in place."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointCorruptError, StructureMismatchError
from asyncsaver.model.rebuild import plan_restore
from asyncsaver.model.select import Select, selector
from asyncsaver.restore.reader import CheckpointReader
from asyncsaver.restore.source import Source
from asyncsaver.variables.bound import Bound

_SHOWN = 20
_BATCH = 8 << 20  # bytes of small tensors that are read together: one request each would take long


async def restore_variables(
    root: Root,
    reader: CheckpointReader,
    bound: Bound,
    *,
    select: Select | None = None,
    dtype: Any = None,
    strict: bool = True,
    reshape: bool = False,
    verify: bool = True,
    sequentially: bool = False,
) -> None:
    """Restore variables in place. Tensors that only the checkpoint has do not matter.

    Names, shapes and dtypes are checked before anything is read, and all is read before anything is assigned, up to the memory
    budget as in `CheckpointReader.restore`. Arrays are filled first, then variables and saveables have theirs, by name: a
    saveable that raises stops it there.

    Args:
        root: of the reader.
        reader: of the checkpoint.
        bound: the variables.
        select: only these of them.
        dtype: as in `CheckpointReader.restore`.
        strict: whether a variable that the checkpoint lacks is an error; else it keeps its value.
        reshape: accept another shape with as many elements.
        verify: compare every chunk with its checksum.
        sequentially: assign one after another, so that no more than one is in memory twice. All are checked before, but what was
            read before damage is met is assigned then.

    Raises:
        StructureMismatchError: lists every variable that the checkpoint lacks or has otherwise; nothing was assigned.
        ValueError: ``select`` selects only a part of a saveable.
        TypeError: an array cannot be filled any more, or a variable holds none.
        CheckpointCorruptError, StoreError: as `CheckpointReader.restore`.
    """
    if bound.empty:
        return
    chosen = selector(select, bound.names)
    names = {name for name in bound.names if chosen(name)}
    source = await reader.source_for_names(names) if strict else reader.source
    options = {"dtype": dtype, "strict": strict, "reshape": reshape}
    async with CheckpointReader(root, source) as inner:
        batches: Iterable[Collection[str]] = [names]
        if sequentially:
            try:
                batches = await root.threads.run(_check, root, source, bound, names, **options)
            except CheckpointCorruptError as error:
                await source.explain(error)
                raise
        for batch in batches:
            assignment = await root.threads.run(bound.assignment, inner.tensors, batch, reshape=reshape)
            try:
                restored = await inner.restore(assignment.target, select=batch.__contains__, verify=verify, **options)
            except StructureMismatchError as error:
                _raise_none_found(error, batch)
                raise
            await root.threads.run(assignment.assign, restored)


def _check(root: Root, source: Source, bound: Bound, names: Collection[str], **options: Any) -> list[set[str]]:
    """Check everything that can be checked before anything is read; returns the batches to restore. Blocking."""
    specs = source.specs()
    target = bound.assignment(specs, names, reshape=options["reshape"]).target
    try:
        plan = plan_restore(source.tree, specs, root.adapters, target=target, select=names.__contains__, **options)
    except StructureMismatchError as error:
        _raise_none_found(error, names)
        raise
    reads = [read.name for read in plan.reads]
    source.check_readable(reads)
    source.check_listed({chunk.file for name in reads for chunk in source.tensors[name].chunks})
    batches = bound.batches({name: specs[name].nbytes for name in reads}, _BATCH)
    # What the checkpoint lacks, and nobody minds, is in no batch: one that selects nothing would be an error.
    return [some for batch in batches if not (some := set(batch).intersection(names)).isdisjoint(reads)]


def _raise_none_found(error: StructureMismatchError, names: Collection[str]) -> None:
    """Say which variables are missing where the checkpoint has none of them, so that nothing is selected."""
    if error.missing or error.unexpected or error.mismatched:
        return
    missing = sorted(names)
    shown = [f"  {name}" for name in missing[:_SHOWN]] + [f"  ... and {len(missing) - _SHOWN} more"] * (
        len(missing) > _SHOWN
    )
    raise StructureMismatchError(
        "\n".join(
            [f"the checkpoint has none of the variables, and nothing was changed\n{len(missing)} missing:", *shown]
        ),
        missing=missing,
    ) from error
