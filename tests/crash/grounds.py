"""Roots on a store of each kind, that can be copied, and looked at for what no listing shows."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from asyncsaver.store import Store
from asyncsaver.store.registry import open_store
from asyncsaver_backends._posix import LOCK_NAME
from asyncsaver_backends.memory import MemoryStore

PART_BYTES = 4096  # so that a small tensor is uploaded in parts
S3_PART_BYTES = 5 * 2**20  # less, S3 does not take


def opened(url: str, storage_options: Mapping[str, Any], part_bytes: int) -> Store:
    """A store on a root, with parts of that size, which are requests of its own: obstore makes them as it likes."""
    store = open_store(url, storage_options=storage_options, engine="fsspec")
    store.capabilities = replace(store.capabilities, part_bytes=part_bytes)
    return store


class Ground(Protocol):
    """A root that a test has for itself.

    Attributes:
        name: of the kind of store, for the figures.
        url: of the root.
        storage_options: that go with it.
        part_bytes: the size of a part of a large object.
    """

    name: str
    url: str
    storage_options: Mapping[str, Any]
    part_bytes: int

    async def copy(self) -> Ground:
        """Another root with the same objects."""

    async def hidden(self) -> list[str]:
        """Temporary files, unfinished uploads and empty folders: what no listing shows."""


@dataclass(slots=True)
class Memory:
    """In this process's memory."""

    url: str
    name: str = "memory"
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    part_bytes: int = PART_BYTES

    @classmethod
    def fresh(cls) -> Memory:
        return cls(f"memory://crash-{uuid.uuid4().hex}/run")

    async def copy(self) -> Memory:
        other = self.fresh()
        bucket, target = MemoryStore(self.url)._bucket, MemoryStore(other.url)._bucket
        for key, version in bucket.objects.items():
            target.keep(key, version)
        target.versions = itertools.count(len(bucket.objects) + 10_000)
        return other

    async def hidden(self) -> list[str]:
        return []


@dataclass(slots=True)
class Disk:
    """A folder on the local disk."""

    url: str
    folder: Path
    name: str = "local disk"
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    part_bytes: int = PART_BYTES

    @classmethod
    def fresh(cls, folder: Path) -> Disk:
        return cls(str(folder / uuid.uuid4().hex), folder)

    async def copy(self) -> Disk:
        other = self.fresh(self.folder)
        await asyncio.to_thread(shutil.copytree, self.url, other.url)
        return other

    async def hidden(self) -> list[str]:
        return await asyncio.to_thread(self._hidden)

    def _hidden(self) -> list[str]:
        below = list(Path(self.url).rglob("*"))
        found = [path for path in below if path.is_file() and path.name.startswith(".") and path.name != LOCK_NAME]
        found += [path for path in below if path.is_dir() and not any(path.iterdir())]
        return [str(path) for path in found]


@dataclass(slots=True)
class S3:
    """A prefix of a bucket."""

    url: str
    storage_options: Mapping[str, Any]
    name: str = "S3"
    part_bytes: int = S3_PART_BYTES
    _content: dict[str, bytes] = field(default_factory=dict)

    async def copy(self) -> S3:
        bucket = self.url.removeprefix("s3://").partition("/")[0]
        other = S3(f"s3://{bucket}/{uuid.uuid4().hex}", self.storage_options)
        if not self._content:  # read once: what is copied is a template, and does not change any more
            async with open_ground(self) as source:
                self._content = {
                    item.path: (await source.get(item.path)).data for item in (await source.list()).objects
                }
        async with open_ground(other) as target:
            await asyncio.gather(*(target.put(path, data) for path, data in self._content.items()))
        return other

    async def hidden(self) -> list[str]:
        async with open_ground(self) as store:
            await store.list()  # connects
            prefix = self.url.removeprefix("s3://").partition("/")[2]
            found: Any = (await store._call("list_multipart_uploads")).get("Uploads", [])  # type: ignore[attr-defined]
            return [upload["Key"] for upload in found if upload["Key"].startswith(prefix + "/")]


def open_ground(ground: Ground) -> Store:
    """A new store on a root."""
    return opened(ground.url, ground.storage_options, ground.part_bytes)
