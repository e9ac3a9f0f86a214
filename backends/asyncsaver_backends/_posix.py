"""The blocking half of the local store: what it asks of the filesystem, in the order that survives a power cut.

Every function may raise `OSError`; the caller translates.
"""
# ruff: noqa: PTH102, PTH105, PTH106, PTH108, PTH112, PTH116, PTH118, PTH120 - which system calls are made, in which order, is what this file is about

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from asyncsaver.errors import (
    InvalidRootError,
    ObjectExistsError,
    ObjectTruncatedError,
    PreconditionFailedError,
    StoreError,
    UnsupportedStoreError,
)
from asyncsaver.store import Listing, ObjectInfo
from asyncsaver.store.paths import check_path, check_prefix

TEMPORARY_PREFIX = ".asyncsaver-tmp-"
LOCK_NAME = ".asyncsaver.lock"

# How often a folder may be removed under us, by a delete that found it empty, before we give up on writing into it.
_FOLDER_TRIES = 100
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


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
        if not stat.S_ISDIR(os.stat(real_root).st_mode):
            raise InvalidRootError(f"{root} is not a folder")
    except FileNotFoundError:
        pass
    except NotADirectoryError as exc:
        raise InvalidRootError(f"{root} is not a folder, nor can it become one") from exc
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
    if not stat.S_ISREG(os.fstat(fd).st_mode):
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
            os.close(fd)


class Draft:
    """A new version of an object, in a temporary file beside its place until it is published.

    Call `open`, write, `settle`, one of the ``publish`` methods; and at last `discard`, whatever happened.
    """

    def __init__(self, root: str, path: str) -> None:
        self._root = root
        self._path = path
        self._target = ""
        self._temporary = ""
        self.fd = -1

    def open(self) -> None:
        """Create the temporary file, and the folders above it."""
        for _ in range(_FOLDER_TRIES):
            self._target = locate(self._root, self._path)
            folder = os.path.dirname(self._target)
            temporary = os.path.join(folder, TEMPORARY_PREFIX + secrets.token_hex(16))
            try:
                _make_folder(folder)
                self.fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                continue  # a delete has just removed the folder as empty
            self._temporary = temporary
            return
        raise StoreError(f"the folder of {self._path} keeps being removed", retryable=True, path=self._path)

    def write_at(self, view: memoryview, offset: int) -> None:
        """Write ``view`` (bytes) at byte ``offset``."""
        done = 0
        while done < len(view):
            done += os.pwrite(self.fd, view[done:], offset + done)

    def settle(self) -> ObjectInfo:
        """Force the content to the disk, and return what the object will be."""
        status = os.fstat(self.fd)
        # The kernel stamps files once a tick, some milliseconds, within which an inode can be freed and used again: so
        # the digits below a millisecond are drawn, and two versions never share an etag. Not all filesystems let us.
        modified = status.st_mtime_ns - status.st_mtime_ns % 1_000_000 + secrets.randbelow(1_000_000)
        with contextlib.suppress(OSError):
            os.utime(self.fd, ns=(status.st_atime_ns, modified))
        os.fsync(self.fd)
        return info_of(self._path, os.fstat(self.fd))

    def publish(self) -> None:
        """Put the draft in its place, over what is there."""
        self._close()
        os.replace(self._temporary, self._target)
        self._temporary = ""
        _sync_folder(os.path.dirname(self._target))

    def publish_new(self) -> None:
        """Put the draft in its place if nothing is there.

        A hard link is the one call that is exclusive and atomic on every POSIX filesystem, NFS too.

        Raises:
            ObjectExistsError: something is there.
            UnsupportedStoreError: the filesystem has no hard links. Creating the file itself with O_EXCL would let
                readers, and a crash, see a part of it.
        """
        self._close()
        try:
            os.link(self._temporary, self._target)
        except FileExistsError as exc:
            # Over NFS the answer to a link that was made can get lost, and its repetition finds the first.
            if os.stat(self._temporary).st_nlink != 2:
                if os.path.isdir(self._target):
                    raise IsADirectoryError(errno.EISDIR, "there is a folder", self._target) from exc
                raise ObjectExistsError(f"{self._path} exists in {self._root}", path=self._path) from exc
        except OSError as exc:
            if exc.errno in _NO_HARD_LINKS:
                raise UnsupportedStoreError(
                    f"the filesystem of {self._root} has no hard links ({exc.strerror}), so that exclusive creation is "
                    "not possible there"
                ) from exc
            raise
        self._remove_temporary()
        _sync_folder(os.path.dirname(self._target))

    def publish_if(self, etag: str) -> bool:
        """Put the draft in its place if the version there has this etag; return False if another process is at it.

        The lock excludes other calls of this kind, on this and on other machines that share the filesystem and its
        locks. It does not exclude a plain overwrite or a delete of the same object at the same moment.

        Raises:
            PreconditionFailedError: another version is there, or none.
        """
        self._close()
        lock_path = os.path.join(os.path.realpath(self._root), LOCK_NAME)
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if not _is_at(lock, lock_path):
                return False  # removed and made anew by somebody, who may hold the new one
            try:
                current = info_of(self._path, os.lstat(self._target)).etag
            except FileNotFoundError as exc:
                raise PreconditionFailedError(f"{self._path} in {self._root} is gone", path=self._path) from exc
            if current != etag:
                raise PreconditionFailedError(f"{self._path} in {self._root} is another version", path=self._path)
            self.publish()
        finally:
            os.close(lock)
        return True

    def discard(self) -> None:
        """Close and remove what is left of the draft, and folders that are empty without it. Safe at any time."""
        try:
            self._close()
        finally:
            if self._temporary:
                folder = os.path.dirname(self._temporary)
                self._remove_temporary()
                _remove_empty_folders(folder, os.path.realpath(self._root))

    def _remove_temporary(self) -> None:
        temporary, self._temporary = self._temporary, ""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)

    def _close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _make_folder(folder: str) -> None:
    """Make a folder and those above it, each recorded on the disk in the one that holds it."""
    if os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    _make_folder(above)
    try:
        os.mkdir(folder)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise StoreError(f"{folder} is not a folder") from None
    _sync_folder(above)


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as exc:
        # Some network filesystems cannot sync a folder, and need not.
        if exc.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            raise
    finally:
        os.close(fd)


def _remove_empty_folders(folder: str, real_root: str) -> None:
    while folder != real_root and folder.startswith(os.path.join(real_root, "")):
        try:
            os.rmdir(folder)
        except OSError:
            return  # not empty, or gone
        folder = os.path.dirname(folder)


def delete(root: str, paths: Sequence[str]) -> dict[str, OSError]:
    """Remove objects, and folders that are empty without them; return what could not be removed."""
    failed: dict[str, OSError] = {}
    folders: dict[str, None] = {}
    for path in paths:
        try:
            target = locate(root, path)
            os.unlink(target)
            folders[os.path.dirname(target)] = None
        except (FileNotFoundError, NotADirectoryError) as exc:
            if isinstance(exc, StoreError):
                failed[path] = exc
        except OSError as exc:
            failed[path] = exc
    real_root = os.path.realpath(root)
    for folder in folders:
        _remove_empty_folders(folder, real_root)
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
