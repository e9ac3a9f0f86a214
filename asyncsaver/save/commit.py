"""Commit: choosing the slot, and creating the manifest there exactly once, whatever the store answers."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from dataclasses import dataclass

import msgspec

from asyncsaver.catalog.reader import FolderRecords, FoundRecord
from asyncsaver.catalog.root import Root
from asyncsaver.errors import (
    AccessDeniedError,
    AsyncSaverError,
    CheckpointDeletedError,
    CheckpointExistsError,
    CommitUnknownError,
    ManifestError,
    ObjectNotFoundError,
    SaveAbortedError,
    StoreError,
)
from asyncsaver.formats import native
from asyncsaver.model.catalog import next_slot
from asyncsaver.model.manifest import Aborted, CommitRecord, Deleted, Record
from asyncsaver.model.names import slot_path
from asyncsaver.store.contract import PutMode
from asyncsaver.store.retry import full_jitter

log = logging.getLogger("asyncsaver")
_REFUSALS = 3  # how often a refusal that is not worth a retry is believed to be a mistake


def choose_slot(found: FolderRecords, url: str, *, overwrite: bool) -> int:
    """The slot that a new attempt targets; chosen once, when it begins.

    Args:
        found: the checkpoint's folder as it is now.
        url: of the root, for messages.
        overwrite: whether a committed checkpoint may be replaced.

    Raises:
        CheckpointExistsError: one is committed (or stands there unreadable), and ``overwrite`` is false.
    """
    name = found.folder.name
    if not overwrite:
        for slot, one in sorted(found.records.items(), reverse=True):
            if isinstance(one.record, CommitRecord):
                raise CheckpointExistsError(
                    f"{url}/{name} is committed already (save {one.record.save_id} at {slot_path(name, slot)}); "
                    "overwrite=True replaces it"
                )
        for slot, error in found.damaged.items():
            raise CheckpointExistsError(
                f"{url}/{name} holds {slot_path(name, slot)}, which cannot be read; overwrite=True puts a new checkpoint in "
                f"its place ({error})"
            ) from error
    return next_slot([], [*found.records, *found.damaged])


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit that is certain: the manifest, or its summary, as it stands at the slot, its etag, and its size in bytes."""

    manifest: CommitRecord
    etag: str | None
    nbytes: int


async def commit(root: Root, record: CommitRecord, *, overwrite: bool, limit: float) -> Committed:
    """Create a record at its slot, or at a later one if only fences for others stand in the way.

    Any answer that is not a clear success is settled by reading the slot back. Run it under
    `aio.completion.to_completion`: stopped halfway, nobody would know whether the checkpoint exists.

    Args:
        root: where to.
        record: complete, and so is what it refers to; its `slot` was chosen when the attempt began.
        overwrite: for the message, when another save came first.
        limit: seconds in all, after which an unclear commit is given up.

    Raises:
        CheckpointExistsError: another save has committed this checkpoint meanwhile.
        SaveAbortedError: a sweep has condemned this attempt.
        CheckpointDeletedError: it was committed, and deleted before we knew.
        CommitUnknownError: not settled in time, or refused while an earlier request may still land; whether the checkpoint exists
            will show when the store answers again.
        StoreError: the store refuses to write the manifest, for sure.
    """
    mode: PutMode = "create" if root.store.capabilities.exclusive_create else "overwrite"
    rng = random.Random(root.random_bits(64))  # noqa: S311 - spreads load, guards nothing
    attempt = 0
    unclear: Exception | None = None
    may_land = False  # a request that was not answered may still be carried out, long after later ones were refused
    try:
        async with asyncio.timeout(limit):
            while True:
                data = await root.threads.run(native.encode, record)
                attempt += 1
                try:
                    written = await root.store.put(slot_path(record.name, record.slot), data, mode=mode)
                    return Committed(record, written.etag, len(data))
                except StoreError as error:
                    unclear = error
                found = await _read_back(root, record, rng)
                if found is None:
                    if isinstance(unclear, AccessDeniedError) or (not unclear.retryable and attempt >= _REFUSALS):
                        raise (
                            _unknown(root, record, f"refused after an unanswered request: {unclear}")
                            if may_land
                            else unclear
                        )
                    may_land = may_land or unclear.retryable
                    await asyncio.sleep(full_jitter(attempt, rng=rng))
                elif isinstance(found.record, CommitRecord) and found.record.save_id == record.save_id:
                    return Committed(record, found.etag, len(data))
                elif isinstance(found.record, Aborted) and record.save_id not in found.record.condemned:
                    record = msgspec.structs.replace(record, slot=record.slot + 1)
                else:
                    raise _refusal(root, record, found.record, overwrite=overwrite)
    except TimeoutError as error:
        if isinstance(error, AsyncSaverError):
            raise
        raise _unknown(root, record, f"not settled within {limit:g} s: {unclear or 'no answer'}") from unclear


def _unknown(root: Root, mine: CommitRecord, why: str) -> CommitUnknownError:
    path = slot_path(mine.name, mine.slot)
    return CommitUnknownError(
        f"{root.store.url}/{path}: whether the commit went through is not known ({why}). What was written stays; if it went "
        "through after all, the checkpoint is there.",
        retryable=True,
        path=path,
    )


async def _read_back(root: Root, mine: CommitRecord, rng: random.Random) -> FoundRecord | None:
    """What stands at the slot now; None when nothing does. Asks until the store answers."""
    path = f"{root.store.url}/{slot_path(mine.name, mine.slot)}"
    for attempt in itertools.count(1):
        try:
            return await root.reader.record(mine.name, mine.slot)
        except ObjectNotFoundError:
            return None
        except ManifestError as error:
            raise CheckpointExistsError(f"{path} is taken by what cannot be read: {error}") from error
        except StoreError as error:
            log.info("%s: the commit is unclear and cannot be read back yet: %s", path, error)
            await asyncio.sleep(full_jitter(attempt, rng=rng))
    raise AssertionError("unreachable: the count does not end")


def condemned_error(where: str, record: Aborted, save_id: str) -> SaveAbortedError:
    """The error of an attempt that a fence, standing at ``where``, condemns."""
    return SaveAbortedError(
        f"{where}: save {save_id} was given up for dead by a sweep at {record.created:%Y-%m-%d %H:%M:%S} UTC; "
        "nothing was committed. Save again."
    )


def _refusal(root: Root, mine: CommitRecord, record: Record, *, overwrite: bool) -> Exception:
    where = f"{root.store.url}/{slot_path(mine.name, mine.slot)}"
    match record:
        case Aborted():
            return condemned_error(where, record, mine.save_id)
        case Deleted() if record.save_id == mine.save_id:
            return CheckpointDeletedError(f"{where}: save {mine.save_id} was committed and has been deleted since")
        case _:
            hint = "another save replaced it at the same time" if overwrite else "overwrite=True replaces it"
            return CheckpointExistsError(f"{where}: save {record.save_id} was committed first; {hint}")
