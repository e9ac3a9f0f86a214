"""Opening a checkpoint by its own path, whoever wrote it."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncsaver.catalog.opening import open_root
from asyncsaver.catalog.root import Root
from asyncsaver.errors import (
    CheckpointDeletedError,
    CheckpointNotFoundError,
    InvalidRootError,
    InvalidSavePathError,
)
from asyncsaver.model.checkpoint import Checkpoint
from asyncsaver.model.config import DEFAULT_MEMORY_BUDGET
from asyncsaver.model.names import Naming, check_prefix, is_prefix
from asyncsaver.restore.find import Found, find_name
from asyncsaver.restore.foreign import FORMATS, open_foreign
from asyncsaver.restore.source import Source, own_source
from asyncsaver.store.paths import redact

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

OpenRoot = Callable[[str, Naming], Root]
"""`open_root` with all but its first two arguments."""

_NAME = re.compile(r"(?P<prefix>.+)-[0-9]+")


async def open_source(
    url: str | os.PathLike[str],
    format: str,  # noqa: A002 - as in `open_checkpoint`
    *,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> tuple[Root, Source]:
    """As `open_checkpoint`, for whoever reads by other means: the root, which is to be closed, and the checkpoint."""
    if format not in {"auto", "native", *FORMATS}:
        known = ", ".join(map(repr, ("auto", "native", *FORMATS)))
        raise ValueError(f"format={format!r} is unknown; format can be one of {known}")
    parent, name = split_url(url)
    root = open_root(
        parent,
        _naming(name, format),
        storage_options=storage_options,
        filesystem=filesystem,
        memory_budget=memory_budget,
    )
    try:
        return root, await _source(root, name, format)
    except BaseException:
        await root.close()
        raise


@asynccontextmanager
async def opened_save_path(
    save_path: str | os.PathLike[str] | Checkpoint | None, opening: OpenRoot, near: Root | None = None
) -> AsyncIterator[tuple[Root, Callable[[], Awaitable[Source]]]]:
    """Open where a checkpoint is that is called by its own path, as ``tf.train.Saver.restore`` is given it.

    Entering does no I/O; the root is released at the end.

    Args:
        save_path: the path or URL of a checkpoint in any format, as `open_checkpoint` takes it; or what saving it returned, which
            then is to be that very checkpoint.
        opening: opens the folder that it is in.
        near: a root that is open already: what lies right in it is read through it, and safe from its prunes meanwhile.

    Yields:
        The root, and a function that finds the checkpoint there. That raises `InvalidSavePathError` where there is none,
        `CheckpointDeletedError` where one of ours was deleted, and otherwise as `open_checkpoint`.

    Raises:
        InvalidSavePathError: no path of a checkpoint looks like that.
        ValueError: it is None.
        TypeError: it is nothing that could be a path.
    """
    if save_path is None:
        raise ValueError("Can't load save_path when it is None.")
    given = save_path.url if isinstance(save_path, Checkpoint) else save_path
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(text, str):
        raise TypeError(f"save_path must be a str, a path or a Checkpoint, not {type(save_path).__name__}")
    invalid = f"The passed save_path is not a valid checkpoint: {redact(text)}"
    try:
        parent, name = split_url(text)
    except ValueError as error:
        raise InvalidSavePathError(invalid) from error
    naming = _naming(name, "auto")
    shared = near is not None and _is_at(near, parent)
    root = replace(near, naming=naming) if near is not None and shared else opening(parent, naming)

    async def find() -> Source:
        try:
            source = await _source(root, name, "auto")
        except CheckpointDeletedError:
            raise
        except (CheckpointNotFoundError, InvalidRootError) as error:
            raise InvalidSavePathError(invalid) from error
        if isinstance(save_path, Checkpoint) and source.checkpoint.save_id not in {"", save_path.save_id}:
            raise CheckpointDeletedError(f"{source.checkpoint.url}: save {save_path.save_id} was replaced")
        return source

    try:
        yield root, find
    finally:
        if not shared:
            await root.close()


def _is_at(root: Root, url: str) -> bool:
    return root.store.url in {url, str(Path(url).absolute())}


def _naming(name: str, format: str) -> Naming:  # noqa: A002 - as above
    return naming_of(name) if _may_be_ours(name, format) else Naming()


def _may_be_ours(name: str, format: str) -> bool:  # noqa: A002 - as above
    return format == "native" or (format == "auto" and is_prefix(name))


async def _source(root: Root, name: str, format: str) -> Source:  # noqa: A002 - as above
    if not _may_be_ours(name, format):
        return await open_foreign(root, name, None if format == "auto" else format)
    try:
        return own_source(root, await _find(root, name))
    except CheckpointDeletedError:
        raise
    except CheckpointNotFoundError as error:
        if format == "native":
            raise
        try:
            return await open_foreign(root, name)
        except CheckpointNotFoundError:
            raise error from None


async def _find(root: Root, name: str) -> Found:
    found = await find_name(root, name)
    if isinstance(found, Found):
        return found
    where = f"{root.store.url}/{name}"
    if found is not None:
        raise CheckpointDeletedError(f"{where} was deleted at {found.created:%Y-%m-%d %H:%M:%S} UTC")
    raise CheckpointNotFoundError(f"{where} is not a committed checkpoint")


def split_url(url: str | os.PathLike[str]) -> tuple[str, str]:
    """The root and the name of the checkpoint that a URL stands for. Raises `ValueError` where it stands for none."""
    text = os.fspath(url)
    parent, slash, name = text.rstrip("/").rpartition("/")
    if not name or parent.endswith(":/") or text.endswith("://"):
        raise ValueError(f"{redact(text)!r} is not the URL of a checkpoint: it has no folder in a root")
    return parent or slash or ".", name


def naming_of(name: str) -> Naming:
    """How checkpoints are called of which one has this name. Raises `ValueError` for a name that none of ours can have."""
    match = _NAME.fullmatch(name)
    naming = Naming(check_prefix(match["prefix"] if match else name))
    return naming if naming.parse(name)[0] else Naming(check_prefix(name))
