"""From the arguments of a saver to its layout."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from asyncsaver.catalog.root import Root
from asyncsaver.layout.contract import Layout
from asyncsaver.layout.native import NativeLayout
from asyncsaver.model.tensorflow_config import TensorFlowConfig
from asyncsaver.save.line import SaveSettings
from asyncsaver.store.contract import Store

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def open_layout(
    root: Root,
    settings: SaveSettings,
    tensorflow: TensorFlowConfig | None,
    url: str | os.PathLike[str] | Store,
    filesystem: AbstractFileSystem | None,
) -> Layout:
    """Make a layout. Does no I/O.

    Args:
        root: where.
        settings: for saves.
        tensorflow: how TensorFlow's files are written; None for our own layout.
        url: of the root, as the user gave it.
        filesystem: likewise.

    Raises:
        ImportError: TensorFlow's format needs an extra that is missing.
    """
    if tensorflow is None:
        return NativeLayout(root, settings)
    room = import_module("asyncsaver.layout.tensorflow")  # only when asked for: it needs an extra
    where = url.url if isinstance(url, Store) else os.fspath(url)
    layout: Layout = room.TensorFlowLayout(root, settings, tensorflow, where, filesystem)
    return layout
