"""s3fs alone."""

from __future__ import annotations

from typing import Any

import s3fs

from peers.raw_fsspec import RawFsspec


class RawS3fs(RawFsspec):
    """It keeps ten connections unless told otherwise."""

    async def _open(self) -> Any:
        fs = s3fs.S3FileSystem(
            asynchronous=True,
            skip_instance_cache=True,
            config_kwargs={"max_pool_connections": self._at_once},
            **self.place.storage_options,
        )
        await fs.set_session()
        return fs

    async def close(self) -> None:
        await self._fs._s3creator.__aexit__(None, None, None)
