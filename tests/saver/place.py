"""A root as a test sees it: savers on it, and the raw objects under it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from asyncsaver import Saver
from asyncsaver.formats.native import seal
from asyncsaver.store import Store
from asyncsaver.store.registry import open_store


def sealed(document: dict[str, Any]) -> bytes:
    """A record, part or state file with whatever content, and the checksum that goes with it."""
    return seal(json.dumps({key: value for key, value in document.items() if key != "checksum"}).encode())


@dataclass(frozen=True, slots=True)
class Place:
    """Where a test saves.

    Attributes:
        url: the root.
        storage_options: what goes with it.
        engine: that the savers use.
    """

    url: str
    storage_options: Mapping[str, Any]
    engine: str = "auto"

    def saver(self, **arguments: Any) -> Saver:
        """A saver on the root."""
        return Saver(self.url, storage_options=self.storage_options or None, engine=self.engine, **arguments)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        """The root itself, past every check."""
        async with open_store(self.url, storage_options=self.storage_options, engine=self.engine) as store:
            yield store

    async def objects(self) -> dict[str, bytes]:
        """Everything under the root: path → content."""
        async with self.store() as store:
            listing = await store.list()
            return {item.path: (await store.get(item.path)).data for item in listing.objects}

    async def paths(self) -> list[str]:
        """The path of everything under the root."""
        async with self.store() as store:
            return [item.path for item in (await store.list()).objects]

    async def get(self, path: str) -> bytes:
        """One object's content."""
        async with self.store() as store:
            return (await store.get(path)).data

    async def put(self, path: str, data: bytes) -> None:
        """Write an object, over what is there."""
        async with self.store() as store:
            await store.put(path, data)

    async def remove(self, path: str) -> None:
        """Delete an object."""
        async with self.store() as store:
            assert not await store.delete([path])

    async def shards(self) -> list[str]:
        """The paths of all shards."""
        return [path for path in await self.paths() if path.endswith(".safetensors")]

    async def edit(self, path: str, **fields: Any) -> None:
        """Replace fields of a JSON object; its checksum is made to fit."""
        await self.put(path, sealed(json.loads(await self.get(path)) | fields))
