"""The same root through s3fs, where that is installed: for what obstore has no request for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from asyncsaver.aio.threads import Threads

if TYPE_CHECKING:
    from asyncsaver_backends.s3 import S3Store


class Twin:
    """Makes the store when first needed; it connects with its first request.

    Args:
        url: of the root.
        storage_options: of s3fs.
        threads: where s3fs is imported, which takes long.
    """

    def __init__(self, url: str, storage_options: Mapping[str, object], threads: Threads) -> None:
        self._url = url
        self._options = storage_options
        self._threads = threads
        self._store: S3Store | None = None

    async def store(self) -> S3Store | None:
        """Return the store; None where s3fs is missing."""
        if self._store is None:
            try:
                kind = await self._threads.run(_kind)
            except ImportError:
                return None
            if self._store is None:  # several may have waited
                self._store = kind(self._url, storage_options=self._options)
        return self._store

    async def close(self) -> None:
        """Close the connections."""
        if self._store is not None:
            await self._store.close()


def _kind() -> type[S3Store]:
    from asyncsaver_backends.s3 import S3Store  # noqa: PLC0415 - an extra, and slow to import

    return S3Store
