"""A checkpoint that is open for reading."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np

from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointCorruptError, StructureMismatchError
from asyncsaver.model.checkpoint import Checkpoint, Progress
from asyncsaver.model.dtypes import Array
from asyncsaver.model.leaves import TensorInfo, TensorSpec
from asyncsaver.model.rebuild import MISSING, RestorePlan, TensorRead, plan_restore
from asyncsaver.model.select import Select
from asyncsaver.model.slices import Index, smallest_run
from asyncsaver.restore.assemble import Assembly, files_of_box
from asyncsaver.restore.fetch import Fetcher
from asyncsaver.restore.object_based import source_for_names, source_for_plan
from asyncsaver.restore.release import release
from asyncsaver.restore.source import Source, TensorInfos
from asyncsaver.restore.verify import VerifyReport, verify_source
from asyncsaver.restore.verify_foreign import verify_foreign


class CheckpointReader:
    """Reads one committed checkpoint, whole or in part.

    While it is open, prunes by the same saver leave the checkpoint alone. Closing it is cheap; `async with` does it.

    Attributes:
        checkpoint: which one.
        source: what is read.
    """

    def __init__(self, root: Root, source: Source, *, owns_root: bool = False) -> None:
        self.source = source
        self.checkpoint: Checkpoint = source.checkpoint
        self._root = root
        self._owns_root = owns_root
        self._open = True
        self._specs: Mapping[str, TensorSpec] | None = None
        root.in_use[source.checkpoint.name] += 1

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Name → dtype, shape and size in bytes of every tensor, in the order of the state."""
        return TensorInfos(self.source)

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Tensor → why it cannot be read, of those of another library's checkpoint where that is known already."""
        return MappingProxyType(self.source.unreadable)

    @property
    def metadata(self) -> Any:
        """The user's JSON, as given to `save`."""
        return self.checkpoint.metadata

    async def read(self, name: str, index: Index = ..., *, verify: bool = True) -> Array:
        """Read a tensor, or a slice of it.

        Reads the smallest contiguous run that holds the slice. A tensor read whole is verified; of a slice there is no checksum.

        Args:
            name: one of `tensors`.
            index: ints, slices and ``...``, as NumPy's basic indexing has them.
            verify: whether to check what can be checked.

        Returns:
            A new array, little-endian, C-contiguous, its shape as ``tensor[index]`` would have it.

        Raises:
            KeyError: no such tensor.
            IndexError, TypeError: an index that does not fit.
            CheckpointCorruptError: the data are damaged.
            UnreadableTensorError: the tensor of another library's checkpoint cannot be read.
        """
        self._check_open()
        try:
            entry = self.source.tensors[name]
        except KeyError:
            raise KeyError(f"{self.checkpoint.url} has no tensor {name!r}") from None
        self.source.check_readable([name])
        run = smallest_run(entry.shape, index)
        spec = self.source.spec(name)
        await self._check_sizes(files_of_box(entry, run.offset, run.shape))
        assembly = Assembly(self.source)
        box: Array = np.empty(run.shape, spec.dtype)
        assembly.add(name, entry, spec.dtype, run.offset, box, verify=verify)
        async with self._reading(sum(need.stop - need.start for need in assembly.needs), {}) as fetcher:
            await fetcher.fetch(assembly.needs)
        await self._root.threads.run(assembly.paste)
        result: Array = box[(*run.index, ...)]  # with the ellipsis a single element is an array, too
        return result if result.nbytes == box.nbytes else result.copy()

    async def restore(
        self,
        target: Any = MISSING,
        *,
        select: Select | None = None,
        dtype: Any = None,
        strict: bool = True,
        reshape: bool = False,
        verify: bool = True,
    ) -> Any:
        """Restore the state; see `Saver.restore`.

        An object-based checkpoint of TensorFlow that lacks names of the target, or all that are selected, is looked through by
        the full names of its variables, with a warning. What only the checkpoint has is no error then.
        """
        self._check_open()
        held = self._root.budget.limit

        def plan_from(source: Source, select: Select | None, strict: bool) -> RestorePlan:
            return plan_restore(
                source.tree,
                self._all_specs() if source is self.source else source.specs(),
                self._root.adapters,
                target=MISSING if target is None else target,
                select=select,
                dtype=dtype,
                strict=strict,
                reshape=reshape,
                # Up to the memory budget everything is read and verified before the target is touched. A larger state cannot
                # be held twice: it goes straight into the target, after what can be checked beforehand was.
                held=held,
            )

        source, chosen = await source_for_plan(
            self.source, plan_from, select, self.read, self._root.threads, strict=strict
        )
        if source is self.source:
            return await self._restore(lambda: plan_from(source, select, strict), verify=verify)
        async with CheckpointReader(self._root, source) as reader:
            return await reader._restore(lambda: plan_from(source, chosen, strict), verify=verify)

    async def source_for_names(self, names: Collection[str]) -> Source:
        """What has tensors of these names, to be read by a reader of its own: `source` as it is, nearly always.

        Of an object-based checkpoint of TensorFlow that lacks some, the same checkpoint by the full names of its variables, with
        a warning.

        Args:
            names: all that are wanted.

        Raises:
            StructureMismatchError: it is object-based, and has not all of the names in that view; lists those that it lacks,
                those that only the checkpoint has, and how many did match. Nothing is said here of names that are missing from
                any other checkpoint, or beside keys that are there.
            CheckpointCorruptError: its object graph is damaged.
        """
        self._check_open()
        return await source_for_names(self.source, names, self.read, self._root.threads)

    async def _restore(self, make_plan: Callable[[], RestorePlan], *, verify: bool) -> Any:
        def prepare() -> tuple[RestorePlan, set[int]]:
            try:
                plan = make_plan()
            except StructureMismatchError as error:  # what is damaged has no shape that could fit
                heads = {line[: colon.start()] for line in error.mismatched for colon in re.finditer(": ", line)}
                self.source.check_readable(name for name in self.source.unreadable if name in heads)
                error.add_note(f"The checkpoint is {self.checkpoint.url}")
                raise
            self.source.check_readable(read.name for read in plan.reads)
            # Which files matter takes a look at every chunk: it is only asked where one is not as it should be.
            if all(self.source.sizes.get(file.path) == file.size for file in self.source.files):
                return plan, set()
            tensors = self.source.tensors
            return plan, {chunk.file for read in plan.reads for chunk in tensors[read.name].chunks}

        plan, files = await self._root.threads.run(prepare)
        await self._check_sizes(files)
        assembly = Assembly(self.source)
        arrays = await self._root.threads.run(
            assembly.add_whole, plan.reads, self._root.store.capabilities.part_bytes, verify=verify
        )
        try:
            async with self._reading(plan.nbytes, arrays) as fetcher:
                await fetcher.fetch(assembly.needs)
        except CheckpointCorruptError as error:
            error.overwritten = tuple(read.name for read in plan.reads if read.direct and not read.dtype.hasobject)
            if error.overwritten:
                error.add_note(
                    f"The state is larger than the memory budget, so {len(error.overwritten)} arrays of the target were being "
                    "written directly; their content is undefined now."
                )
            raise

        def finish() -> Any:
            assembly.paste()
            state = plan.build(arrays)
            release(assembly.needs, plan.reads)
            return state

        state = await self._root.threads.run(finish)
        self._root.report(Progress("restored", self.checkpoint.step, plan.nbytes, plan.nbytes))
        return state

    async def verify(self) -> VerifyReport:
        """Read everything and compare every byte with its checksums; see `Saver.verify`.

        Of another library's checkpoint everything is read and decoded, and compared with what checksums there are.

        Raises:
            CheckpointCorruptError: lists everything that is wrong.
        """
        self._check_open()
        if self.source.foreign:
            return await verify_foreign(self._root, self.source, self._check)
        return await verify_source(self._root, self.source)

    async def close(self) -> None:
        """Let prunes have the checkpoint. Calling twice is fine."""
        if not self._open:
            return
        self._open = False
        name = self.checkpoint.name
        self._root.in_use[name] -= 1
        if not self._root.in_use[name]:
            del self._root.in_use[name]
        if self._owns_root:
            await self._root.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _check(self, names: Sequence[str]) -> None:
        """Read tensors whole and check them."""

        def prepare() -> tuple[Assembly, dict[str, Array]]:
            specs = self._all_specs()
            reads = [TensorRead(name, specs[name].dtype, specs[name].shape) for name in names]
            assembly = Assembly(self.source)
            return assembly, assembly.add_whole(reads, 0, verify=True)

        assembly, arrays = await self._root.threads.run(prepare)
        async with self._reading(sum(need.stop - need.start for need in assembly.needs), arrays) as fetcher:
            await fetcher.fetch(assembly.needs)

    def _all_specs(self) -> Mapping[str, TensorSpec]:
        """Those of all tensors, for planning. Blocking, the first time."""
        if self._specs is None:
            self._specs = self.source.specs()
        return self._specs

    def _check_open(self) -> None:
        if not self._open:
            raise ValueError(f"the reader of {self.checkpoint.url} is closed")

    async def _check_sizes(self, files: Collection[int]) -> None:
        """Compare the sizes of files with what the manifest says, before memory is taken for what it says is in them."""
        try:
            self.source.check_listed(files)
        except CheckpointCorruptError as error:
            await self.source.explain(error)
            raise

    @asynccontextmanager
    async def _reading(self, total: int, arrays: dict[str, Array]) -> AsyncIterator[Fetcher]:
        done = 0

        def arrived(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            self._root.report(Progress("reading", self.checkpoint.step, min(done, total), total))

        try:
            yield Fetcher(self._root, self.source, arrived, arrays)
        except CheckpointCorruptError as error:
            await self.source.explain(error)
            raise
