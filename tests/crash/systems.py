"""The operating system as the local store sees it, with somebody in its way."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from asyncsaver_backends import _direct, _posix, _posix_draft, local

Around = Callable[[str, Callable[[], Any]], Any]
"""Gets the name of a system call and what makes it; returns what the call returns."""

# What the local store asks the kernel for where it changes anything, and where it only looks.
CHANGING = frozenset(
    {"open", "fallocate", "pwrite", "utime", "fsync", "close", "replace", "link", "unlink", "mkdir", "rmdir", "scandir"}
)
LOOKING = frozenset({"fstat", "lstat", "stat", "preadv", "flock"})


@dataclass(frozen=True, slots=True)
class _Watched:
    """A module, whose system calls go through another function."""

    module: Any
    around: Around

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.module, name)
        if name not in CHANGING | LOOKING:
            return found
        return lambda *arguments, **options: self.around(name, partial(found, *arguments, **options))


@contextmanager
def watched(around: Around) -> Iterator[None]:
    """Send all system calls of local stores through a function, from whatever thread."""
    places = [(vars(module), "os") for module in (_posix, _posix_draft, _direct, local)]
    places += [(vars(_posix_draft), "fcntl"), (vars(_direct), "_reserve")]
    before = [names[name] for names, name in places]
    for (names, name), module in zip(places, before, strict=True):
        names[name] = _Watched(module, around)
    try:
        yield
    finally:
        for (names, name), module in zip(places, before, strict=True):
            names[name] = module


@dataclass(slots=True)
class Failure:
    """One system call fails.

    Attributes:
        at: its number; None to count only.
        code: the errno.
        applied: whether it is carried out all the same, as over a network whose answer was lost.
        made: the names of all calls, in order.
    """

    at: int | None = None
    code: int = errno.EIO
    applied: bool = False
    made: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def around(self, name: str, call: Callable[[], Any]) -> Any:
        """Make the call, or fail."""
        with self._lock:
            number = len(self.made)
            self.made.append(name)
        if number != self.at:
            return call()
        if self.applied:
            with suppress(OSError):  # one that would have failed anyway fails in the way that is asked for
                call()
        raise OSError(self.code, os.strerror(self.code))


def sides_of(name: str) -> tuple[bool, ...]:
    """Whether a call can fail that was carried out, that was not, or both."""
    if name == "close":
        return (True,)  # the descriptor is gone, whatever the kernel answers
    if name in {"open", "scandir", "fstat", "lstat", "stat", "preadv", "flock"}:
        return (False,)  # the caller has what it asked for, or nothing was done
    return (False, True)


def full_disk(name: str, call: Callable[[], Any]) -> Any:
    """A disk on which there is room for names and for no content: whoever writes hears of it, in C code too."""
    found = call()
    if name == "open" and fcntl.fcntl(found, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, found, inheritable=False)
        os.close(full)
    return found
