"""Send requests again that a store could not answer, where sending them twice does no harm."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar

from asyncsaver.errors import StoreError, StoreTimeoutError
from asyncsaver.store.contract import Blob, Buffer, Listing, ObjectInfo, Part, PutMode, Store

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[object]]

_logger = logging.getLogger("asyncsaver.store")


def full_jitter(attempt: int, *, rng: random.Random, base: float = 0.1, cap: float = 5.0) -> float:
    """How long to wait after a failed attempt, in seconds: anything up to a bound that doubles each time.

    Args:
        attempt: which one failed, from 1.
        rng: where the jitter comes from.
        base: the bound after the first attempt, in seconds.
        cap: the largest bound, in seconds.
    """
    return rng.uniform(0, min(cap, base * 2 ** min(attempt - 1, 30)))


class RetryingStore(Store):
    """Any store, with retries of its idempotent calls, after a pause with full jitter.

    Retried: `get`, `get_into`, `head`, `list`, `delete`, and `put` that overwrites. Never retried: `put` that creates
    and `replace_if`, since the first attempt may have succeeded unseen and the second would then report a conflict with
    itself (their callers read back instead); and `put_parts`, whose parts are gone.

    Args:
        store: what does the work; closed together with this one.
        attempts: the most times a call is sent.
        base: the longest first pause, in seconds; it doubles with each attempt.
        cap: the longest pause of all, in seconds.
        sleep: how to pause.
        rng: where the jitter comes from; one of its own by default, so that many ranks do not retry in step.
    """

    def __init__(
        self,
        store: Store,
        *,
        attempts: int = 5,
        base: float = 0.1,
        cap: float = 5.0,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        if attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {attempts}")
        self.url = store.url
        self.capabilities = store.capabilities
        self._store = store
        self._attempts = attempts
        self._base = base
        self._cap = cap
        self._sleep = sleep
        self._rng = random.Random() if rng is None else rng  # noqa: S311 - spreads load, guards nothing

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        """As the contract says; retried unless ``mode`` is ``create``."""
        if mode == "create":
            return await self._store.put(path, data, mode="create")
        return await self._retry(f"put {path}", lambda: self._store.put(path, data))

    async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int) -> None:
        """As the contract says; never retried."""
        await self._store.put_parts(path, parts, size=size)

    async def get(self, path: str) -> Blob:
        """As the contract says."""
        return await self._retry(f"get {path}", lambda: self._store.get(path))

    async def get_into(self, path: str, ranges: Sequence[tuple[int, int]], buffers: Sequence[memoryview]) -> None:
        """As the contract says; when one range fails, all are read again."""
        await self._retry(f"get {path}", lambda: self._store.get_into(path, ranges, buffers))

    async def head(self, path: str) -> ObjectInfo:
        """As the contract says."""
        return await self._retry(f"head {path}", lambda: self._store.head(path))

    async def list(self, prefix: str = "", *, delimiter: bool = False) -> Listing:
        """As the contract says."""
        return await self._retry(f"list {prefix!r}", lambda: self._store.list(prefix, delimiter=delimiter))

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        """As the contract says; only what could not be deleted is sent again."""
        failed: dict[str, StoreError] = {}
        remaining = list(paths)
        for attempt in range(1, self._attempts + 1):
            errors = await self._retry(f"delete {len(remaining)} objects", partial(self._store.delete, remaining))
            again = {path: error for path, error in errors.items() if _worth_another_try(error)}
            failed |= {path: error for path, error in errors.items() if path not in again}
            if not again or attempt == self._attempts:
                return failed | again
            remaining = list(again)
            await self._pause(f"delete {len(again)} objects", attempt, next(iter(again.values())))
        return failed

    async def replace_if(self, path: str, data: Buffer, etag: str) -> ObjectInfo:
        """As the contract says; never retried."""
        return await self._store.replace_if(path, data, etag)

    async def purge(self, older_than: timedelta, *, spare: Collection[str] = ()) -> int:
        """As the contract says."""
        return await self._retry("purge", lambda: self._store.purge(older_than, spare=spare))

    async def close(self) -> None:
        """Close the store beneath."""
        await self._store.close()

    async def _retry(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        for attempt in range(1, self._attempts):
            try:
                return await call()
            except StoreError as error:
                if not _worth_another_try(error):
                    raise
                await self._pause(what, attempt, error)
        return await call()

    async def _pause(self, what: str, attempt: int, error: StoreError) -> None:
        pause = full_jitter(attempt, rng=self._rng, base=self._base, cap=self._cap)
        _logger.info("%s failed (attempt %d of %d), again in %.2f s: %s", what, attempt, self._attempts, pause, error)
        await self._sleep(pause)


def _worth_another_try(error: StoreError) -> bool:
    return error.retryable or isinstance(error, StoreTimeoutError)
