"""One resumable upload to Google Cloud Storage: it is sequential, and after a failure the server says what it has.

https://cloud.google.com/storage/docs/performing-resumable-uploads
"""
# ruff: noqa: SLF001 - the store's own way of uploading, in a file of its own

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from asyncsaver.errors import StoreError
from asyncsaver.store.resend import Again, until_sent
from asyncsaver_backends._cloud import Pieces, UploadGoneError
from asyncsaver_backends._gcs_errors import RefusedError
from asyncsaver_backends._transfer import cut

if TYPE_CHECKING:
    from asyncsaver_backends.gcs import GcsStore

logger = logging.getLogger(__name__)

INCOMPLETE = 308  # the upload goes on


class ResumableUpload:
    """An upload.

    Args:
        store: sends the requests.
        path: of the object.
        key: the same, in the bucket.
        size: of the object, in bytes.
    """

    def __init__(self, store: GcsStore, path: str, key: str, size: int) -> None:
        self._store = store
        self._path = path
        self._key = key
        self._size = size
        self._session = ""

    async def begin(self) -> None:
        """Ask for an upload, once."""
        params = {"uploadType": "resumable", "name": self._key}
        headers = {"X-Upload-Content-Type": "application/octet-stream", "X-Upload-Content-Length": str(self._size)}
        with self._store._translated(self._path):
            async with self._store._request(
                "POST",
                self._store._upload_url,
                params=params,
                headers=headers,
                pieces=(),
                about_bucket=True,
            ) as answer:
                self._session = answer.headers["Location"]

    async def send(self, pieces: Pieces, offset: int, again: Again) -> None:
        """Send a part; the server may keep only its beginning, then the rest is sent. After a failure it is asked what it has.

        Args:
            pieces: of the part.
            offset: where it begins in the object.
            again: the tries of the part.

        Raises:
            UploadGoneError: the upload has to be begun anew.
        """
        kept, stop, known = offset, offset + sum(map(len, pieces)), True

        async def step() -> bool:
            nonlocal kept, known
            asking, known = not known, False
            content = f"bytes */{self._size}" if asking else f"bytes {kept}-{stop - 1}/{self._size}"
            has = await self._advance(content, () if asking else cut(pieces, kept - offset, stop - offset))
            if has is None:
                if stop < self._size or (asking and not await self._has_landed()):
                    raise UploadGoneError  # it was ended too early
                return True
            if has == self._size:
                raise self._failed("the store did not finish the upload")
            if has == kept and not asking:
                raise self._failed("the store keeps nothing of a part")
            if not offset <= has <= stop:
                raise UploadGoneError
            kept, known = has, True
            return kept == stop

        while not await until_sent(again, step):
            pass

    async def cancel(self) -> None:
        """Discard the upload, if it was begun."""
        if not self._session:
            return
        try:
            with self._store._translated(self._path):
                async with self._store._request("DELETE", self._session):
                    pass
        except StoreError as error:
            # Nothing of it is visible, and the store forgets it after a week.
            logger.debug("could not cancel an unfinished upload: %s", error)

    async def _advance(self, content_range: str, pieces: Pieces) -> int | None:
        """Send bytes, or none, and return how many the server has from the beginning on; None when the upload is complete."""
        with self._store._translated(self._path):
            try:
                async with self._store._request(
                    "PUT", self._session, headers={"Content-Range": content_range}, pieces=pieces
                ) as answer:
                    await answer.read()
                    if answer.status != INCOMPLETE:
                        return None
                    return int(answer.headers.get("Range", "bytes=0--1").removeprefix("bytes=0-")) + 1
            except RefusedError as error:
                if error.status in {404, 410}:
                    raise UploadGoneError from error
                raise

    async def _has_landed(self) -> bool:
        return await self._store._has_landed(self._path, self._key, self._size)

    def _failed(self, what: str) -> StoreError:
        name = self._store._name(self._path)
        return StoreError(f"{name}: {what}", retryable=True, path=self._path)
