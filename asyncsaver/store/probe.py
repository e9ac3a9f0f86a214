"""Find out whether a store that claims exclusive creation keeps its word.

Some servers ignore preconditions and let every creator win (``rclone serve s3``); a commit there could be overwritten
by another writer without either noticing. So the claim is tried, once per root, before the first commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools

from asyncsaver.errors import ObjectNotFoundError, StoreError, UnsupportedStoreError
from asyncsaver.store.contract import Store
from asyncsaver.store.retry import Retries, worth_another_try

PROBE_FOLDER = ".asyncsaver-probe/"

_RACERS = 4
_LOOKS = 3


class _UnansweredError(Exception):
    """Whether an object was created is not known. Everything but creating, a store with retries has sent again by itself."""

    def __init__(self, reason: StoreError) -> None:
        super().__init__(str(reason))
        self.reason = reason


async def probe_exclusive_create(store: Store, *, token: str, retries: Retries | None = None) -> bool:
    """Try whether ``put(mode="create")`` is exclusive on this root: one creator after another, then several at once.

    What was written for it is deleted afterwards, on errors and cancellation too. A sweep may delete it before, which looks
    like a second creator that was let in, and so may a request that is carried out twice or late: what speaks against a store
    is looked at three times.

    Args:
        store: the store as it will be used.
        token: unique to this call; becomes part of the object's name.
        retries: how long to try again, under other names, when a creation was not answered; by default not at all.

    Returns:
        False if the store says that it cannot, or was found not to.

    Raises:
        StoreError: it could not be found out; retryable ones say so.
    """
    if not store.capabilities.exclusive_create:
        return False
    tries = (retries or Retries(timeout=0)).begin(f"finding out what {store.url} can do")
    written: list[str] = []
    doubts = 0
    try:
        for number in itertools.count(1):
            turns, race = f"{PROBE_FOLDER}{token}-{number}-in-turn", f"{PROBE_FOLDER}{token}-{number}-race"
            written += [turns, race]
            try:
                if await _refuses_the_second(store, turns) and await _lets_one_win(store, race):
                    return True
                doubts += 1
                if doubts == _LOOKS:
                    return False
            except UnsupportedStoreError:
                return False  # a local filesystem without hard links finds out only when it tries
            except _UnansweredError as unanswered:
                if not await tries.another(unanswered.reason):
                    raise unanswered.reason from unanswered.reason.__cause__
    finally:
        # Once, after all tries. A probe that stays behind is harmless, and must not hide what was found out.
        with contextlib.suppress(StoreError):
            await store.delete(written)
    raise AssertionError("unreachable: the count does not end")


async def _refusal(store: Store, path: str, content: bytes) -> StoreError | None:
    """Why the store refused to create the object; None if it claims to have created it."""
    try:
        await store.put(path, content, mode="create")
    except StoreError as error:
        if worth_another_try(error):
            raise _UnansweredError(error) from error
        return error
    return None


async def _refuses_the_second(store: Store, path: str) -> bool:
    refused = await _refusal(store, path, b"first")
    # An HTTP client may send a request again when the connection breaks before the answer, and be refused because of itself.
    if refused is not None and not await _holds(store, path, b"first"):
        raise refused
    return await _refusal(store, path, b"second") is not None and await _holds(store, path, b"first")


async def _holds(store: Store, path: str, content: bytes) -> bool:
    try:
        return (await store.get(path)).data == content
    except ObjectNotFoundError:
        return False


async def _lets_one_win(store: Store, path: str) -> bool:
    contents = [f"racer {racer}".encode() for racer in range(_RACERS)]
    outcomes = await asyncio.gather(*(_refusal(store, path, content) for content in contents), return_exceptions=True)
    refusals = [outcome for outcome in outcomes if isinstance(outcome, StoreError)]
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and outcome not in refusals:
            raise outcome
    winners = [content for content, outcome in zip(contents, outcomes, strict=True) if outcome is None]
    try:
        standing = await store.get(path)
    except ObjectNotFoundError:
        # Nobody was let in at all, by a full disk for instance: that says nothing about exclusion.
        if len(refusals) == len(contents):
            raise refusals[0] from None
        return False
    # The one that won may have been told otherwise, as above.
    return standing.data in contents if not winners else winners == [standing.data]
