"""A checkpoint that is open for reading."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np

from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.model.checkpoint import Checkpoint, Progress, checkpoint_of
from asyncsaver.model.dtypes import Array, dtype_from_name
from asyncsaver.model.leaves import TensorSpec
from asyncsaver.model.rebuild import MISSING, RestorePlan, plan_restore
from asyncsaver.model.select import Select
from asyncsaver.model.slices import Index, smallest_run
from asyncsaver.restore.assemble import Assembly, files_of_box
from asyncsaver.restore.fetch import Fetcher, check_listed
from asyncsaver.restore.find import Found, explain_damage
from asyncsaver.restore.release import release

TensorInfo = TensorSpec
"""What `CheckpointReader.tensors` tells of a tensor: ``dtype``, ``shape``, ``nbytes``."""


class CheckpointReader:
    """Reads one committed checkpoint, whole or in part.

    While it is open, prunes by the same saver leave the checkpoint alone. Closing it is cheap; `async with` does it.

    Attributes:
        checkpoint: which one.
        found: its manifest, and the sizes of its files as listed when it was opened.
    """

    def __init__(self, root: Root, found: Found, *, owns_root: bool = False) -> None:
        self.found = found
        self.checkpoint: Checkpoint = checkpoint_of(found.manifest, root.store.url, pinned=found.pinned)
        self._root = root
        self._manifest = found.manifest
        self._sizes = found.sizes
        self._owns_root = owns_root
        self._open = True
        self._specs: Mapping[str, TensorSpec] | None = None
        root.in_use[found.manifest.name] += 1

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Name → dtype, shape and size in bytes of every tensor, in the order of the state."""
        if self._specs is None:
            self._specs = MappingProxyType(
                {
                    name: TensorSpec(dtype_from_name(entry.dtype), entry.shape)
                    for name, entry in self._manifest.tensors.items()
                }
            )
        return self._specs

    @property
    def metadata(self) -> Any:
        """The user's JSON, as given to `save`."""
        return self._manifest.metadata

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
        """
        self._check_open()
        try:
            entry = self._manifest.tensors[name]
        except KeyError:
            raise KeyError(f"{self.checkpoint.url} has no tensor {name!r}") from None
        run = smallest_run(entry.shape, index)
        dtype = dtype_from_name(entry.dtype)
        await self._check_sizes(files_of_box(entry, run.offset, run.shape))
        box = np.empty(run.shape, dtype)
        assembly = Assembly()
        assembly.add(name, entry, dtype, run.offset, box, verify=verify)
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
        """Restore the state; see `Saver.restore`."""
        self._check_open()
        held = self._root.budget.limit

        def prepare() -> tuple[RestorePlan, set[int]]:
            plan = plan_restore(
                self._manifest.tree,
                self.tensors,
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
            # Which files matter takes a look at every chunk: it is only asked where one is not as it should be.
            if all(self._sizes.get(file.path) == file.size for file in self._manifest.files):
                return plan, set()
            tensors = self._manifest.tensors
            return plan, {chunk.file for read in plan.reads for chunk in tensors[read.name].chunks}

        plan, files = await self._root.threads.run(prepare)
        await self._check_sizes(files)
        assembly = Assembly()
        arrays = await self._root.threads.run(
            assembly.add_whole,
            plan.reads,
            self._manifest.tensors,
            self._root.store.capabilities.part_bytes,
            verify=verify,
        )
        try:
            async with self._reading(plan.nbytes, arrays) as fetcher:
                await fetcher.fetch(assembly.needs)
        except CheckpointCorruptError as error:
            error.overwritten = tuple(read.name for read in plan.reads if read.direct)
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

    async def close(self) -> None:
        """Let prunes have the checkpoint. Calling twice is fine."""
        if not self._open:
            return
        self._open = False
        name = self._manifest.name
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

    def _check_open(self) -> None:
        if not self._open:
            raise ValueError(f"the reader of {self.checkpoint.url} is closed")

    async def _check_sizes(self, files: Collection[int]) -> None:
        """Compare the sizes of files with what the manifest says, before memory is taken for what it says is in them."""
        try:
            check_listed(self._manifest, self._sizes, self._root.store.url, files)
        except CheckpointCorruptError as error:
            await explain_damage(self._root, self._manifest, error)
            raise

    @asynccontextmanager
    async def _reading(self, total: int, arrays: dict[str, Array]) -> AsyncIterator[Fetcher]:
        done = 0

        def arrived(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            self._root.report(Progress("reading", self.checkpoint.step, min(done, total), total))

        try:
            yield Fetcher(self._root, self._manifest, arrived, arrays)
        except CheckpointCorruptError as error:
            await explain_damage(self._root, self._manifest, error)
            raise
