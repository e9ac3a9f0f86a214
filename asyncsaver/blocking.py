"""The same saver for callers without an event loop: scripts, notebooks' plain cells, callbacks of synchronous frameworks.

Every method does what the one of the same name of `asyncsaver.Saver` does, and returns when that is done. It works from any
thread, also while an event loop runs in the caller's: the work is done in a loop of its own, in one thread of its own.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from asyncsaver import functions, saver
from asyncsaver.aio.portal import Portal
from asyncsaver.layout.definitions import check_definition
from asyncsaver.model.checkpoint import Checkpoint, Progress
from asyncsaver.model.leaves import TensorInfo
from asyncsaver.restore import reader
from asyncsaver.save import background

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from asyncsaver.layout.definitions import Definition

P = ParamSpec("P")
T = TypeVar("T")


def _of_saver(
    method: Callable[Concatenate[saver.Saver, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Saver, P], T]:
    @functools.wraps(method)
    def call(self: Saver, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._portal.call(method(self._saver, *args, **kwargs))

    return call


def _of_reader(
    method: Callable[Concatenate[reader.CheckpointReader, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[CheckpointReader, P], T]:
    @functools.wraps(method)
    def call(self: CheckpointReader, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._portal.call(method(self._reader, *args, **kwargs))

    return call


class PendingSave:
    """As `asyncsaver.PendingSave`, to be asked rather than awaited."""

    def __init__(self, portal: Portal, pending: background.PendingSave) -> None:
        self._portal = portal
        self._pending = pending
        self.step = pending.step

    @property
    def progress(self) -> Progress:
        """Where it stands."""
        return self._pending.progress

    def done(self) -> bool:
        """Whether it has ended."""
        return self._pending.done()

    def result(self) -> Checkpoint:
        """Wait for the checkpoint; raises what the save raised."""

        async def wait() -> Checkpoint:
            return await self._pending

        return self._portal.call(wait())

    def cancel(self) -> None:
        """Give it up."""

        async def cancel() -> None:
            self._pending.cancel()

        self._portal.call(cancel())


class CheckpointReader:
    """As `asyncsaver.CheckpointReader`."""

    def __init__(self, portal: Portal, opened: reader.CheckpointReader, *, owns_portal: bool = False) -> None:
        self._portal = portal
        self._reader = opened
        self._owns_portal = owns_portal

    @property
    def checkpoint(self) -> Checkpoint:
        """Which one."""
        return self._reader.checkpoint

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Name → dtype, shape and size in bytes."""
        return self._reader.tensors

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Tensor → why it cannot be read."""
        return self._reader.unreadable

    @property
    def metadata(self) -> Any:
        """The user's JSON."""
        return self._reader.metadata

    read = _of_reader(reader.CheckpointReader.read)
    restore = _of_reader(reader.CheckpointReader.restore)
    verify = _of_reader(reader.CheckpointReader.verify)
    _close = _of_reader(reader.CheckpointReader.close)

    def close(self) -> None:
        """Let prunes have the checkpoint, and release what was opened for it. Calling twice is fine."""
        if not self._owns_portal:
            self._close()
        elif not self._portal.closed:
            try:
                self._close()
            finally:
                self._portal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_checkpoint(
    url: str | os.PathLike[str],
    format: str = "auto",  # noqa: A002 - as there
    *,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> CheckpointReader:
    """As `asyncsaver.open_checkpoint`, blocking. Close the reader afterwards: it has a thread of its own."""
    portal = Portal("asyncsaver-loop", "the reader")
    opening = functions.open_checkpoint(url, format, storage_options=storage_options, filesystem=filesystem)
    try:
        return CheckpointReader(portal, portal.call(opening), owns_portal=True)
    except BaseException:
        portal.close()
        raise


class Saver:
    """As `asyncsaver.Saver`, blocking.

    Args:
        url: as there.
        options: as there. ``progress`` is called in the saver's own thread.
    """

    def __init__(self, url: str | os.PathLike[str], **options: Any) -> None:
        self._saver = saver.Saver(url, **options)
        self._portal = Portal("asyncsaver-loop", f"the saver of {self._saver.url}")

    @property
    def url(self) -> str:
        """The root, without credentials."""
        return self._saver.url

    @property
    def last_checkpoints(self) -> list[str]:
        """See `asyncsaver.Saver.last_checkpoints`."""
        return self._saver.last_checkpoints

    @functools.wraps(saver.Saver.set_last_checkpoints)
    def set_last_checkpoints(self, *args: Any, **kwargs: Any) -> None:  # noqa: D102 - that of the wrapped one
        self._saver.set_last_checkpoints(*args, **kwargs)

    @functools.wraps(saver.Saver.set_last_checkpoints_with_time)
    def set_last_checkpoints_with_time(self, *args: Any, **kwargs: Any) -> None:  # noqa: D102 - as above
        self._saver.set_last_checkpoints_with_time(*args, **kwargs)

    @functools.wraps(saver.Saver.to_proto)
    def to_proto(self, export_scope: str | None = None) -> bytes | None:  # noqa: D102 - as above
        return self._saver.to_proto(export_scope)

    @functools.wraps(saver.Saver.encode_meta)
    def encode_meta(self, *args: Any, **kwargs: Any) -> bytes:  # noqa: D102 - as above
        return self._saver.encode_meta(*args, **kwargs)

    @classmethod
    def from_proto(
        cls, saver_def: Definition, url: str | os.PathLike[str], import_scope: str | None = None, **options: Any
    ) -> Self:
        """See `asyncsaver.Saver.from_proto`."""
        return cls(url, **options, saver_def=check_definition(saver_def, import_scope))

    export_meta = _of_saver(saver.Saver.export_meta)
    recover_last_checkpoints = _of_saver(saver.Saver.recover_last_checkpoints)
    save = _of_saver(saver.Saver.save)
    restore = _of_saver(saver.Saver.restore)
    latest = _of_saver(saver.Saver.latest)
    checkpoints = _of_saver(saver.Saver.checkpoints)
    verify = _of_saver(saver.Saver.verify)
    delete = _of_saver(saver.Saver.delete)
    pin = _of_saver(saver.Saver.pin)
    unpin = _of_saver(saver.Saver.unpin)
    prune = _of_saver(saver.Saver.prune)
    sweep = _of_saver(saver.Saver.sweep)
    _save_in_background = _of_saver(saver.Saver.save_in_background)
    _open = _of_saver(saver.Saver.open)
    _close = _of_saver(saver.Saver.close)

    @functools.wraps(saver.Saver.save_in_background)
    def save_in_background(self, *args: Any, **kwargs: Any) -> PendingSave:  # noqa: D102 - that of the wrapped one
        return PendingSave(self._portal, self._save_in_background(*args, **kwargs))

    @functools.wraps(saver.Saver.open)
    def open(self, step: int | None = None) -> CheckpointReader:  # noqa: D102 - that of the wrapped one
        return CheckpointReader(self._portal, self._open(step))

    def close(self) -> None:
        """Wait for background saves, then release everything, the thread included. Calling twice is fine."""
        if self._portal.closed:
            return
        try:
            self._close()
        finally:
            self._portal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception as error:
            if exc is None:
                raise
            # The block's own error goes first; this one must not be lost either.
            exc.add_note(f"closing {self.url} failed too: {type(error).__name__}: {error}")
