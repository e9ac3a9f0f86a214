"""Reserving room in a file: fallocate(2) itself.

Not `os.posix_fallocate`, which on filesystems without it writes a byte into every block: over NFS, slower than the data.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from typing import Protocol


class _Function(Protocol):
    def __call__(self, fd: int, mode: int, offset: int, length: int, /) -> int: ...


def fallocate(fd: int, size: int) -> None:
    """Make a file ``size`` bytes long, with room for all of them.

    Raises:
        OSError: ENOSPC where there is no room, EOPNOTSUPP or ENOSYS where that cannot be known beforehand.
    """
    reserve = _function()
    while reserve(fd, 0, 0, size):
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


@cache
def _function() -> _Function:
    library = ctypes.CDLL(None, use_errno=True)
    # With 64-bit offsets on every machine, where the C library has the choice.
    found = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if found is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    found.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    found.restype = ctypes.c_int
    function: _Function = found
    return function
