"""Send requests at the pace that the store bears, and count them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

from asyncsaver.aio.meter import current_meter
from asyncsaver.aio.window import RequestWindow
from asyncsaver.errors import StoreError
from asyncsaver.store.contract import Blob, Buffer, Listing, ObjectInfo, Part, PutMode, Store
from asyncsaver.store.paced_upload import PacedUpload
from asyncsaver.store.resend import NEVER, Resend
from asyncsaver.store.retry import Retries, worth_another_try

T = TypeVar("T")


class PacedStore(Store):
    """Any store, with one window of requests over all work on it. Belongs beneath a `RetryingStore`: further tries wait in line.

    Only what moves data waits for a slot: puts that overwrite, parts, and ranges. Commits, listings and records are small, and
    must not stand in line behind gigabytes. The outcome of all of them counts.

    Whoever holds memory may wait here for a slot, but nobody who holds a slot waits for memory: parts are asked for before their
    slot is. The other way round the two would wait for each other.

    Args:
        store: what does the work; closed together with this one.
        window: shared by all work on the store.
        retries: told when the store has answered.
    """

    def __init__(self, store: Store, window: RequestWindow, retries: Retries) -> None:
        self.url = store.url
        self.capabilities = store.capabilities
        self._store = store
        self._window = window
        self._retries = retries

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        """As the contract says."""
        create = mode == "create"
        return await self._send(
            "create" if create else "put", lambda: self._store.put(path, data, mode=mode), slots=0 if create else 1
        )

    async def put_pieces(self, path: str, pieces: Sequence[memoryview]) -> ObjectInfo:
        """As the contract says."""
        return await self._send("put", lambda: self._store.put_pieces(path, pieces), slots=1)

    async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
        """As the contract says; every part is a request of its own."""
        current_meter().requests["put_parts"] += 1
        answered = self._retries.answered
        upload = PacedUpload(parts, resend, window=self._window, answered=answered, failed=self._failed)
        try:
            await self._store.put_parts(path, upload, size=size, resend=upload)
        except StoreError as error:
            if error is not upload.told:
                self._failed(error, upload.era)
            raise
        else:
            answered()
        finally:
            upload.give_up()

    async def get(self, path: str) -> Blob:
        """As the contract says."""
        return await self._send("get", lambda: self._store.get(path))

    async def get_into(self, path: str, ranges: Sequence[tuple[int, int]], buffers: Sequence[memoryview]) -> None:
        """As the contract says; every range is a request of its own."""
        sizes = [stop - start for start, stop in ranges if stop > start]
        await self._send(
            "get_range", lambda: self._store.get_into(path, ranges, buffers), requests=len(sizes), slots=len(sizes)
        )
        current_meter().bytes_read += sum(sizes)

    async def head(self, path: str) -> ObjectInfo:
        """As the contract says."""
        return await self._send("head", lambda: self._store.head(path))

    async def list(self, prefix: str = "", *, delimiter: bool = False) -> Listing:
        """As the contract says."""
        return await self._send("list", lambda: self._store.list(prefix, delimiter=delimiter))

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        """As the contract says."""
        return await self._send("delete", lambda: self._store.delete(paths), failure=_throttled)

    async def replace_if(self, path: str, data: Buffer, etag: str) -> ObjectInfo:
        """As the contract says."""
        return await self._send("replace", lambda: self._store.replace_if(path, data, etag))

    async def purge(
        self, older_than: timedelta, *, spare: Collection[str] = (), vacant: Callable[[str], bool] | None = None
    ) -> int:
        """As the contract says."""
        return await self._send("purge", lambda: self._store.purge(older_than, spare=spare, vacant=vacant))

    async def close(self) -> None:
        """Close the store beneath."""
        await self._store.close()

    async def _send(
        self,
        kind: str,
        call: Callable[[], Awaitable[T]],
        *,
        requests: int = 1,
        slots: int = 0,
        failure: Callable[[T], StoreError | None] = lambda _: None,
    ) -> T:
        if slots:
            await self._window.acquire(slots)
        try:
            current_meter().requests[kind] += requests
            era = self._window.era
            try:
                result = await call()
            except StoreError as error:
                self._failed(error, era)
                raise
            if (error_within := failure(result)) is not None:
                self._failed(error_within, era)
            else:
                self._retries.answered()
                if slots:
                    self._window.succeeded(era)
            return result
        finally:
            if slots:
                self._window.release(slots)

    def _failed(self, error: StoreError, era: int) -> None:
        if worth_another_try(error):
            self._window.refused(era)
        else:
            self._retries.answered()  # no is an answer, too


def _throttled(errors: Mapping[str, StoreError]) -> StoreError | None:
    """The first of what could not be deleted that is worth another try."""
    return next((error for error in errors.values() if worth_another_try(error)), None)
