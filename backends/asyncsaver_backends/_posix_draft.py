"""The blocking half of the local store: how an object is written, in the order of calls that survives a power cut.

Every method may raise `OSError`; the caller translates.
"""
# ruff: noqa: PTH105, PTH108, PTH112, PTH116, PTH118, PTH120, PTH102 - which system calls are made is what this is about

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Sequence

from asyncsaver.errors import ObjectExistsError, PreconditionFailedError, StoreError, UnsupportedStoreError
from asyncsaver.store import ObjectInfo
from asyncsaver_backends._direct import DirectFile, DirectWriting
from asyncsaver_backends._posix import LOCK_NAME, TEMPORARY_PREFIX, info_of, locate, remove_empty_folders

# How often a folder may be removed under us, by a delete that found it empty, before we give up on writing into it.
_FOLDER_TRIES = 100
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class Draft:
    """A new version of an object, in a temporary file beside its place until it is published.

    Call `open`, for a large one `go_direct`, write, `settle`, one of the ``publish`` methods; and at last `discard`, whatever
    happened.
    """

    def __init__(self, root: str, path: str) -> None:
        self._root = root
        self._path = path
        self._target = ""
        self._temporary = ""
        self._made_folder = ""
        self._direct: DirectFile | None = None
        self.fd = -1

    def open(self) -> None:
        """Create the temporary file, and the folders above it."""
        for _ in range(_FOLDER_TRIES):
            self._target = locate(self._root, self._path)
            folder = os.path.dirname(self._target)
            temporary = os.path.join(folder, TEMPORARY_PREFIX + secrets.token_hex(16))
            self._made_folder = folder
            try:
                _make_folder(folder)
                self.fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                continue  # a delete or a purge has just removed the folder as empty
            except NotADirectoryError as exc:
                raise StoreError(f"{exc.filename}, above {self._path}, is not a folder", path=self._path) from exc
            self._temporary = temporary
            return
        raise StoreError(f"the folder of {self._path} keeps being removed", retryable=True, path=self._path)

    def go_direct(self, shared: DirectWriting, size: int) -> None:
        """Write past the page cache from here on, if the filesystem lets us.

        Args:
            shared: the store's memory for that.
            size: of the object; room for it is reserved.
        """
        try:
            self._direct = DirectFile(self._temporary, shared)
        except OSError as error:
            if DirectFile.refuses(error):
                return
            raise
        self._direct.reserve(size)

    def write_at(self, view: memoryview, offset: int) -> None:
        """Write ``view`` (bytes) at byte ``offset``."""
        done = 0 if self._direct is None else self._direct.write_at(view, offset)
        self._write_usually(view[done:], offset + done)

    def _write_usually(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            done += os.pwrite(self.fd, view[done:], offset + done)

    def write_pieces(self, pieces: Sequence[memoryview], offset: int) -> None:
        """Write the pieces (bytes), one after another, from byte ``offset`` on."""
        if len(pieces) == 1:
            self.write_at(pieces[0], offset)
            return
        done = 0 if self._direct is None else self._direct.write_gathered(pieces, offset)
        for piece in pieces:
            skipped = min(done, len(piece))
            done -= skipped
            if skipped < len(piece):
                self._write_usually(piece[skipped:], offset + skipped)
            offset += len(piece)

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
        self._temporary = self._made_folder = ""
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
        self._made_folder = ""
        with contextlib.suppress(OSError):  # the object stands all the same, and `discard` tries once more
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
        """Close and remove what is left of the draft, and folders that are empty without it. Safe at any time.

        What cannot be removed is left to `purge`: whether the object was written is not decided here, and an error would hide it.
        """
        with contextlib.suppress(OSError):
            self._close()
        if self._temporary:
            with contextlib.suppress(OSError):
                self._remove_temporary()
        if self._made_folder:
            remove_empty_folders(self._made_folder, os.path.realpath(self._root))

    def _remove_temporary(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)
        self._temporary = ""

    def _close(self) -> None:
        fd, self.fd = self.fd, -1
        try:
            if self._direct is not None:
                self._direct.close()
        finally:
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
        # Where it is gone again by now, that it is missing is the answer: `Draft.open` then begins anew.
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", folder) from None
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
