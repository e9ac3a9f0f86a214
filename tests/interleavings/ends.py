"""Where a schedule has led: all that what comes afterwards could tell apart."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import UTC, datetime

import msgspec

from asyncsaver.errors import ObjectNotFoundError
from asyncsaver.formats.encodings import STATE_FILES, decode_state
from asyncsaver.testing import SimulatedBucket

from .oracle import Oracle

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def end_of(bucket: SimulatedBucket, oracle: Oracle) -> Hashable:
    """What there is, and what has been promised, once everything is older than any grace.

    Etags and times differ from schedule to schedule. What follows only compares them: whether the state file knows the version
    that stands, and whether a time to live has passed, which it has for all of them.
    """
    contents = frozenset((path, data) for path, data in bucket.contents.items() if path not in STATE_FILES.values())
    states = [_state(bucket, path) for path in STATE_FILES.values()]
    return contents, *states, oracle.facts()


def _state(bucket: SimulatedBucket, path: str) -> bytes | None:
    try:
        state = decode_state(bucket.find(path).content, path)
    except ObjectNotFoundError:
        return None
    entries = [
        msgspec.structs.replace(
            entry,
            etag=None if entry.etag is None else str(entry.etag == _etag(bucket, entry.path)),
            since=None if entry.since is None else _LONG_AGO,
        )
        for entry in state.entries
    ]
    return msgspec.json.encode(msgspec.structs.replace(state, entries=entries))


def _etag(bucket: SimulatedBucket, path: str) -> str | None:
    try:
        return bucket.info(path, bucket.find(path)).etag
    except ObjectNotFoundError:
        return None
