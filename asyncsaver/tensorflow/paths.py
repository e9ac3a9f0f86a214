"""Paths as a state file has them, and as callers do. Pure.

On a local disk they are what TensorFlow makes of them, absolute ones and ``..`` included. An object store knows neither: there
paths in a state file are relative to its folder, and may lead beside it but not out of the bucket.
"""

from __future__ import annotations

import os
import posixpath
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from asyncsaver.store.paths import redact

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_LOCAL = frozenset({"file", "local"})


class Folder(ABC):
    """The folder of a state file.

    Attributes:
        url: of the folder, to open it by.
    """

    url: str

    @abstractmethod
    def found(self, stored: str) -> str:
        """The path of a checkpoint for callers, from what the state file has.

        Raises:
            ValueError: it leads out of the store.
        """

    @abstractmethod
    def stored(self, path: str, *, relative: bool) -> str:
        """What the state file is to have for a path that a caller gave.

        Args:
            path: of a checkpoint.
            relative: whether an absolute path is to become relative to the folder.

        Raises:
            ValueError: it is empty, or on another store.
        """

    @abstractmethod
    def identity(self, stored: str) -> str:
        """The same for all ways to write down one path in the state file."""


class LocalFolder(Folder):
    """A folder on the local disk.

    Args:
        url: its path, or a ``file://`` URL of it; "" for where the process is.
    """

    def __init__(self, url: str) -> None:
        self._path = _plain(url)
        self.url = self._path or "."

    def found(self, stored: str) -> str:
        """See `Folder`."""
        return posixpath.join(self._path, stored)

    def stored(self, path: str, *, relative: bool) -> str:
        """See `Folder`."""
        path = _plain(_not_empty(path))
        absolute = posixpath.isabs(path)
        # A relative path beside a relative folder begins where the folder does; beside an absolute one, in the folder.
        if relative if absolute else not posixpath.isabs(self._path):
            return posixpath.relpath(path, self.url)
        return path

    def identity(self, stored: str) -> str:
        """See `Folder`."""
        return posixpath.abspath(self.found(stored))


class RemoteFolder(Folder):
    """A folder in an object store, or in a ready filesystem.

    Args:
        url: ``scheme://bucket/folder``, or without a scheme a path in the filesystem.
    """

    def __init__(self, url: str) -> None:
        scheme, separator, rest = url.partition("://")
        self.url = url
        self._head = scheme + separator if separator else "/" if url.startswith("/") else ""
        self._segments = [part for part in (rest if separator else url).split("/") if part]

    def found(self, stored: str) -> str:
        """See `Folder`."""
        from_the_top = bool(self._head) and stored.startswith(self._head)
        whole = self._inside(stored) if from_the_top else self._walk(self._segments, stored)
        return self._head + "/".join(whole) + _tail(stored)

    def stored(self, path: str, *, relative: bool) -> str:
        """See `Folder`. Always relative: a bucket may be renamed, mirrored, or reached by another URL."""
        del relative
        from_the_top = _not_empty(path).startswith(self._head)
        whole = self._inside(path) if from_the_top else self._walk(self._segments, path)
        return posixpath.relpath("/" + "/".join(whole), "/" + "/".join(self._segments)) + _tail(path)

    def identity(self, stored: str) -> str:
        """See `Folder`."""
        try:
            return self.found(stored)
        except ValueError:
            return stored

    def _inside(self, path: str) -> list[str]:
        """The segments of a path from the top of the store."""
        bucket = self._segments[:1]
        inside = path.removeprefix(self._head).lstrip("/").split("/")
        if inside[: len(bucket)] != bucket:
            raise ValueError(
                f"{redact(path)} and {redact(self.url)} are in different buckets: no path leads from one to the other"
            )
        return self._walk(bucket, "/".join(inside[len(bucket) :]))

    def _walk(self, start: list[str], path: str) -> list[str]:
        """The segments that a path leads to."""
        if path.startswith("/") or "://" in path:
            raise ValueError(f"{redact(path)} is not in {redact(self.url)}: on an object store, paths are relative")
        segments = list(start)
        for segment in path.split("/"):
            if segment == "..":
                if len(segments) <= 1:
                    raise ValueError(f"{path} leads out of {redact(self.url)}, above the bucket")
                segments.pop()
            elif segment not in {"", "."}:
                segments.append(segment)
        return segments


def folder_at(url: str | os.PathLike[str], filesystem: AbstractFileSystem | None = None) -> Folder:
    """The folder at a URL.

    Args:
        url: of the folder.
        filesystem: where it is, if it is given by a path in a ready filesystem.
    """
    text = os.fspath(url)
    return LocalFolder(text) if _is_local(text, filesystem) else RemoteFolder(text)


def split_prefix(prefix: str | os.PathLike[str]) -> tuple[str, str]:
    """The folder of a checkpoint, to open it by, and the name in it that its files begin with.

    Raises:
        ValueError: the prefix is empty, or is a bucket.
    """
    text = _not_empty(os.fspath(prefix))
    if _is_local(text, None):
        text = _plain(text)
    folder, slash, name = text.rpartition("/")
    if folder.endswith(":/"):
        raise ValueError(f"{redact(text)} is not the prefix of a checkpoint: it is a bucket")
    return folder or slash or ".", name


def _is_local(url: str, filesystem: AbstractFileSystem | None) -> bool:
    if filesystem is None:
        scheme, separator, _ = url.partition("://")
        return not separator or scheme.lower() in _LOCAL
    protocol = filesystem.protocol
    return bool(_LOCAL & {protocol} if isinstance(protocol, str) else _LOCAL.intersection(protocol))


def _plain(path: str) -> str:
    """A local path, from a URL or with a ``~``."""
    scheme, separator, rest = path.partition("://")
    return posixpath.expanduser(rest if separator and scheme.lower() in _LOCAL else path)


def _tail(path: str) -> str:
    """What tells ``folder/``, the checkpoint whose files have no name but an ending, from ``folder``."""
    return "/" if path.endswith("/") else ""


def _not_empty(path: str) -> str:
    if not path:
        raise ValueError("the path of the checkpoint is empty")
    return path
