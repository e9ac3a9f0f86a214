"""The blocking half of the local store: where objects lie, and how they are read, listed and deleted.

Every function may raise `OSError`; the caller translates.
"""
# ruff: noqa: PTH106, PTH108, PTH116, PTH118, PTH120 - which system calls are made, in which order, is what this file is about

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from asyncsaver.errors import (
    InvalidRootError,
    ObjectTruncatedError,
    StoreError,
)
from asyncsaver.store import Listing, ObjectInfo
from asyncsaver.store.paths import check_path, check_prefix

TEMPORARY_PREFIX = ".asyncsaver-tmp-"
LOCK_NAME = ".asyncsaver.lock"


def locate(root: str, path: str) -> str:
    """Return where an object lies, with all links in its folder resolved.

    Raises:
        StoreError: the path is reserved, or leaves the root, by itself or through a symbolic link.
        InvalidRootError: the root is not a folder.
    """
    folder, _, name = check_path(path).rpartition("/")
    if name.startswith(TEMPORARY_PREFIX) or path == LOCK_NAME:
        raise StoreError(f"{path} is a name that the store itself uses", path=path)
    return os.path.join(_real_folder(root, folder), name)


def _real_folder(root: str, folder: str) -> str:
    real_root = os.path.realpath(root)
    try:
        is_folder = stat.S_ISDIR(os.stat(real_root).st_mode)
    except FileNotFoundError:
        is_folder = True  # the first write makes it
    except NotADirectoryError as exc:
        raise InvalidRootError(f"{root} is not a folder, nor can it become one") from exc
    if not is_folder:
        raise InvalidRootError(f"{root} is not a folder")
    real = os.path.realpath(os.path.join(real_root, folder))
    if os.path.commonpath([real, real_root]) != real_root:
        raise StoreError(f"{folder} leads out of {root} through a symbolic link", path=folder)
    return real


def info_of(path: str, status: os.stat_result) -> ObjectInfo:
    """Describe an object; its etag changes with every version since each is a file of its own."""
    etag = f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
    return ObjectInfo(path, status.st_size, etag, datetime.fromtimestamp(status.st_mtime, UTC))


def head(root: str, path: str) -> ObjectInfo:
    """Describe an object."""
    target = locate(root, path)
    status = os.lstat(target)
    if not stat.S_ISREG(status.st_mode):
        raise _not_regular(target)
    return info_of(path, status)


def open_regular(target: str, flags: int = os.O_RDONLY) -> int:
    """Open a regular file and nothing else: a pipe would block for ever, a link could lead anywhere."""
    try:
        fd = os.open(target, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise _not_regular(target) from exc
        raise
    try:
        is_regular = stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        os.close(fd)
        raise
    if not is_regular:
        os.close(fd)
        raise _not_regular(target)
    return fd


def _not_regular(target: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "not a regular file", target)


class Reading:
    """An object that is being read; `close` is safe at any time."""

    def __init__(self, root: str, path: str) -> None:
        self._root = root
        self._path = path
        self._fd = -1

    def open(self) -> None:
        """Open the file."""
        self._fd = open_regular(locate(self._root, self._path))

    def read_into(self, view: memoryview, start: int) -> None:
        """Fill ``view`` (bytes) with what begins at byte ``start``."""
        done = 0
        while done < len(view):
            count = os.preadv(self._fd, [view[done:]], start + done)
            if not count:
                end = os.fstat(self._fd).st_size
                raise ObjectTruncatedError(
                    f"{self._path} ends at byte {end}, before {start + len(view)}", path=self._path
                )
            done += count

    def close(self) -> None:
        """Close the file, if it is open."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # it was only read from
                os.close(fd)


def remove_empty_folders(folder: str, real_root: str) -> None:
    """Remove a folder and those above it, up to the root, as long as they are empty."""
    while folder != real_root and folder.startswith(os.path.join(real_root, "")):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            pass  # gone, or never made, unlike the one above
        except OSError:
            return  # not empty
        folder = os.path.dirname(folder)


def delete(root: str, paths: Sequence[str]) -> dict[str, OSError]:
    """Remove objects, and folders that are empty without them; return what could not be removed."""
    failed: dict[str, OSError] = {}
    folders: dict[str, None] = {}
    for path in paths:
        try:
            target = locate(root, path)
            folders[os.path.dirname(target)] = None
            os.unlink(target)
        except (FileNotFoundError, NotADirectoryError) as exc:
            if isinstance(exc, StoreError):
                failed[path] = exc
        except OSError as exc:
            failed[path] = exc
    real_root = os.path.realpath(root)
    for folder in folders:
        remove_empty_folders(folder, real_root)
    return failed


def list_objects(root: str, prefix: str, *, delimiter: bool) -> Listing:
    """List regular files below a folder. Symbolic links are neither listed nor followed."""
    folder = _real_folder(root, check_prefix(prefix).rstrip("/"))
    if not delimiter:
        return Listing(tuple(sorted(_walk(folder, prefix), key=lambda info: info.path)))
    objects: list[ObjectInfo] = []
    prefixes: list[str] = []
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            below = f"{prefix}{entry.name}/"
            if _holds_objects(entry.path, below):
                prefixes.append(below)
        elif (info := _object(entry, prefix)) is not None:
            objects.append(info)
    return Listing(tuple(sorted(objects, key=lambda info: info.path)), tuple(sorted(prefixes)))


def _holds_objects(folder: str, prefix: str) -> bool:
    try:
        return any(True for _ in _walk(folder, prefix))
    except PermissionError:
        return True  # lost+found, for instance: something is there, and it is none of ours


def _walk(folder: str, prefix: str) -> Iterator[ObjectInfo]:
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{prefix}{entry.name}/")
        elif (info := _object(entry, prefix)) is not None:
            yield info


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []  # there is none, or no longer


def _object(entry: os.DirEntry[str], prefix: str) -> ObjectInfo | None:
    path = prefix + entry.name
    if entry.name.startswith(TEMPORARY_PREFIX) or path == LOCK_NAME or not entry.is_file(follow_symlinks=False):
        return None
    try:
        return info_of(path, entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return None  # deleted meanwhile


def purge(root: str, older_than: float, spare: tuple[str, ...], vacant: Callable[[str], bool]) -> int:
    """Remove temporary files that were last written more than ``older_than`` seconds ago; return how many.

    And folders in which nothing has come or gone for as long, and nothing is, if they are ``vacant``: a process that dies between
    removing the last file of a folder and the folder itself leaves one. What lies in folders whose path begins with one of
    ``spare`` stays.
    """
    removed = 0
    newest_to_go = time.time() - older_than
    real_root = os.path.realpath(root)
    prefixes = [""]
    perhaps_empty: list[str] = []
    while prefixes:
        prefix = prefixes.pop()
        folder = os.path.join(real_root, prefix)
        try:
            # Read before anything is removed from it, since that makes it young.
            is_old = os.stat(folder).st_mtime <= newest_to_go
            entries = _entries(folder)
        except (FileNotFoundError, PermissionError):
            continue  # gone; or we may not look, in lost+found for instance
        left = 0
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if not f"{prefix}{entry.name}/".startswith(spare):
                    prefixes.append(f"{prefix}{entry.name}/")
            elif entry.name.startswith(TEMPORARY_PREFIX) and _remove_if_old(entry, newest_to_go):
                removed += 1
            else:
                left += 1
        if prefix and is_old and not left and vacant(prefix):
            perhaps_empty.append(os.path.normpath(folder))
    for folder in reversed(perhaps_empty):  # those further down come first
        with contextlib.suppress(OSError):  # holds a folder that stays, or a file that has just been written
            os.rmdir(folder)
    return removed


def _remove_if_old(temporary: os.DirEntry[str], newest_to_go: float) -> bool:
    try:
        status = temporary.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or status.st_mtime > newest_to_go:
            return False
        os.unlink(temporary.path)
    except FileNotFoundError:
        return False  # its writer was not dead, and has just finished
    return True
