"""Unfinished multipart uploads of S3, which obstore can neither list nor abort: s3fs does it, where it is installed."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING

from asyncsaver.errors import StoreError
from asyncsaver_backends._obstore_twin import Twin

if TYPE_CHECKING:
    from asyncsaver_backends.s3 import S3Store

logger = logging.getLogger(__name__)


class UnfinishedUploads:
    """Finds and aborts the uploads below a root.

    Args:
        url: of the root.
        twin: sends the requests, and is closed by whoever made it.
    """

    def __init__(self, url: str, twin: Twin) -> None:
        self._url = url
        self._twin = twin
        self._told = False

    async def abort(self, path: str, key: str) -> None:
        """Abort every unfinished upload of a key, ours and whoever else's. What fails is logged.

        obstore does not say which upload is ours. No two writers of checkpoints write one key: its folder is named for the
        attempt.
        """
        store = await self._connected()
        if store is None:
            return
        try:
            await store._ready()  # noqa: SLF001 - the same package, and the same requests
            for upload in await store._unfinished(key):  # noqa: SLF001
                if upload.key == key:
                    await store._abort(path, key, upload.upload_id)  # noqa: SLF001
        except StoreError as error:
            logger.warning("could not look for an unfinished upload: %s", error)

    async def purge(self, older_than: timedelta, spare: Collection[str]) -> int:
        """As `Store.purge`; without s3fs nothing is removed, and the log says so."""
        store = await self._connected()
        return 0 if store is None else await store.purge(older_than, spare=spare)

    async def _connected(self) -> S3Store | None:
        store = await self._twin.store()
        if store is None and not self._told:
            self._told = True
            logger.warning(
                "%s: unfinished uploads stay until the bucket's lifecycle rules remove them;"
                ' pip install "asyncsaver[s3]" lets them be removed here',
                self._url,
            )
        return store
