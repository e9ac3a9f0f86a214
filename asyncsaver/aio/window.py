"""How many requests may be in flight: as many as the store bears."""

from __future__ import annotations

from asyncsaver.aio.budget import Quota

_CAUTION = 16
"""How many full windows of successes it takes to try again what was refused the last time."""


class RequestWindow:
    """Additive increase, multiplicative decrease: what TCP does against congestion, done to requests.

    A refusal halves the window, and a full window of successes widens it by one, between 1 and ``most``. Slots are given
    first come, first served.

    Requests that were sent before a refusal, and are refused as well, tell nothing new: the window is halved once for all of
    them. Nor is it halved again before something has succeeded: when nothing does, the store is down rather than crowded, and
    a window of one would only make the recovery long. It widens only while it is used to the full: what was never tried is
    not known to be borne. The width that was refused last is tried again late: where the store has a fixed limit, every such
    trial is refused, and costs a pause.

    Args:
        most: requests in flight at most, and to begin with; at least 1.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._slots = Quota(most)
        self._era = 0
        self._widening = 0
        self._refused_at = most + 1
        self._answered = True

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return self._slots.limit

    @property
    def era(self) -> int:
        """How often it was halved. A request notes it when it is sent."""
        return self._era

    async def acquire(self, count: int = 1) -> None:
        """Wait for slots; more than there are at all come when nothing else is in flight. When cancelled, none are held."""
        await self._slots.acquire(count)

    def release(self, count: int = 1) -> None:
        """Give slots back; to be called after the outcome of the request was told."""
        self._slots.release(count)

    def succeeded(self, era: int) -> None:
        """Learn that a request that held a slot, sent in that era, has succeeded."""
        self._answered = True
        if era != self._era or self._slots.used < self.limit or self.limit == self._most:
            return
        self._widening += 1
        wider = self.limit + 1
        if self._widening >= self.limit * (_CAUTION if wider == self._refused_at else 1):
            self._widening = 0
            self._slots.resize(wider)

    def refused(self, era: int) -> None:
        """Learn that the store could not serve a request that was sent in that era: throttled, timed out, cut off."""
        if era != self._era or not self._answered:
            return
        self._era += 1
        self._refused_at = self.limit
        self._widening = 0
        self._answered = False
        self._slots.resize(max(1, self.limit // 2))
