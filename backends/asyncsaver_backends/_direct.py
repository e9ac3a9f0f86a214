"""Writing past the page cache, where the filesystem lets us: several times faster for what is synced at the end anyway.

Every method may raise `OSError`; the caller translates.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from asyncsaver_backends import _reserve

# A multiple of every logical block size in use (512 to 4096) and the size of a page: open(2), "O_DIRECT".
ALIGNMENT = 4096
BLOCK_BYTES = 2 * 2**20  # a huge page, on most machines
_NO_DIRECT = frozenset(
    {
        errno.EINVAL,  # says open(2) of filesystems that have no O_DIRECT
        errno.EOPNOTSUPP,
        errno.EACCES,  # with an umask that takes the right to write away from ourselves
    }
)
# The filesystem can only write, not reserve; or not that much in one call. Then the writes tell how it goes.
_NO_RESERVATION = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV, errno.EINVAL, errno.EPERM})
# EFAULT: memory that another device has mapped can be read by us and not by the disk.
_NOT_FROM_THERE = frozenset({errno.EINVAL, errno.EFAULT})

Bytes = npt.NDArray[np.uint8]


class DirectWriting:
    """What all direct writes of one store share: the page-aligned memory that blocks go through.

    A disk reads from memory as it lies if that is aligned as the disk wants it, which tensors seldom are. The others are
    copied block by block, into one block of `BLOCK_BYTES` for each thread that writes; these are made when first needed,
    and stay until `close`.
    """

    def __init__(self) -> None:
        self._free: list[Bytes] = []
        self._lock = threading.Lock()
        self._closed = False
        self.any_memory = True
        """Whether the disk may take memory at any address; until one refuses. NVMe disks do, with Linux 6.0 and later."""

    @contextlib.contextmanager
    def block(self) -> Iterator[Bytes]:
        """Lend an aligned block."""
        with self._lock:
            block = self._free.pop() if self._free else None
        if block is None:
            block = _new_block()
        try:
            yield block
        finally:
            with self._lock:
                if not self._closed:
                    self._free.append(block)

    def close(self) -> None:
        """Let go of the memory; blocks that are lent follow when they come back."""
        with self._lock:
            self._closed = True
            self._free.clear()


class DirectFile:
    """A file that exists, opened a second time, for direct writes; beside them it can be written as usual.

    Args:
        path: of the file.
        shared: the memory.

    Raises:
        OSError: see `refuses`.
    """

    def __init__(self, path: str, shared: DirectWriting) -> None:
        self._shared = shared
        self._refused = False
        self._fd = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC | os.O_NOFOLLOW)

    @staticmethod
    def refuses(error: OSError) -> bool:
        """Whether an error of the constructor means that files here are not written directly."""
        return error.errno in _NO_DIRECT

    def reserve(self, size: int) -> None:
        """Give the file its size and its room on the disk, so that the writes do not queue up to make it longer.

        Raises:
            OSError: there is no room.
        """
        try:
            _reserve.fallocate(self._fd, size)
        except OSError as error:
            if error.errno not in _NO_RESERVATION:
                raise

    def write_at(self, view: memoryview, offset: int) -> int:
        """Write from the beginning of ``view`` (bytes) at byte ``offset`` of the file, as far as that goes directly.

        Returns:
            How many bytes: none where the offset is not aligned or the filesystem refuses, and never an incomplete block at
            the end. The others are to be written as usual.
        """
        if offset % ALIGNMENT or len(view) < ALIGNMENT:
            return 0
        data = np.frombuffer(view, np.uint8)
        whole = data.size - data.size % ALIGNMENT
        done = 0
        while done < whole and not self._refused:
            count = self._write_some(data[done:whole], offset + done)
            done += count
            if count % ALIGNMENT:
                break  # cut short, as by a signal, where it cannot go on
        return done

    def write_gathered(self, pieces: Sequence[memoryview], offset: int) -> int:
        """As `write_at`, for what lies in several pieces (bytes): copied together a block at a time."""
        size = sum(len(piece) for piece in pieces)
        whole = 0 if offset % ALIGNMENT else size - size % ALIGNMENT
        done = 0
        while done < whole and not self._refused:
            with self._shared.block() as block:
                taken = block[: whole - done]
                _gather(pieces, done, taken)
                count = self._write_aligned(taken, offset + done)
            done += count
            if count % ALIGNMENT:
                break  # as above
        return done

    def _write_some(self, data: Bytes, offset: int) -> int:
        if self._shared.any_memory or data.ctypes.data % ALIGNMENT == 0:
            try:
                return self._count(os.pwrite(self._fd, data.data, offset))
            except OSError as error:
                if error.errno not in _NOT_FROM_THERE:
                    raise
                self._shared.any_memory = False
        with self._shared.block() as block:
            taken = block[: data.size]
            np.copyto(taken, data[: taken.size])
            return self._write_aligned(taken, offset)

    def _write_aligned(self, data: Bytes, offset: int) -> int:
        try:
            return self._count(os.pwrite(self._fd, data.data, offset))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._refused = True
            return 0

    def _count(self, written: int) -> int:
        self._refused = self._refused or not written
        return written

    def close(self) -> None:
        """Close it, once."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _new_block() -> Bytes:
    """Make a block of a huge page, if there are any: the disk takes it in one go, rather than as 512 pages that lie anywhere."""
    # Private: a forked process must not write into blocks that are on their way to our disk.
    memory = mmap.mmap(-1, 2 * BLOCK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # neither every platform nor every kernel has them
        memory.madvise(mmap.MADV_HUGEPAGE)
    room = np.frombuffer(memory, np.uint8)
    start = -room.ctypes.data % BLOCK_BYTES  # what lies around the block is never touched, and takes no memory
    return room[start : start + BLOCK_BYTES]


def _gather(pieces: Sequence[memoryview], start: int, target: Bytes) -> None:
    """Fill the target with what lies in the pieces from byte ``start`` on, all of them taken together."""
    filled = 0
    for piece in pieces:
        skipped = min(start, len(piece))
        start -= skipped
        found = np.frombuffer(piece, np.uint8)[skipped : skipped + target.size - filled]
        np.copyto(target[filled : filled + found.size], found)
        filled += found.size
