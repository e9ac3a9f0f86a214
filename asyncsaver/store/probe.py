"""Find out whether a store that claims exclusive creation keeps its word.

Some servers ignore preconditions and let every creator win (``rclone serve s3``); a commit there could be overwritten
by another writer without either noticing. So the claim is tried, once per root, before the first commit.
"""

from __future__ import annotations

import asyncio
import contextlib

from asyncsaver.errors import ObjectNotFoundError, StoreError, UnsupportedStoreError
from asyncsaver.store.contract import Store

PROBE_FOLDER = ".asyncsaver-probe/"

_RACERS = 4


async def probe_exclusive_create(store: Store, *, token: str) -> bool:
    """Try whether ``put(mode="create")`` is exclusive on this root: one creator after another, then several at once.

    What was written for it is deleted afterwards, on errors and cancellation too.

    Args:
        store: the store as it will be used.
        token: unique to this call; becomes part of the object's name.

    Returns:
        False if the store says that it cannot, or was found not to.

    Raises:
        StoreError: it could not be found out; retryable ones say so.
    """
    if not store.capabilities.exclusive_create:
        return False
    turns, race = f"{PROBE_FOLDER}{token}-turns", f"{PROBE_FOLDER}{token}-race"
    try:
        return await _refuses_the_second(store, turns) and await _lets_one_win(store, race)
    except UnsupportedStoreError:
        return False  # a local filesystem without hard links finds out only when it tries
    finally:
        # A probe that stays behind is harmless, and must not hide what was found out.
        with contextlib.suppress(StoreError):
            await store.delete([turns, race])


async def _refusal(store: Store, path: str, content: bytes) -> StoreError | None:
    """Why the store refused to create the object; None if it claims to have created it. A failure that may pass is raised."""
    try:
        await store.put(path, content, mode="create")
    except StoreError as error:
        if error.retryable:
            raise
        return error
    return None


async def _refuses_the_second(store: Store, path: str) -> bool:
    await store.put(path, b"first", mode="create")
    return await _refusal(store, path, b"second") is not None and (await store.get(path)).data == b"first"


async def _lets_one_win(store: Store, path: str) -> bool:
    contents = [f"racer {racer}".encode() for racer in range(_RACERS)]
    outcomes = await asyncio.gather(*(_refusal(store, path, content) for content in contents), return_exceptions=True)
    refusals = [outcome for outcome in outcomes if isinstance(outcome, StoreError) and not outcome.retryable]
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
        raise
    return len(winners) == 1 and standing.data == winners[0]
