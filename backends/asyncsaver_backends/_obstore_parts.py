"""One multipart upload through obstore, from parts that are lent to it and left as soon as each is sent.

obstore has no call for a single part: it takes an iterator and does the rest. An upload that fails or is cancelled it leaves
unfinished, without a name for it; the caller of `send_parts` is told whether there is one to be aborted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from contextlib import AbstractContextManager
from typing import Any

from asyncsaver.aio.completion import to_completion
from asyncsaver.aio.tasks import raise_first
from asyncsaver.store.buffers import pieces_of
from asyncsaver.store.contract import Part
from asyncsaver_backends._obstore_lending import Feed, Loan

Send = Callable[[Feed], "asyncio.Future[Any]"]


class PartsMissingError(Exception):
    """The parts do not add up to the size that was announced."""


class StalledError(Exception):
    """Nothing moved any more."""


class Deadline:
    """Ends the task that uses it once nothing moves: no part was sent in the time that those in flight may take.

    Args:
        limit: the time limit to move.
        patience: how long a request with so many bytes in flight may take, in seconds.
    """

    def __init__(self, limit: asyncio.Timeout, patience: Callable[[int], float]) -> None:
        self._limit = limit
        self._patience = patience
        self._flying = 0
        self._awaiting = True

    def fly(self, size: int) -> None:
        """Count bytes that are handed over (positive) or were sent (negative)."""
        self._flying += size
        self.restart()

    def restart(self) -> None:
        """Wait afresh; without an end while there is nothing to send, since that is up to the caller."""
        if self._limit.expired():
            return
        idle = not self._awaiting and not self._flying
        now = asyncio.get_running_loop().time()
        self._limit.reschedule(None if idle else now + self._patience(self._flying))

    def await_store(self, *, awaiting: bool) -> None:
        """Say whether the store has to answer now, with nothing sent to it: it makes the upload, or completes it."""
        self._awaiting = awaiting
        self.restart()


async def send_parts(
    parts: AsyncIterable[Part],
    size: int,
    send: Send,
    *,
    feed: Feed,
    patience: Callable[[int], float],
    creation_seconds: float,
    translated: AbstractContextManager[None],
) -> None:
    """Upload an object; when anything fails, all that was begun here is over before the error is raised.

    Args:
        parts: of the object; what they raise passes through.
        size: their sum, in bytes.
        send: starts the upload from a feed.
        feed: a fresh one; its ``begun`` tells afterwards whether an upload exists.
        patience: see `Deadline`.
        creation_seconds: how long a cancellation waits for the store to make the upload, so that it can be aborted.
        translated: names the errors of the upload.

    Raises:
        PartsMissingError: the parts do not add up; nothing was completed.
        StalledError: see there.
    """
    total, concluded = 0, False

    async def hold(part: Part) -> None:
        nonlocal total
        with pieces_of(part) as pieces:
            size_of_part = sum(len(piece) for piece in pieces)
            total += size_of_part
            loans = [Loan() for _ in pieces]
            for loan, piece in zip(loans, pieces, strict=True):
                feed.put(loan.lend(piece))
            deadline.fly(size_of_part)
            try:
                for loan in loans:
                    await loan.returned()
            finally:
                for loan in loans:
                    await loan.settle()
            deadline.fly(-size_of_part)

    async def conclude() -> None:
        nonlocal concluded
        # Tasks start in the order in which they were made, so every part has been entered and counted by now.
        if total != size:
            raise PartsMissingError
        concluded = True
        deadline.await_store(awaiting=True)
        feed.end()

    limit = asyncio.timeout(None)
    deadline = Deadline(limit, patience)
    # All parts may have been given before the store has made the upload: then its completion is awaited already.
    feed.on_begun = lambda: deadline.await_store(awaiting=concluded)
    try:
        async with limit, asyncio.TaskGroup() as group:
            deadline.await_store(awaiting=True)
            group.create_task(_upload(send, feed, creation_seconds, translated))
            async for part in parts:
                group.create_task(hold(part))
            group.create_task(conclude())
    except TimeoutError as error:
        raise StalledError from error
    except BaseExceptionGroup as failures:
        raise_first(failures)


async def _upload(send: Send, feed: Feed, creation_seconds: float, translated: AbstractContextManager[None]) -> None:
    sending = send(feed)
    try:
        with translated:
            await asyncio.shield(sending)
    except asyncio.CancelledError:
        await to_completion(_stop(sending, feed, creation_seconds))
        raise
    finally:
        feed.abandon()


async def _stop(sending: asyncio.Future[Any], feed: Feed, creation_seconds: float) -> None:
    """Cancel an upload, but only when the store has made it or refused to: one whose making is lost is never aborted."""
    feed.abandon()
    begun = asyncio.ensure_future(feed.begun.wait())
    try:
        await asyncio.wait([sending, begun], timeout=creation_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        begun.cancel()
    sending.cancel()
    await asyncio.wait([sending, begun])
    if not sending.cancelled():
        sending.exception()  # seen: the cancellation goes first
