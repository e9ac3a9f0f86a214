"""From a URL to a store: which backend serves which scheme.

Backends announce themselves through the entry-point group ``asyncsaver.backends``: the name is the scheme, the value a
function ``open_store(url, *, storage_options, filesystem) -> Store``. The backend named ``fsspec`` serves every scheme
that has no backend of its own and that fsspec knows. The one named ``obstore`` serves S3 and Azure before theirs do,
where its package is installed and it can do all that the options ask for, and whatever it is asked for by name.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol, cast

import fsspec

from asyncsaver.errors import InvalidRootError, UnsupportedStoreError
from asyncsaver.store.contract import Store
from asyncsaver.store.paths import redact

logger = logging.getLogger(__name__)

GROUP = "asyncsaver.backends"

ENGINES = ("auto", "fsspec", "obstore")

# Other spellings of a scheme, and of fsspec's protocols, that one backend serves.
_ALIASES = {
    "local": "file",
    "s3a": "s3",
    "gcs": "gs",
    "abfs": "az",
    "abfss": "az",
    "adl": "az",
}
# What to install, for the backends whose package is an extra.
_EXTRAS = {"s3": "s3", "gs": "gcs", "az": "azure", "obstore": "obstore"}
_GENERIC = "fsspec"
_NATIVE = "obstore"
# What it serves unless told otherwise; gs:// is for whoever asks for it by name.
_NATIVE_FIRST = frozenset({"s3", "az"})
# Our own stores, which every engine leaves in place.
_OURS = frozenset({"file", "memory"})
# What pathlib makes of a URL. A local folder of such a name can be given as ./s3:/….
_SQUEEZED = re.compile(r"([a-z][a-z0-9+.-]+):/(?!/)")


class OpenStore(Protocol):
    """What an entry point of the group must be."""

    def __call__(
        self, url: str, *, storage_options: Mapping[str, object], filesystem: fsspec.AbstractFileSystem | None
    ) -> Store:
        """Make the store; no I/O."""
        ...


def open_store(
    url: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, object] | None = None,
    filesystem: fsspec.AbstractFileSystem | None = None,
    engine: str = "auto",
) -> Store:
    """Make the store for a URL. Does no I/O: the first call on the store connects.

    Args:
        url: ``scheme://...``, or a path on the local disk. With ``filesystem``, a path in it, with or without scheme.
        storage_options: what fsspec takes for the scheme.
        filesystem: a ready fsspec filesystem to use instead of making one; its protocol selects the backend.
        engine: ``obstore``, ``fsspec``, or ``auto``: obstore for S3 and Azure where it is installed, nothing ready is given and
            it can do all that the options ask for, else fsspec. Local disk and ``memory://`` are served by our own stores,
            whichever is given.

    Raises:
        InvalidRootError: a local path begins with the home of a user that there is not.
        UnsupportedStoreError: no backend and no fsspec filesystem serves the scheme, or a package it needs is missing.
        ValueError: an unknown engine, storage options that the backend does not know, or both ``storage_options`` and
            ``filesystem``.
        TypeError: ``url`` is no path, or ``storage_options`` no mapping.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(map(repr, ENGINES))}, not {engine!r}")
    if filesystem is not None and storage_options:
        raise ValueError("give storage_options or a ready filesystem, not both: a ready one has its options already")
    if storage_options is not None and not isinstance(storage_options, Mapping):
        raise TypeError(f"storage_options must be a mapping, not {type(storage_options).__name__}")
    if not isinstance(url, str | os.PathLike) or not isinstance(text := os.fspath(url), str):
        raise TypeError(f"url must be a str or a path, not {type(url).__name__}")
    if not text:
        raise ValueError("the URL is empty")
    if filesystem is None and (squeezed := _SQUEEZED.match(text)):
        scheme = squeezed[1]
        raise ValueError(
            f"{scheme}:/… is a URL that went through pathlib, which drops a slash: pass it as a str, {scheme}://…"
        )
    backends = {entry.name: entry for entry in entry_points(group=GROUP)}
    scheme = _scheme(text) if filesystem is None else _protocol(filesystem, backends)
    backend = backends.get(_ALIASES.get(scheme, scheme))
    if engine == _NATIVE and (backend is None or backend.name not in _OURS):
        backend = backends.get(_NATIVE)
    elif backend is None and (filesystem is not None or scheme in _fsspec_schemes()):
        backend = backends.get(_GENERIC)
    if backend is None:
        known = sorted({*backends, *_ALIASES, *_fsspec_schemes()} - {_GENERIC, _NATIVE})
        raise UnsupportedStoreError(f"nothing serves {scheme}:// ({redact(text)}); known are {', '.join(known)}")
    if backend.name == "file":
        _check_home(text)
    options = storage_options or {}
    native = backends.get(_NATIVE)
    if engine == "auto" and filesystem is None and native is not None and backend.name in _NATIVE_FIRST:
        store = _open_natively(native, text, options)
        if store is not None:
            return store
    return _open(backend, scheme, text, options, filesystem)


def _check_home(url: str) -> None:
    path = url.partition("://")[2] or url
    try:
        Path(path).expanduser()
    except RuntimeError as exc:
        raise InvalidRootError(f"{path}: no home folder of that user can be found") from exc


def _open(
    backend: EntryPoint,
    scheme: str,
    url: str,
    storage_options: Mapping[str, object],
    filesystem: fsspec.AbstractFileSystem | None,
) -> Store:
    try:
        factory = cast("OpenStore", backend.load())
        return factory(url, storage_options=storage_options, filesystem=filesystem)
    except ImportError as exc:
        extra = _EXTRAS.get(backend.name)
        remedy = f'pip install "asyncsaver[{extra}]"' if extra else str(exc)
        raise UnsupportedStoreError(f"{scheme}:// needs a package that is not installed: {remedy}") from exc


def _open_natively(backend: EntryPoint, url: str, storage_options: Mapping[str, object]) -> Store | None:
    """Return a store on obstore; None where its package is missing, or where it cannot do what is asked for."""
    try:
        factory = cast("OpenStore", backend.load())
    except ImportError:
        return None
    try:
        return factory(url, storage_options=storage_options, filesystem=None)
    except UnsupportedStoreError as reason:
        logger.info("%s goes through fsspec: %s", redact(url), reason)
        return None


def _fsspec_schemes() -> set[str]:
    """Return the schemes that fsspec comes with, and those that were registered with it."""
    return {*fsspec.available_protocols(), *fsspec.registry}


def _scheme(url: str) -> str:
    """Return the scheme of a URL, ``file`` for a plain path, and the outermost one of a chained URL (``a::b://``)."""
    head, separator, _ = url.partition("://")
    if not separator or "/" in head:
        return "file"
    if "::" in head:
        return head.partition("::")[0].lower()
    return head.lower()


def _protocol(filesystem: fsspec.AbstractFileSystem, backends: Iterable[str]) -> str:
    """Return the name of the backend that drives a ready filesystem object best."""
    protocol = filesystem.protocol
    names = (protocol,) if isinstance(protocol, str) else tuple(protocol)
    for name in names:
        # Our memory:// keeps its own objects: those of fsspec's memory filesystem are reached through fsspec only.
        if name != "memory" and _ALIASES.get(name, name) in backends:
            return str(name)
    return _GENERIC
