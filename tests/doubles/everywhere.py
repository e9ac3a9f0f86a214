"""What may go wrong with a call of a store, to be tried at every call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from .scripted import Cancel, Fail, Script, from_nth, nth
from .world import broken, timed_out

KINDS = ["lost request", "lost reply", "refused", "dies", "cancelled before", "cancelled after"]


def script_of(kind: str, number: int, task: Callable[[], asyncio.Task[Any]]) -> Script:
    """The script in which a call of that number goes wrong in one of these ways; a task is cancelled by what gives it."""
    match kind:
        case "lost request":
            return nth(number, Fail(timed_out()))
        case "lost reply":
            return nth(number, Fail(timed_out(), applied=True))
        case "refused":
            return nth(number, Fail(broken()))
        case "dies":
            return from_nth(number, timed_out)
        case "cancelled before":
            return nth(number, Cancel(task))
        case _:
            return nth(number, Cancel(task, applied=True))
