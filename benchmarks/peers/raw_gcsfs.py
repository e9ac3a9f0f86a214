"""gcsfs alone."""

from __future__ import annotations

from typing import Any

from gcsfs.core import GCSFileSystem  # the one that asks no server for the type of a bucket

from peers.raw_fsspec import RawFsspec


class RawGcsfs(RawFsspec):
    """It sends what is smaller than 50 MiB in one request."""

    async def _open(self) -> Any:
        fs = GCSFileSystem(asynchronous=True, skip_instance_cache=True, **self.place.storage_options)
        await fs._set_session()
        return fs

    async def close(self) -> None:
        await self._fs.session.close()
