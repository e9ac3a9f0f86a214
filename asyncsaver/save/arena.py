"""Memory for snapshots, used again for the next one as soon as nobody can read what it held."""

from __future__ import annotations

import contextlib
import mmap
import sys
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, cast

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_HUGE = 4 * 2**20  # from here on huge pages pay, as NumPy has it for its own arrays
_STEPS = 8  # sizes between one power of two and the next: a state that grows a little still fits
_MOST_SPARE = 2  # times as large as asked for: what is larger is left to whoever needs it


class Arena:
    """Lends memory to one snapshot after another.

    New memory is slow: the system fills every page with zeros when it is first touched, and a virtual machine may have to ask
    its host for it, which together take up to two seconds a gigabyte, where copying takes a tenth of one. So what a snapshot
    has used is kept for the next.

    It comes back by itself when the last array, memoryview or foreign buffer on it has died, and in no other way. A save that was
    cancelled may have ended while a request still reads its memory: that memory is not lent again before the request has let
    go of it.

    What is not lent is marked `MADV_FREE`: the system takes it away when memory runs short, without writing it anywhere, and
    as long as it does not, the next snapshot finds it in place. So an idle saver keeps nothing from anybody, though tools go on
    counting these pages as its own. Where the system has no such mark, memory that comes back is released: held, it would be
    of use to nobody else until the next save, which may be an hour away.

    `take` and `close` are called by one thread at a time; memory may come back on any.

    Args:
        new: maps so many bytes of new memory; `map_memory` by default.
    """

    def __init__(self, new: Callable[[int], mmap.mmap] | None = None) -> None:
        self._new = new or map_memory
        self._free: list[mmap.mmap] = []  # the one that came back last stands last
        # A finalizer may run within any call of any thread, `take` included, so it must not wait for a lock; nor does this.
        self._returned: SimpleQueue[mmap.mmap] = SimpleQueue()
        self._closed = threading.Event()

    def take(self, size: int, *, keep: int) -> Bytes:
        """Lend memory of ``size`` bytes, which begins at a page and may hold anything. Blocking, for a moment.

        Args:
            size: in bytes.
            keep: bytes of what came back, and does not serve now, to keep at most; what came back last stays longest.

        Raises:
            MemoryError: there is not as much.
        """
        if not size:
            return np.empty(0, np.uint8)
        self._free.extend(self._all_returned())
        fitting = [memory for memory in self._free if size <= len(memory) <= _MOST_SPARE * _rounded(size)]
        chosen = min(fitting, key=len, default=None)
        if chosen is not None:
            self._free.remove(chosen)
        while sum(map(len, self._free)) > max(0, keep):
            self._free.pop(0).close()
        memory = self._new(_rounded(size)) if chosen is None else chosen
        lent = _Lent(memory)
        weakref.finalize(lent, self._take_back, memory).atexit = False
        return cast("Bytes", np.asarray(cast("Any", lent)))[:size]

    def close(self) -> None:
        """Release everything; what is still lent is released when it comes back. Nothing can be taken afterwards."""
        self._closed.set()
        self._free.extend(self._all_returned())
        while self._free:
            self._free.pop().close()

    def _take_back(self, memory: mmap.mmap) -> None:
        if self._closed.is_set() or not _given_up(memory):
            memory.close()
            return
        self._returned.put(memory)
        if self._closed.is_set():  # in the meantime, by another thread
            for returned in self._all_returned():
                returned.close()

    def _all_returned(self) -> list[mmap.mmap]:
        returned: list[mmap.mmap] = []
        with contextlib.suppress(Empty):
            while True:
                returned.append(self._returned.get_nowait())
        return returned


class _Lent:
    """What all views of lent memory refer to in the end: it dies with the last of them.

    An array that NumPy makes from ``__array_interface__`` has the object that offers it as its base, and so has every view of
    that array. The memory itself could not tell: it must outlive its readers.
    """

    __slots__ = ("__array_interface__", "__weakref__", "_memory")

    def __init__(self, memory: mmap.mmap) -> None:
        self.__array_interface__ = np.frombuffer(memory, np.uint8).__array_interface__
        self._memory = memory  # for readers that are left when the interpreter ends, and has forgotten its finalizers


def map_memory(size: int) -> mmap.mmap:
    """New memory from the system, in huge pages where it has them.

    Raises:
        MemoryError: there is not as much.
    """
    try:
        # Private: what is shared, Python's default, cannot be marked as free, and would be seen by forked processes.
        memory = mmap.mmap(-1, size) if sys.platform == "win32" else mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)
    except OSError as error:
        raise MemoryError(f"no memory for a snapshot of {size} bytes: {error}") from error
    if size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        _advised(memory, mmap.MADV_HUGEPAGE)
    return memory


def _given_up(memory: mmap.mmap) -> bool:
    """Let the system take the memory's pages when it needs them; whether it can.

    Of huge pages a gigabyte takes a millisecond; of small ones fifty, less than releasing them.
    """
    return hasattr(mmap, "MADV_FREE") and _advised(memory, mmap.MADV_FREE)


def _advised(memory: mmap.mmap, advice: int) -> bool:
    try:
        memory.madvise(advice)
    except OSError:  # this kernel was built without it, or the process has locked its memory
        return False
    return True


def _rounded(size: int) -> int:
    """Up to an eighth more, so that a state of nearly this size fits as well; pages that nobody touches take no memory."""
    step = max(mmap.PAGESIZE, (1 << (size.bit_length() - 1)) // _STEPS)
    return -(-size // step) * step
