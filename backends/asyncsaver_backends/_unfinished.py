"""Uploads that were begun and neither completed nor aborted: no listing of objects shows them, and they are billed."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from asyncsaver.errors import RootNotFoundError, StoreError
from asyncsaver_backends._cloud import CloudStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Upload:
    """One of them.

    Attributes:
        key: of the object that it would have become.
        upload_id: what the store calls it.
        begun: by the store's clock, aware; None where the store does not say, and then it is left alone by `PurgingStore.purge`.
    """

    key: str
    upload_id: str
    begun: datetime | None


class PurgingStore(CloudStore):
    """A store in a bucket that can list and abort them."""

    @abstractmethod
    async def _unfinished(self, prefix: str) -> Sequence[Upload]:
        """List the unfinished uploads to all keys with a prefix. Translates its own errors."""

    @abstractmethod
    async def _abort(self, path: str, key: str, upload_id: str) -> None:
        """Abort an upload; one that is over already is fine. Translates its own errors."""

    async def purge(
        self,
        older_than: timedelta,
        *,
        spare: Collection[str] = (),
        vacant: Callable[[str], bool] | None = None,  # noqa: ARG002 - a bucket has no folders
    ) -> int:
        """As the contract says: unfinished multipart uploads, which are billed until somebody aborts them.

        Where the server cannot list them, or the user may not, there is nothing to do, and the log says so.
        """
        await self._ready()
        latest = datetime.now(UTC) - older_than
        spared = tuple(self._key(prefix) for prefix in spare)
        try:
            uploads = await self._unfinished(self._root.prefix)
        except RootNotFoundError:
            raise
        except StoreError as error:
            if error.retryable:
                raise
            logger.warning("unfinished uploads cannot be listed, so they stay: %s", error)
            return 0
        found = [
            upload
            for upload in uploads
            if upload.begun is not None and upload.begun <= latest and not upload.key.startswith(spared)
        ]
        for upload in found:
            await self._abort(upload.key[len(self._root.prefix) :], upload.key, upload.upload_id)
        return len(found)
