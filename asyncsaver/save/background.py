"""Saves that go on while the caller trains."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from asyncsaver.aio.completion import to_completion
from asyncsaver.model.checkpoint import Checkpoint, Progress


class PendingSave:
    """A save whose state is staged and whose bytes are on their way. Await it for the `Checkpoint`.

    Cancelling who awaits it does not cancel the save; `cancel` does. A failure that nobody awaits is raised by the saver's next
    save, and by its `close`.

    Attributes:
        step: of the checkpoint.
    """

    def __init__(self, task: asyncio.Task[Checkpoint], step: int | None, nbytes: int) -> None:
        self.step = step
        self._task = task
        self._observed = False
        self._progress = Progress("writing", step, 0, nbytes)

    def __repr__(self) -> str:
        done, total = self._progress.bytes_done, self._progress.bytes_total
        name = self._task.get_name().removeprefix("save ")  # the saver calls its tasks after their checkpoints
        return f"<PendingSave of {name}, step {self.step}: {self._state()}, {done} of {total} bytes written>"

    def _state(self) -> str:
        if self._task.done():
            error = None if self._task.cancelled() else self._task.exception()
            return "cancelled" if self._task.cancelled() else f"failed ({error!r})" if error else "committed"
        return self._progress.phase if self._progress.bytes_done else "staged"

    @property
    def progress(self) -> Progress:
        """Where it stands: phase, and bytes uploaded of bytes staged."""
        return self._progress

    def done(self) -> bool:
        """Whether it has ended: committed, failed or cancelled."""
        return self._task.done()

    def cancel(self) -> None:
        """Give it up. What was written is deleted; if it is being committed, it may still become a checkpoint."""
        self._observed = True
        self._task.cancel()

    def __await__(self) -> Generator[Any, None, Checkpoint]:
        return self._wait().__await__()

    async def _wait(self) -> Checkpoint:
        await asyncio.wait([self._task])
        self._observed = True
        return self._task.result()

    def update(self, progress: Progress) -> None:
        """Called by the saver as the work advances."""
        self._progress = progress

    def unobserved_error(self) -> BaseException | None:
        """Its failure, once, if nobody has seen it yet."""
        if not self._task.done() or self._task.cancelled():
            return None
        error = self._task.exception()  # also tells asyncio that it was looked at
        if self._observed or error is None:
            return None
        self._observed = True
        return error


class BackgroundSaves:
    """The pending saves of one saver, and the failures that nobody has seen yet."""

    def __init__(self) -> None:
        self._pending: set[PendingSave] = set()
        self._failed: list[PendingSave] = []

    def add(self, pending: PendingSave, task: asyncio.Task[Checkpoint]) -> None:
        """Keep hold of a save until it has ended."""
        self._pending.add(pending)

        def ended(_: asyncio.Task[Checkpoint]) -> None:
            self._pending.discard(pending)
            if not task.cancelled() and task.exception() is not None:
                self._failed.append(pending)

        task.add_done_callback(ended)

    def raise_unobserved(self) -> None:
        """Raise the oldest failure that nobody has seen, with the others as notes on it."""
        errors = [error for pending in self._failed if (error := pending.unobserved_error()) is not None]
        self._failed.clear()
        if not errors:
            return
        first, *others = errors
        first.add_note("This save ran in the background; nobody had awaited it.")
        for other in others:
            first.add_note(f"So did another one, which failed too: {type(other).__name__}: {other}")
        raise first

    async def wait(self) -> None:
        """Until all have ended. When cancelled, they are cancelled too, and waited for."""
        tasks = [pending._task for pending in self._pending]  # noqa: SLF001 - one room
        if not tasks:
            return
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for pending in list(self._pending):
                pending.cancel()
            await to_completion(asyncio.wait(tasks))  # a second cancellation must not leave them behind
            raise
        await asyncio.sleep(0)  # the callbacks that note failures run in the next turn of the loop
