"""What one operation asks of the store and of memory, counted while several run side by side."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Meter:
    """The counts of one operation: a save or a restore.

    Args:
        clock: seconds, monotonic.

    Attributes:
        requests: by kind, each try by itself.
        retries: how many of them were sent again after a failure.
        bytes_read: of ranges that have arrived.
        seconds_blocked: in which any of its work waited for memory; what waits side by side counts once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.requests: Counter[str] = Counter()
        self.retries = 0
        self.bytes_read = 0
        self.seconds_blocked = 0.0
        self._clock = clock
        self._waiting = 0
        self._since = 0.0

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """Count the time of a block as waiting for memory."""
        if not self._waiting:
            self._since = self._clock()
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.seconds_blocked += self._clock() - self._since


# A context variable lives in a module: in an object it would keep every context in which it was set from being freed.
_METER: ContextVar[Meter | None] = ContextVar("asyncsaver_meter", default=None)


@contextmanager
def metered(clock: Callable[[], float] = time.monotonic) -> Iterator[Meter]:
    """Count what a block does, and the tasks that are started in it, until they end."""
    meter = Meter(clock)
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


def current_meter() -> Meter:
    """That of the operation under way; outside of one, a meter that nobody reads."""
    return _METER.get() or Meter()
