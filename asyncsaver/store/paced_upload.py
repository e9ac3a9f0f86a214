"""One upload in parts, at the pace that the store bears: a slot for each part that is being sent."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from asyncsaver.aio.meter import current_meter
from asyncsaver.aio.window import RequestWindow
from asyncsaver.errors import StoreError
from asyncsaver.store.buffers import pieces_of
from asyncsaver.store.contract import Part, ScatteredPart
from asyncsaver.store.resend import Again, Resend

Failed = Callable[[StoreError, int], None]
"""Told of an error, and of the window's era in which the request was sent."""


@dataclass(slots=True)
class _Slot:
    """The place of one part in the window; empty while the part pauses."""

    window: RequestWindow
    era: int = 0
    held: bool = False

    async def take(self) -> None:
        await self.window.acquire()
        self.held = True
        self.era = self.window.era

    def give_back(self) -> None:
        if self.held:
            self.held = False
            self.window.release()


class PacedUpload:
    """The parts of one object, each of which holds a slot while it is sent, and the tries of its requests (a `Resend`).

    A part that was refused keeps its memory while it pauses, and gives its slot up; then it waits in line like any other. Every
    try counts as a request.

    Args:
        parts: of the object.
        resend: decides.
        window: of the slots.
        answered: called when a part has landed.
        failed: told of each failure that the store asks about.

    Attributes:
        era: when the latest part was handed over.
        told: the latest error that `failed` was told of.
    """

    def __init__(
        self,
        parts: AsyncIterable[Part],
        resend: Resend,
        *,
        window: RequestWindow,
        answered: Callable[[], None],
        failed: Failed,
    ) -> None:
        self.era = window.era
        self.told: StoreError | None = None
        self._parts: AsyncIterator[Part] = aiter(parts)
        self._resend = resend
        self._window = window
        self._answered = answered
        self._failed = failed
        self._meter = current_meter()
        self._given = 0
        self._slots: dict[int, _Slot] = {}

    # --- the parts -------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Part:
        part = await anext(self._parts)
        slot = _Slot(self._window)
        await slot.take()
        self._given += 1
        self._slots[self._given] = slot
        self._meter.requests["part"] += 1
        self.era = slot.era
        return _PacedPart(part, partial(self._sending, self._given))

    def give_up(self) -> None:
        """Give the slots of parts back that the store was handed and has never entered."""
        for slot in self._slots.values():
            slot.give_back()
        self._slots.clear()

    @contextmanager
    def _sending(self, number: int) -> Iterator[None]:
        slot = self._slots[number]
        try:
            yield
            self._answered()
            self._window.succeeded(slot.era)
        finally:
            slot.give_back()
            del self._slots[number]

    # --- the tries of its requests -------------------------------------------------------------------------------

    @property
    def timeout(self) -> float:
        """See `Resend`."""
        return self._resend.timeout

    def request(self) -> Again:
        """See `Resend`."""
        return _PacedTries(self, "put_parts", self._resend.request(), None)

    def part(self, number: int) -> Again:
        """See `Resend`."""
        return _PacedTries(self, "part", self._resend.part(number), self._slots[number])

    def failing_for(self, seconds: float) -> None:
        """See `Resend`."""
        self._resend.failing_for(seconds)

    def refused(self, error: StoreError, era: int) -> None:
        """Pass on what became of a try."""
        self.told = error
        self._failed(error, era)

    def count(self, kind: str) -> None:
        """Count a further try."""
        self._meter.requests[kind] += 1

    def now(self) -> int:
        """The window's era."""
        return self._window.era


class _PacedTries:
    """The tries of one request; those of a part have a slot."""

    def __init__(self, upload: PacedUpload, kind: str, again: Again, slot: _Slot | None) -> None:
        self._upload = upload
        self._kind = kind
        self._again = again
        self._slot = slot
        self._era = upload.now() if slot is None else slot.era

    async def another(self, error: StoreError) -> bool:
        self._upload.refused(error, self._era)
        if self._slot is not None:
            self._slot.give_back()
        if not await self._again.another(error):
            return False
        if self._slot is not None:
            await self._slot.take()
        self._era = self._upload.now()
        self._upload.count(self._kind)
        return True


class _PacedPart(ScatteredPart):
    """A part, as it was given, that tells when it is left.

    Args:
        part: as it was given.
        sending: makes what is entered before it and left after it.
    """

    def __init__(self, part: Part, sending: Callable[[], AbstractContextManager[None]]) -> None:
        self._part = part
        self._sending = sending
        self._entered = ExitStack()

    def __enter__(self) -> memoryview:
        with ExitStack() as entering:
            entering.enter_context(self._sending())
            data = entering.enter_context(self._part)
            self._entered = entering.pop_all()
        return data

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered.__exit__(exc_type, exc, traceback)

    @contextmanager
    def pieces(self) -> Iterator[Sequence[memoryview]]:
        """See `ScatteredPart`."""
        with self._sending(), pieces_of(self._part) as pieces:
            yield pieces
