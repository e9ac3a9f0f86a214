"""A folder of a store, as a store of its own."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from asyncsaver.errors import StoreError
from asyncsaver.store.contract import Blob, Buffer, Listing, ObjectInfo, Part, PutMode, Store
from asyncsaver.store.paths import check_prefix
from asyncsaver.store.resend import NEVER, Resend


class Below(Store):
    """What lies in one folder of another store, by paths that begin there.

    It is closed, and purged, together with the other one: what `purge` removes shows in no listing, and may lie anywhere there.

    Args:
        store: the other one.
        folder: a path in it.
    """

    def __init__(self, store: Store, folder: str) -> None:
        self.url = f"{store.url.rstrip('/')}/{folder}"
        self.capabilities = store.capabilities
        self._store = store
        self._folder = check_prefix(f"{folder}/")

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        """As the contract says."""
        with self._own_paths():
            return self._seen(await self._store.put(self._folder + path, data, mode=mode))

    async def put_pieces(self, path: str, pieces: Sequence[memoryview]) -> ObjectInfo:
        """As the contract says."""
        with self._own_paths():
            return self._seen(await self._store.put_pieces(self._folder + path, pieces))

    async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
        """As the contract says."""
        with self._own_paths():
            await self._store.put_parts(self._folder + path, parts, size=size, resend=resend)

    async def get(self, path: str) -> Blob:
        """As the contract says."""
        with self._own_paths():
            blob = await self._store.get(self._folder + path)
        return Blob(blob.data, self._seen(blob.info))

    async def get_into(self, path: str, ranges: Sequence[tuple[int, int]], buffers: Sequence[memoryview]) -> None:
        """As the contract says."""
        with self._own_paths():
            await self._store.get_into(self._folder + path, ranges, buffers)

    async def head(self, path: str) -> ObjectInfo:
        """As the contract says."""
        with self._own_paths():
            return self._seen(await self._store.head(self._folder + path))

    async def list(self, prefix: str = "", *, delimiter: bool = False) -> Listing:
        """As the contract says."""
        with self._own_paths():
            found = await self._store.list(self._folder + check_prefix(prefix), delimiter=delimiter)
        skipped = len(self._folder)
        return Listing([self._seen(item) for item in found.objects], [path[skipped:] for path in found.prefixes])

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        """As the contract says."""
        with self._own_paths():
            failed = await self._store.delete([self._folder + path for path in paths])
        return {path.removeprefix(self._folder): error for path, error in failed.items()}

    async def replace_if(self, path: str, data: Buffer, etag: str) -> ObjectInfo:
        """As the contract says."""
        with self._own_paths():
            return self._seen(await self._store.replace_if(self._folder + path, data, etag))

    async def close(self) -> None:
        """Nothing: the other store is closed by whoever has it."""

    @contextmanager
    def _own_paths(self) -> Iterator[None]:
        """Errors name the path that was asked for."""
        try:
            yield
        except StoreError as error:
            error.path = error.path.removeprefix(self._folder)
            raise

    def _seen(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, path=info.path.removeprefix(self._folder))
