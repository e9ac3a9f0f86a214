"""Object-based checkpoints (``tf.train.Checkpoint``) by the full names of their variables. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from asyncsaver.errors import StructureMismatchError
from asyncsaver.formats.tensorflow.object_graph import (
    ambiguous_names,
    checkpoint_keys,
    decode_graph_tensor,
    keys_by_full_name,
    names_mismatch,
)
from asyncsaver.model.dtypes import Array
from asyncsaver.model.foreign import Encoding
from asyncsaver.model.select import Select, selector
from asyncsaver.restore.source import Source


@dataclass(frozen=True, slots=True)
class Named:
    """An object-based checkpoint, seen by full names.

    Attributes:
        source: a flat dict of its tensors by full names. Those without one are left out.
        ambiguous: full name → the keys of all tensors that it stood for: the last of them counts, as in TensorFlow.
    """

    source: Source
    ambiguous: Mapping[str, list[str]]

    def check(self, names: Collection[str]) -> None:
        """Raise `StructureMismatchError` unless all of these are there."""
        checkpoint_keys(names, {name: name for name in self.source.tensors})


def named(source: Source, graph: Array) -> Named:
    """See a checkpoint by the full names in its object graph.

    Args:
        source: the checkpoint.
        graph: its tensor that holds the graph.

    Raises:
        ManifestError: that is no graph.
    """
    nodes = decode_graph_tensor(graph, source.checkpoint.url)
    keys = {name: key for name, key in keys_by_full_name(nodes).items() if key in source.tensors}

    def encoding(name: str, chunk: int) -> Encoding | None:
        return source.encoding_of(keys[name], chunk)

    seen = replace(
        source,
        tree={"dict": {name: {"tensor": name} for name in keys}},
        tensors={name: source.tensors[key] for name, key in keys.items()},
        dtypes={name: source.dtypes[key] for name, key in keys.items() if key in source.dtypes},
        encoding=encoding,
        unreadable={name: source.unreadable[key] for name, key in keys.items() if key in source.unreadable},
    )
    return Named(seen, {name: several for name, several in ambiguous_names(nodes).items() if name in keys})


def selected_names(source: Source, select: Select | None, mismatch: StructureMismatchError | None = None) -> list[str]:
    """The tensors that are selected and that a target has, however much they differ.

    Args:
        source: the checkpoint.
        select: what the caller wants.
        mismatch: how the target differs, from a strict plan of that; None where it has all of them.

    Raises:
        StructureMismatchError: nothing is selected.
    """
    selected, unexpected = selector(select, [*source.tensors]), frozenset(mismatch.unexpected if mismatch else ())
    return [name for name in source.tensors if name not in unexpected and selected(name)]


def only_matched(source: Source, mismatch: StructureMismatchError, select: Select | None, *, strict: bool) -> Select:
    """What to select so that names of the checkpoint that the target lacks do not matter: nobody's target has them all.

    Args:
        source: with full names.
        mismatch: how the target differs from it.
        select: what the caller wants.
        strict: whether he wants to be told of names that are not there.

    Raises:
        StructureMismatchError: some names are not there.
    """
    common = selected_names(source, select, mismatch)
    if mismatch.missing and strict:
        error = names_mismatch(sorted(mismatch.missing), sorted(mismatch.unexpected), len(common))
        raise error from mismatch
    wanted = {*common, *mismatch.missing}
    return lambda name: name in wanted
