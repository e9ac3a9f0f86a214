"""The public face: `Saver`."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from asyncsaver.aio.defaults import forget_default
from asyncsaver.aio.guard import LoopGuard, guarded
from asyncsaver.aio.meter import metered
from asyncsaver.catalog.opening import open_root
from asyncsaver.catalog.root import OnStats, Root
from asyncsaver.errors import ReadOnlyError
from asyncsaver.layout.contract import Layout
from asyncsaver.layout.definitions import Definitions, check_definition, overridden
from asyncsaver.layout.last_checkpoints import LastCheckpoints
from asyncsaver.layout.opening import open_layout
from asyncsaver.layout.requests import BOUND, Requests, Step
from asyncsaver.model.checkpoint import Checkpoint, Progress
from asyncsaver.model.config import DEFAULT_COMMIT_TIMEOUT, DEFAULT_MEMORY_BUDGET, DEFAULT_SHARD_BYTES, check_config
from asyncsaver.model.names import check_step
from asyncsaver.model.retention import RetentionPolicy
from asyncsaver.model.rotation import Rotation
from asyncsaver.model.select import Select
from asyncsaver.prune.report import PruneReport, SweepReport
from asyncsaver.prune.sweep import check_grace
from asyncsaver.restore.opening import opened_save_path
from asyncsaver.restore.reader import CheckpointReader
from asyncsaver.restore.restore import restore_state
from asyncsaver.restore.verify import VerifyReport
from asyncsaver.save.background import BackgroundSaves, PendingSave
from asyncsaver.save.line import SaveSettings
from asyncsaver.save.staging import Staging
from asyncsaver.store.contract import Store
from asyncsaver.store.retry import DEFAULT_RETRY_TIMEOUT
from asyncsaver.variables import bind, restore_variables
from asyncsaver.version import WRITER

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from asyncsaver.layout.definitions import Definition

log = logging.getLogger("asyncsaver")
_DAY = 86400.0
_NOTHING = cast("Checkpoint", None)  # only for who has allowed it: else every user of a type checker would have to ask
_UNSET = cast("None", object())


class Saver(LastCheckpoints, Definitions):
    """Saves checkpoints of a training run under one root, and restores them.

    One saver serves any number of coroutines of one event loop. Constructing does no I/O, and wrong arguments raise at once.

    Args:
        url: the root: ``s3://bucket/run``, ``gs://…``, ``az://…``, ``memory://name``, a folder, any URL of fsspec; or a
            ready `Store`, which the saver then closes. A run has its own root.
        storage_options: as fsspec's filesystem for the scheme takes them (``key``, ``secret``, ``endpoint_url``, …). Without
            any, the environment and the usual profiles are used.
        filesystem: a ready fsspec filesystem; ``url`` is then a path in it.
        engine: "obstore", "fsspec", or "auto": obstore for ``s3://`` and ``az://`` where it is installed and can do as told.
        format: "native", or "tensorflow" (the extra of that name): the files of TensorFlow's saver, which TensorFlow restores.
        prefix: the first part of checkpoints' names.
        pad_step_number: whether names hold the step padded to eight digits.
        max_to_keep: how many of the newest checkpoints stay; None or 0 for all.
        keep_checkpoint_every_n_hours: of those that would go, keep one every so many hours for good.
        retention: a policy (see `RetentionPolicy`) in place of these two.
        shard_bytes: how large a shard may grow before the next one begins.
        memory_budget: bytes of tensors that all work of this saver may hold in memory at once; background saves may hold as
            much again in snapshots.
        concurrency: requests that move data in flight at most, over all work of this saver; None for what the store gains from.
            Where the store throttles, fewer are sent, until it no longer does.
        incremental: False.
        manifest_format: "json", or "proto" (the extra of that name): manifests are protobuf messages beside small JSON records,
            and so is the state file. Savers of either kind read, list and prune what the other kind has written.
        rank: 0.
        world_size: 1.
        run_id: None.
        coordinator: None.
        single_writer: promise that nobody else saves under this root; needed where the store does not create exclusively.
        read_only: refuse everything that would change the root.
        commit_timeout: seconds after which a commit that the store leaves unclear is given up.
        retry_timeout: seconds for which a request that the store throttles or does not answer is sent again, counted from
            its first failure, or from when the store last answered any other, but no more than five times as long in all; 0 to
            send each once.
        progress: called on the event loop as saves and restores advance.
        var_list: variables to be bound to: a dict of name → array, `Variable`, `Partitioned` or `Saveable`, or a list of what has
            a name. `save` then takes no state, and `restore` fills them in place. Which they are is settled here.
        allow_empty: accept that there are none: then nothing is saved, and `save` returns None.
        restore_sequentially: restore bound variables one after another: it takes less memory, but is not all or nothing.
        saver_def: the definition of a saver (`asyncsaver.tensorflow.SaverDef`, TensorFlow's own, or the bytes of one), which
            overrides ``max_to_keep``, ``keep_checkpoint_every_n_hours``, and of TensorFlow's files ``write_version`` and
            ``sharded``.
        write_version: of TensorFlow's files: "v2", or the deprecated "v1".
        sharded: of TensorFlow's files: each shard key (that of a `Variable`, else the device) has data files of its own, more
            than one only beyond ``shard_bytes``.
        latest_filename: of TensorFlow's files: the name of the text file that lists checkpoints.
        save_relative_paths: whether paths in it are relative on a local disk, too; in object stores they always are.
        name: of the saver, in its logs and figures.
        on_stats: called on the event loop with the checkpoint and the figures of every save (`SaveStats`) and restore
            (`RestoreStats`), which the logger ``asyncsaver`` tells at INFO, too.
        clock: seconds since the epoch, for the times in manifests; `time.time` by default.

    Raises:
        ValueError, TypeError: a wrong argument.
        UnsupportedStoreError: nothing handles the URL.
        ModuleNotFoundError: ``manifest_format="proto"`` without the package that it needs.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | Store,
        *,
        storage_options: Mapping[str, Any] | None = None,
        filesystem: AbstractFileSystem | None = None,
        engine: str = "auto",
        format: str = "native",  # noqa: A002 - the fixed name
        prefix: str = "ckpt",
        pad_step_number: bool = True,
        max_to_keep: int | None = 5,
        keep_checkpoint_every_n_hours: float | None = None,
        retention: RetentionPolicy | None = None,
        shard_bytes: int = DEFAULT_SHARD_BYTES,
        memory_budget: int = DEFAULT_MEMORY_BUDGET,
        concurrency: int | None = None,
        incremental: bool = False,
        manifest_format: str = "json",
        rank: int = 0,
        world_size: int = 1,
        run_id: str | None = None,
        coordinator: object = None,
        single_writer: bool = False,
        read_only: bool = False,
        commit_timeout: float = DEFAULT_COMMIT_TIMEOUT,
        retry_timeout: float = DEFAULT_RETRY_TIMEOUT,
        var_list: Mapping[str, Any] | Collection[Any] | None = None,
        allow_empty: bool = False,
        restore_sequentially: bool = False,
        saver_def: Definition | None = None,
        write_version: str = "v2",
        sharded: bool = False,
        latest_filename: str = "checkpoint",
        save_relative_paths: bool = False,
        name: str | None = None,
        progress: Callable[[Progress], None] | None = None,
        on_stats: OnStats | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._definition = None if saver_def is None else check_definition(saver_def)
        if self._definition is not None:
            given = overridden(self._definition)
            max_to_keep, keep_checkpoint_every_n_hours = given.max_to_keep, given.keep_checkpoint_every_n_hours
            if format == "tensorflow":
                write_version, sharded = given.write_version, given.sharded
        config = check_config(
            prefix=prefix,
            pad_step_number=pad_step_number,
            max_to_keep=max_to_keep,
            keep_checkpoint_every_n_hours=keep_checkpoint_every_n_hours,
            retention=retention,
            shard_bytes=shard_bytes,
            memory_budget=memory_budget,
            concurrency=concurrency,
            commit_timeout=commit_timeout,
            retry_timeout=retry_timeout,
            single_writer=single_writer,
            read_only=read_only,
            progress=progress,
            on_stats=on_stats,
            clock=clock,
            format=format,
            write_version=write_version,
            sharded=sharded,
            latest_filename=latest_filename,
            save_relative_paths=save_relative_paths,
            name=name,
            manifest_format=manifest_format,
            incremental=incremental,
            rank=rank,
            world_size=world_size,
            run_id=run_id,
            coordinator=coordinator,
        )
        if config.tensorflow is not None and config.tensorflow.write_version == "v1":
            warnings.warn(
                "TensorFlow's V1 format is deprecated, and takes two uploads here; write_version='v2' is the default",
                DeprecationWarning,
                stacklevel=2,
            )
        self._open_root = partial(
            open_root,
            storage_options=storage_options,
            filesystem=filesystem,
            engine=engine,
            memory_budget=config.memory_budget,
            concurrency=config.concurrency,
            retry_timeout=config.retry_timeout,
            manifest_format=config.manifest_format,
            clock=clock,
            progress=progress,
            on_stats=on_stats,
            label=name,
        )
        self._config = config
        self._root = self._open_root(url, config.naming)
        bound = var_list is not None or allow_empty
        self._bound = bind(var_list, self._root.adapters, allow_empty=allow_empty) if bound else None
        self._requests = Requests(self._root, self._bound, config.tensorflow, f"the saver of {self.url}")
        self._sequentially = restore_sequentially
        self._read_only = read_only
        self._background = BackgroundSaves()
        self._guard = LoopGuard(f"the saver of {self.url}")
        settings = SaveSettings(
            shard_bytes=config.shard_bytes,
            commit_timeout=config.commit_timeout,
            single_writer=single_writer,
            policy=Rotation(config.policy),
            began=self._root.clock(),
            saver=config.as_json,
            writer=WRITER,
        )
        self._layout: Layout = open_layout(self._root, settings, config.tensorflow, url, filesystem)
        self._staging = Staging(self._root, config.memory_budget, self._layout.describe)

    @property
    def url(self) -> str:
        """The root, without credentials."""
        return self._root.store.url

    def __repr__(self) -> str:
        return f"<Saver {self._root.label!r} of {self.url}>" if self._root.label else f"<Saver of {self.url}>"

    @guarded
    async def save(
        self,
        state: Any = BOUND,
        step: Step = None,
        *,
        metrics: Mapping[str, float] | None = None,
        metadata: Any = None,
        overwrite: bool = False,
        pin: bool = False,
        write_state: bool = True,
        write_meta: bytes | None = None,
        meta_suffix: str = "meta",
    ) -> Checkpoint:
        """Save a state; returns once it is committed.

        Nothing is copied whole: the arrays must not change until this returns. When it fails or is cancelled before the
        commit, no checkpoint exists and what was written is deleted. Saves commit in the order in which they were called.

        Args:
            state: nested dicts, lists, tuples, named tuples, dataclasses and objects with ``state_dict()``, of arrays, numbers,
                strings, bytes and None. Left out where the saver is bound to variables.
            step: names the checkpoint: an integer, of NumPy too, or a function that gives one. Without a step each save replaces
                the last one.
            metrics: numbers by name; `KeepBest` looks at them.
            metadata: any JSON.
            overwrite: replace the checkpoint of that step if there is one, atomically.
            pin: keep it whatever retention says, until `unpin`.
            write_state: False leaves the state file and all other checkpoints as they are: this one stays for good.
            write_meta: of TensorFlow's files: a sidecar (`asyncsaver.tensorflow.Meta` as bytes, or any) that goes with them.
            meta_suffix: what the sidecar's name ends in.

        Raises:
            InvalidStateError: the state, or a leaf of it, cannot be saved; nothing was written.
            CheckpointExistsError: the step is committed; nothing was written, or it was deleted again.
            SaveAbortedError: a sweep took this save for dead.
            UnsupportedStoreError: the store cannot keep two savers apart, and ``single_writer`` was not given.
            CommitUnknownError: the store stopped answering during the commit.
            StoreError: the store failed.
            TypeError, ValueError: a wrong argument.
            Exception: the failure of an earlier background save that nobody has awaited.
        """
        self._check_may_save()
        if self._requests.is_empty(state):
            return _NOTHING
        request = self._requests.make(
            step,
            metrics,
            metadata,
            overwrite=overwrite,
            pin=pin,
            write_state=write_state,
            write_meta=write_meta,
            meta_suffix=meta_suffix,
            report=self._root.report,
        )
        ticket = self._layout.line.take_place(request.name)
        try:
            with metered():
                state = await self._requests.state(state)
                staged, seconds = await self._staging.stage(state, request.step)
                return await self._layout.line.run(ticket, request, staged, seconds)
        finally:
            self._layout.line.leave_place(ticket)

    @guarded
    async def save_in_background(
        self,
        state: Any = BOUND,
        step: Step = None,
        *,
        metrics: Mapping[str, float] | None = None,
        metadata: Any = None,
        overwrite: bool = False,
        pin: bool = False,
        write_state: bool = True,
        write_meta: bytes | None = None,
        meta_suffix: str = "meta",
    ) -> PendingSave:
        """Save a state; returns as soon as it is copied and may change again.

        The copies of all background saves together are bounded by ``memory_budget`` (a larger one is alone): when the store
        is too slow for the pace of saving, this waits, and the log says so.

        Args and raises: as `save`; what happens after the copy is raised by the `PendingSave`, or where nobody awaits that, by
        the next save and by `close`.
        """
        pending: PendingSave | None = None

        def report(progress: Progress) -> None:
            if pending is not None:
                pending.update(progress)
            self._root.report(progress)

        self._check_may_save()
        if self._requests.is_empty(state):
            raise ValueError("there are no variables to save in the background")
        request = self._requests.make(
            step,
            metrics,
            metadata,
            overwrite=overwrite,
            pin=pin,
            write_state=write_state,
            write_meta=write_meta,
            meta_suffix=meta_suffix,
            report=report,
        )
        ticket = self._layout.line.take_place(request.name)
        with metered():  # the task, which outlives the block, goes on counting
            try:
                state = await self._requests.state(state)
                staged, seconds, nbytes = await self._staging.snapshot(state, request.step, request.name)
            except BaseException:
                self._layout.line.leave_place(ticket)
                raise
            task = asyncio.create_task(
                self._layout.line.run(ticket, request, staged, seconds), name=f"save {request.name}"
            )

        def ended(_: asyncio.Task[Checkpoint]) -> None:
            self._layout.line.leave_place(ticket)
            self._staging.give_back(nbytes)

        # Not in the task itself: one that is cancelled before it has begun runs nothing, not even a finally.
        task.add_done_callback(ended)
        pending = PendingSave(task, request.step, nbytes)
        self._background.add(pending, task)
        return pending

    @guarded
    async def restore(
        self,
        target: Any = None,
        *,
        step: int | None = None,
        checkpoint: Checkpoint | None = None,
        save_path: str | os.PathLike[str] | Checkpoint | None = _UNSET,
        select: Select | None = None,
        dtype: Any = None,
        strict: bool = True,
        reshape: bool = False,
        verify: bool = True,
    ) -> Any:
        """Restore a state: the latest, or that of a step, or a given checkpoint.

        Args:
            target: a state of the same structure: arrays are filled in place, objects load their state, and the result has the
                target's containers. Without it the result is made of dicts, lists, tuples, NumPy arrays and plain values.
            step: which checkpoint.
            checkpoint: which checkpoint, as `checkpoints` gave it.
            save_path: which checkpoint, by its own path or URL, wherever it is and whoever wrote it; see `open_checkpoint`.
            select: only these leaves: a pattern (``"model.*"``), several, or a function of the name.
            dtype: cast floating tensors to this, or with ``"target"`` every tensor to its target's dtype.
            strict: whether leaves that only one side has are an error.
            reshape: accept another shape with as many elements.
            verify: compare every chunk with its checksum.

        Returns:
            The state; None where bound variables were restored, in place.

        Raises:
            CheckpointNotFoundError: there is none. At ``save_path`` it is an `InvalidSavePathError`, which is a ValueError too.
            StructureMismatchError: the target does not fit; lists every difference, and nothing was assigned.
            CheckpointCorruptError: data are damaged, truncated or missing. Nothing was assigned, unless the state is larger
                than ``memory_budget`` and goes straight into the target: the error then names what was being written.
            StoreError: the store failed.
        """
        if step is not None and checkpoint is not None:
            raise ValueError("give a step or a checkpoint, not both")
        if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
            raise TypeError(f"checkpoint must be a Checkpoint, not {type(checkpoint).__name__}; a step goes into step=")
        if isinstance(target, Checkpoint):
            raise TypeError("the target is what to restore into; which checkpoint to restore goes into checkpoint=")
        if save_path is not _UNSET and (step is not None or checkpoint is not None):
            raise ValueError("give a save_path, a step or a checkpoint, and one of them only")
        options = {"select": select, "dtype": dtype, "strict": strict, "reshape": reshape, "verify": verify}
        bound = self._bound if target is None else None
        if bound is not None and bound.empty:
            return None

        async def restore(root: Root, reader: CheckpointReader) -> Any:
            if bound is None:
                return await reader.restore(target, **options)
            return await restore_variables(root, reader, bound, sequentially=self._sequentially, **options)

        if save_path is not _UNSET:
            async with opened_save_path(save_path, self._open_root, self._root) as (root, find):
                again = not isinstance(save_path, Checkpoint)
                return await restore_state(root, find, partial(restore, root), again=again)
        number = None if step is None else check_step(step)
        return await restore_state(
            self._root,
            lambda: self._layout.source(number, checkpoint),
            partial(restore, self._root),
            again=checkpoint is None,
        )

    @guarded
    async def latest(self) -> Checkpoint | None:
        """The checkpoint committed last, or None under an empty root."""
        return await self._layout.latest()

    @guarded
    async def checkpoints(self) -> list[Checkpoint]:
        """All committed checkpoints, oldest first. What is damaged is left out, and logged."""
        return list(await self._layout.checkpoints())

    @guarded
    async def open(self, step: int | None = None) -> CheckpointReader:
        """Open a checkpoint for reading tensors and slices; the latest without a step. Close the reader afterwards.

        Raises:
            CheckpointNotFoundError: there is none.
        """
        return await self._open(step)

    @guarded
    async def verify(self, step: int | None = None) -> VerifyReport:
        """Read a whole checkpoint, the latest without a step, and compare every byte with its checksums.

        Raises:
            CheckpointCorruptError: lists everything that is wrong.
            CheckpointNotFoundError: there is none.
        """
        async with await self._open(step) as reader:
            return await reader.verify()

    @guarded
    async def delete(self, step: int | None) -> None:
        """Delete the checkpoint of a step (None: the one without a step), pinned or not.

        Raises:
            CheckpointNotFoundError: there is none.
            StoreError: not everything could be deleted; a later `prune` finishes it.
        """
        self._check_writable()
        await self._layout.delete(None if step is None else check_step(step))

    @guarded
    async def pin(self, step: int | None) -> None:
        """Keep a checkpoint whatever retention says, until `unpin`. Raises `CheckpointNotFoundError`."""
        self._check_writable()
        await self._layout.set_pin(None if step is None else check_step(step), pinned=True)

    @guarded
    async def unpin(self, step: int | None) -> None:
        """Leave a checkpoint to retention again. Raises `CheckpointNotFoundError`."""
        self._check_writable()
        await self._layout.set_pin(None if step is None else check_step(step), pinned=False)

    @guarded
    async def prune(self, *, dry_run: bool = False) -> PruneReport:
        """Delete what retention does not keep, and finish what interrupted prunes have left.

        Every save does this too, for the checkpoints in the state file; this looks at what the root really holds.

        Args:
            dry_run: only say what would be done.

        Returns:
            Each checkpoint, kept or deleted, and the reason.
        """
        if not dry_run:
            self._check_writable()
        return await self._layout.prune(dry_run=dry_run)

    @guarded
    async def sweep(self, grace: float | timedelta = _DAY, *, dry_run: bool = False) -> SweepReport:
        """Remove what saves that died have left.

        Args:
            grace: how long a save may have written nothing before it counts as dead; seconds, or a timedelta. A save that is
                alive but quiet for longer gets `SaveAbortedError` when it wants to commit.
            dry_run: only say what would be removed.
        """
        if not dry_run:
            self._check_writable()
        return await self._layout.sweep(check_grace(grace), dry_run=dry_run)

    async def close(self) -> None:
        """Wait for what is running, background saves included, then release everything. Calling twice is fine.

        Raises:
            Exception: the failure of a background save that nobody has awaited; or that of the state file, if it still
                cannot be written.
        """
        if self._guard.closed:
            return
        self._guard.check()
        self._guard.closed = True
        forget_default(self)
        try:
            await self._background.wait()
            await self._guard.wait_unused()
            await self._background.wait()  # for those that were being staged
            if self._layout.line.state_error is not None:
                await self._layout.line.repair_state()
            self._background.raise_unobserved()
        finally:
            self._staging.close()
            await self._layout.close()

    async def __aenter__(self) -> Self:
        self._guard.check()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except Exception as error:
            if exc is None:
                raise
            # The block's own error goes first; this one must not be lost either.
            exc.add_note(f"closing {self.url} failed too: {type(error).__name__}: {error}")
            log.exception("closing %s failed", self.url)

    async def _open(self, step: int | None) -> CheckpointReader:
        number = None if step is None else check_step(step)
        return CheckpointReader(self._root, await self._layout.source(number))

    def _check_may_save(self) -> None:
        self._check_writable()
        self._background.raise_unobserved()

    def _check_writable(self) -> None:
        if self._read_only:
            raise ReadOnlyError(f"the saver of {self.url} is read-only")
