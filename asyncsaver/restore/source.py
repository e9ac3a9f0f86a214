"""A checkpoint as a reader sees it: one of ours, or another library's that was described in our terms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

import numpy as np

from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointCorruptError, UnreadableTensorError
from asyncsaver.model.checkpoint import Checkpoint, checkpoint_of
from asyncsaver.model.dtypes import DType, dtype_from_name
from asyncsaver.model.foreign import STRING, Encoding, Foreign
from asyncsaver.model.leaves import TensorInfo, TensorSpec
from asyncsaver.model.manifest import FileEntry, Json, TensorEntry
from asyncsaver.model.names import slot_path
from asyncsaver.restore.find import Found, explain_damage
from asyncsaver.store.contract import ObjectInfo

_STRINGS: DType = np.dtype(object)
_SHOWN = 20
Explain = Callable[[CheckpointCorruptError], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a reader reads.

    Attributes:
        url: of the root, for messages.
        checkpoint: as users see it.
        where: the file that describes it, for messages.
        tree: as in a manifest.
        tensors: by name, in the order of the state.
        files: that hold them.
        sizes: path → size in bytes, as listed when the checkpoint was found.
        explain: asked about damage that was met: it raises if there is another reason for it.
        dtypes: of those tensors whose dtype `model.dtypes` does not know.
        encoding: of the chunk of a tensor, by position; see `Foreign`. None where all bytes are plain.
        unreadable: see `Foreign`.
        repeated: names of those tensors that repeat a plain value of the tree, for readers who know no trees.
    """

    url: str
    checkpoint: Checkpoint
    where: str
    tree: Json
    tensors: dict[str, TensorEntry]
    files: Sequence[FileEntry]
    sizes: Mapping[str, int]
    explain: Explain
    dtypes: Mapping[str, DType] = field(default_factory=dict)
    encoding: Callable[[str, int], Encoding | None] | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)
    repeated: Collection[str] = ()

    @property
    def foreign(self) -> bool:
        """Whether another library's files are read, of which not all that ours promise holds."""
        return self.encoding is not None

    def encoding_of(self, name: str, chunk: int) -> Encoding | None:
        """How a chunk of a tensor, by its position, is to be decoded; None where its bytes are its elements."""
        return None if self.encoding is None else self.encoding(name, chunk)

    def spec(self, name: str) -> TensorSpec:
        """Dtype and shape of a tensor as it is in memory. Raises `KeyError` where there is none of the name."""
        entry = self.tensors[name]
        return TensorSpec(self.dtypes[name] if name in self.dtypes else dtype_from_name(entry.dtype), entry.shape)

    def specs(self) -> dict[str, TensorSpec]:
        """Those of all tensors, in order. Blocking."""
        if self.dtypes:
            return {name: self.spec(name) for name in self.tensors}
        return {name: TensorSpec(dtype_from_name(entry.dtype), entry.shape) for name, entry in self.tensors.items()}

    def check_readable(self, names: Iterable[str]) -> None:
        """Raise `UnreadableTensorError` for tensors of which it is known already that they cannot be read.

        Args:
            names: of the tensors that are wanted.
        """
        if not self.unreadable:  # nearly always; the names may be a million
            return
        problems = [(name, self.unreadable[name]) for name in names if name in self.unreadable]
        if problems:
            raise UnreadableTensorError(
                f"{self.checkpoint.url}: {len(problems)} of the tensors cannot be read; select= leaves them out:\n  "
                + "\n  ".join(f"{name}: {problem}" for name, problem in problems[:_SHOWN])
                + (f"\n  … and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""),
                path=self.where,
                tensors=[name for name, _ in problems],
            )

    def check_listed(self, wanted: Collection[int]) -> None:
        """Find missing and truncated files before anything is read or assigned.

        Args:
            wanted: positions of the files that matter.

        Raises:
            CheckpointCorruptError: naming the first such file and the tensors in it.
        """
        for number, file in enumerate(self.files):
            size = self.sizes.get(file.path)
            if size == file.size or number not in wanted:
                continue
            names = [
                name for name, entry in self.tensors.items() if any(chunk.file == number for chunk in entry.chunks)
            ]
            problem = "is missing" if size is None else f"has {size} bytes, its manifest says {file.size}"
            raise CheckpointCorruptError(
                f"{self.url}/{file.path} {problem}; in it: {shortened(names)}", path=file.path, tensors=names
            )


class TensorInfos(Mapping[str, TensorInfo]):
    """Name → what it is, of all tensors, in the order of the state. Made when asked for: a restore needs none of them.

    Args:
        source: whose tensors.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getitem__(self, name: str) -> TensorInfo:
        spec = self._source.spec(name)
        return TensorInfo(spec.dtype, spec.shape, self._source.tensors[name].dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._source.tensors)

    def __len__(self) -> int:
        return len(self._source.tensors)

    def __repr__(self) -> str:
        return repr(dict(self))


def shortened(names: Sequence[str]) -> str:
    """A list of names that fits in a message."""
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more tensors" if len(names) > 5 else shown or "no tensors"


def own_source(root: Root, found: Found) -> Source:
    """A checkpoint of ours."""
    manifest = found.manifest
    return Source(
        url=root.store.url,
        checkpoint=checkpoint_of(manifest, root.store.url, pinned=found.pinned),
        where=slot_path(manifest.name, manifest.slot),
        tree=manifest.tree,
        tensors=manifest.tensors,
        files=manifest.files,
        sizes=found.sizes,
        explain=partial(explain_damage, root, manifest),
    )


def foreign_source(url: str, foreign: Foreign, objects: Iterable[ObjectInfo]) -> Source:
    """A checkpoint of another library.

    Args:
        url: of the store.
        foreign: what it is.
        objects: those that were listed around it; the newest of its files tells when it was made.
    """
    paths = {file.path for file in foreign.files}
    times = [item.modified for item in objects if item.path in paths and item.modified is not None]
    checkpoint = Checkpoint(
        url=f"{url.rstrip('/')}/{foreign.name}",
        name=foreign.name,
        step=foreign.step,
        slot=0,
        save_id="",
        created=max(times, default=datetime.fromtimestamp(0, UTC)),
        total_bytes=sum(file.size for file in foreign.files),
        world_size=1,
        metrics={},
        metadata=foreign.metadata,
        pinned=False,
    )
    return Source(
        url=url,
        checkpoint=checkpoint,
        where=foreign.name,
        tree=_flat_tree(foreign.tensors) if foreign.tree is None else foreign.tree,
        tensors=foreign.tensors,
        files=foreign.files,
        sizes={file.path: file.size for file in foreign.files},
        explain=_nothing_to_explain,
        dtypes={name: _STRINGS for name, entry in foreign.tensors.items() if entry.dtype == STRING}
        | dict(foreign.dtypes),
        encoding=foreign.encoding,
        unreadable=foreign.unreadable,
    )


def without_record(source: Source) -> Source:
    """A checkpoint in TensorFlow's files as TensorFlow sees it: a flat dict of tensors."""
    return replace(source, tree=_flat_tree(source.tensors), repeated=())


def _flat_tree(names: Iterable[str]) -> Json:
    return {"dict": {name: {"tensor": name} for name in names}}


async def _nothing_to_explain(error: CheckpointCorruptError) -> None:
    """Nobody deletes a foreign checkpoint in steps that could be told apart from damage."""
    del error
