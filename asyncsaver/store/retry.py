"""Send requests again that a store could not answer, where sending them twice does no harm."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from asyncsaver.aio.meter import current_meter
from asyncsaver.errors import StoreError, StoreTimeoutError
from asyncsaver.store.contract import Blob, Buffer, Listing, ObjectInfo, Part, PutMode, Store
from asyncsaver.store.resend import NEVER, Resend, until_sent

T = TypeVar("T")

PATIENCE = 5
"""For how many times the timeout a request is sent again in all, as long as the store answers others."""

DEFAULT_RETRY_TIMEOUT = 60.0
_QUIET_TRIES = 5
"""From this one on, retries are logged as warnings: by then it is no hiccup."""

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


@dataclass(slots=True)
class Answers:
    """When the store last answered a request, by the clock of the retries; shared by all who send to it."""

    latest: float = -math.inf


@dataclass(frozen=True, slots=True)
class Retries:
    """For how long a request that fails is sent again. All requests to a store share one deadline.

    A request is given up when it has failed for as long as the timeout and the store has answered nothing else in that time
    either. While others are answered the store is alive, though it may be crowded, and the request is sent again; but not
    for ever, since it may be one that the store will never serve.

    The time counts from the first failure, so a large object on a slow line gets a second try as well. It is not divided
    among tries, and a try that is under way at the deadline is not cut off: stores end requests that do not move.

    Args:
        timeout: seconds without any answer, after which to give up; 0 to send everything once.
        base: the longest first pause, in seconds; it doubles with each try.
        cap: the longest pause of all, in seconds.
        sleep: how to pause.
        clock: seconds, monotonic; the event loop's by default.
        rng: where the jitter comes from; one of its own by default, so that many ranks do not retry in step.
        answers: what the store has answered.
    """

    timeout: float = DEFAULT_RETRY_TIMEOUT
    base: float = 0.1
    cap: float = 5.0
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    clock: Callable[[], float] | None = None
    rng: random.Random = field(default_factory=random.Random)
    answers: Answers = field(default_factory=Answers)

    def __post_init__(self) -> None:
        if not self.timeout >= 0:
            raise ValueError(f"a retry timeout must be 0 or more seconds, not {self.timeout}")

    def now(self) -> float:
        """The time by the clock."""
        return asyncio.get_running_loop().time() if self.clock is None else self.clock()

    def answered(self) -> None:
        """Learn that the store is alive: it has carried a request out, or refused it for good."""
        self.answers.latest = self.now()

    async def run(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Call until it succeeds, fails for good, or the time is up; then the last error is raised.

        Args:
            what: for the log.
            call: sends the request once.
        """
        return await until_sent(self.begin(what), call)

    def begin(self, what: str) -> Tries:
        """Count the tries of one request, of which the first is about to be made."""
        return Tries(self, what)

    def begin_upload(self, what: str) -> UploadTries:
        """Count the tries of an upload in parts, and of each of its requests."""
        return UploadTries(self, what)


class Tries:
    """The tries of one request.

    Args:
        retries: how often and how long.
        what: for the log.
        gave_up: told when the time is up since when the request had failed, by the clock of the retries.
    """

    def __init__(self, retries: Retries, what: str, *, gave_up: Callable[[float], None] | None = None) -> None:
        self._retries = retries
        self._what = what
        self._gave_up = gave_up
        self._failures = 0
        self._first_failure = math.inf

    async def another(self, error: StoreError) -> bool:
        """Whether the request is to be sent again after this error; pauses before it says so.

        Args:
            error: how the latest try ended.
        """
        if not worth_another_try(error):
            return False
        retries = self._retries
        now = retries.now()
        self._failures += 1
        self._first_failure = min(self._first_failure, now)
        alive = max(self._first_failure, retries.answers.latest)
        left = min(alive, self._first_failure + (PATIENCE - 1) * retries.timeout) + retries.timeout - now
        if left <= 0:
            if self._gave_up is not None:
                self._gave_up(self._first_failure)
            return False
        pause = min(left, full_jitter(self._failures, rng=retries.rng, base=retries.base, cap=retries.cap))
        _logger.log(
            logging.INFO if self._failures < _QUIET_TRIES else logging.WARNING,
            "%s failed (try %d), again in %.2f s; %.0f s left unless the store answers: %s",
            self._what,
            self._failures,
            pause,
            left,
            error,
        )
        current_meter().retries += 1
        await retries.sleep(pause)
        return True


class UploadTries(Tries):
    """The tries of an upload as a whole, and (as its `Resend`) of each of its requests.

    The whole has been failing since the request has that ended it: where that was sent again until its time was up, there is no
    time left for the whole to begin anew.
    """

    @property
    def timeout(self) -> float:
        """See `Resend`."""
        return self._retries.timeout

    def request(self) -> Tries:
        """See `Resend`."""
        return Tries(self._retries, self._what, gave_up=self._failing_since)

    def part(self, number: int) -> Tries:
        """See `Resend`."""
        return Tries(self._retries, f"{self._what}, part {number},", gave_up=self._failing_since)

    def failing_for(self, seconds: float) -> None:
        """See `Resend`."""
        self._failing_since(self._retries.now() - seconds)

    def _failing_since(self, time: float) -> None:
        self._first_failure = min(self._first_failure, time)


class RetryingStore(Store):
    """Any store, with retries of its idempotent calls, after a pause with full jitter.

    Retried: `get`, `get_into`, `head`, `list`, `delete`, `purge`, and `put` that overwrites; of `put_parts` the single requests,
    where the store can send them again, but not the whole, whose parts are gone. Never retried: `put` that creates and
    `replace_if`, since the first attempt may have succeeded unseen and the second would then report a conflict with itself
    (their callers read back instead).

    Args:
        store: what does the work; closed together with this one.
        retries: for how long; see `Retries`.
    """

    def __init__(self, store: Store, retries: Retries | None = None) -> None:
        self.url = store.url
        self.capabilities = store.capabilities
        self._store = store
        self._retries = retries or Retries()

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        """As the contract says; retried unless ``mode`` is ``create``."""
        if mode == "create":
            return await self._store.put(path, data, mode="create")
        return await self._retries.run(f"put {path}", lambda: self._store.put(path, data))

    async def put_pieces(self, path: str, pieces: Sequence[memoryview]) -> ObjectInfo:
        """As the contract says; retried."""
        return await self._retries.run(f"put {path}", lambda: self._store.put_pieces(path, pieces))

    async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
        """As the contract says; what may be sent again, is.

        Args:
            path: where nothing but this object is ever written.
            parts: see `Store`.
            size: see `Store`.
            resend: `NEVER` for tries of its own; others where the caller tries the whole again by the same deadline.
        """
        if resend is NEVER:
            resend = self._retries.begin_upload(f"put {path}")
        await self._store.put_parts(path, parts, size=size, resend=resend)

    async def get(self, path: str) -> Blob:
        """As the contract says."""
        return await self._retries.run(f"get {path}", lambda: self._store.get(path))

    async def get_into(self, path: str, ranges: Sequence[tuple[int, int]], buffers: Sequence[memoryview]) -> None:
        """As the contract says; when one range fails, all are read again."""
        await self._retries.run(f"get {path}", lambda: self._store.get_into(path, ranges, buffers))

    async def head(self, path: str) -> ObjectInfo:
        """As the contract says."""
        return await self._retries.run(f"head {path}", lambda: self._store.head(path))

    async def list(self, prefix: str = "", *, delimiter: bool = False) -> Listing:
        """As the contract says."""
        return await self._retries.run(f"list {prefix!r}", lambda: self._store.list(prefix, delimiter=delimiter))

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        """As the contract says; only what could not be deleted is sent again."""
        failed: dict[str, StoreError] = {}
        remaining = list(paths)
        tries = self._retries.begin(f"delete {len(remaining)} objects")
        while True:
            try:
                errors = await self._store.delete(remaining)
            except StoreError as error:
                if not await tries.another(error):
                    raise
                continue
            again = {path: error for path, error in errors.items() if worth_another_try(error)}
            failed |= {path: error for path, error in errors.items() if path not in again}
            if not again or not await tries.another(next(iter(again.values()))):
                return failed | again
            remaining = list(again)

    async def replace_if(self, path: str, data: Buffer, etag: str) -> ObjectInfo:
        """As the contract says; never retried."""
        return await self._store.replace_if(path, data, etag)

    async def purge(
        self, older_than: timedelta, *, spare: Collection[str] = (), vacant: Callable[[str], bool] | None = None
    ) -> int:
        """As the contract says."""
        return await self._retries.run("purge", lambda: self._store.purge(older_than, spare=spare, vacant=vacant))

    async def close(self) -> None:
        """Close the store beneath."""
        await self._store.close()


def worth_another_try(error: StoreError) -> bool:
    """Whether the same request may succeed if it is sent again."""
    return error.retryable or isinstance(error, StoreTimeoutError)
