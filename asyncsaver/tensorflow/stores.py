"""The folders that a call looks into, each opened once."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from asyncsaver.aio.tasks import run_all
from asyncsaver.catalog.opening import open_root
from asyncsaver.catalog.root import Root
from asyncsaver.model.names import Naming

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class Stores:
    """Opens folders, and closes all of them at the end.

    Args:
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.
    """

    def __init__(self, storage_options: Mapping[str, Any] | None, filesystem: AbstractFileSystem | None) -> None:
        self._storage_options = storage_options
        self._filesystem = filesystem
        self._roots: dict[str, Root] = {}

    def at(self, url: str) -> Root:
        """The folder at a URL; no I/O."""
        root = self._roots.get(url)
        if root is None:
            root = open_root(url, Naming(), storage_options=self._storage_options, filesystem=self._filesystem)
            self._roots[url] = root
        return root

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await run_all(root.close() for root in self._roots.values())
