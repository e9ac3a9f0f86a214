"""adlfs alone."""

from __future__ import annotations

from typing import Any

from adlfs import AzureBlobFileSystem

from peers.raw_fsspec import RawFsspec


class RawAdlfs(RawFsspec):
    """Azure's SDK sends what is smaller than 64 MiB in one request, and reads in ranges of 32 MiB and then 4 MiB."""

    async def _open(self) -> Any:
        return AzureBlobFileSystem(asynchronous=True, skip_instance_cache=True, **self.place.storage_options)

    async def close(self) -> None:
        await self._fs.service_client.close()
