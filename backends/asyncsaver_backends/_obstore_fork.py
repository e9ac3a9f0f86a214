"""obstore's threads serve one process. A fork does not take them along, and whoever waits for them there waits for ever."""

from __future__ import annotations

import functools
import os

from asyncsaver.errors import UnsupportedStoreError


@functools.cache
def _first_process() -> int:
    """The process that asked first; remembered, as obstore's threads are, for all of it and for its forks."""
    return os.getpid()


def enter_process() -> None:
    """Say that obstore's threads are about to be started here, unless they run already.

    Raises:
        UnsupportedStoreError: see `check_process`.
    """
    check_process()
    _first_process()


def check_process() -> None:
    """Refuse a process that was forked from one in which obstore's threads had been started.

    Raises:
        UnsupportedStoreError: it is one.
    """
    if _first_process.cache_info().currsize and _first_process() != os.getpid():
        raise UnsupportedStoreError(
            "engine='obstore' cannot be used in a process that was forked after it had been used; engine='fsspec' can"
        )
