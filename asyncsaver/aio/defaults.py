"""Default savers, one set of them for each context: what runs within `as_default`, and the tasks that are started there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

S = TypeVar("S")

_savers: ContextVar[tuple[Any, ...]] = ContextVar("asyncsaver_default_savers", default=())


@contextmanager
def as_default(saver: S) -> Iterator[S]:
    """Make a saver a default one for the block.

    Tasks that are started in the block have it too, for as long as they run; what those add is not seen here.

    Args:
        saver: any saver. One that is a default already stays one after the block.
    """
    already = _is_default(saver)
    if not already:
        _savers.set((*_savers.get(), saver))
    try:
        yield saver
    finally:
        if not already:
            forget_default(saver)


def get_default_saver(make: Callable[[], S]) -> S:
    """The default saver of this context; where there is none yet, a new one, which is the default from then on.

    Args:
        make: makes a new one. What it raises is raised here, and there is still no default then.

    Raises:
        RuntimeError: there are several.
    """
    found = _savers.get()
    if len(found) > 1:
        raise RuntimeError(
            f"More than one default saver in this context: {', '.join(map(repr, found))}. "
            "Please indicate which one to use by passing it."
        )
    if found:
        default: S = found[0]
        return default
    saver = make()
    _savers.set((saver,))
    return saver


def forget_default(saver: object) -> None:
    """Let a saver be no default any more in this context, when it is closed for one. Fine if it is none."""
    if _is_default(saver):
        _savers.set(tuple(one for one in _savers.get() if one is not saver))


def _is_default(saver: object) -> bool:
    return any(one is saver for one in _savers.get())
