"""The entries of the state file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from asyncsaver.errors import ManifestError
from asyncsaver.formats.batches import BATCH
from asyncsaver.formats.proto.values import Metrics, decode_json, decode_time, encode_json, encode_time
from asyncsaver.model.statefile import Entry, StateFile
from asyncsaver.proto import manifest_pb2 as pb

_State = Literal["committed", "deleted", "aborted"]
_STATES: dict[_State, pb.State] = {
    "committed": pb.STATE_COMMITTED,
    "deleted": pb.STATE_DELETED,
    "aborted": pb.STATE_ABORTED,
}


def encode_state(state: StateFile) -> bytes:
    """The message, encoded batch by batch: repeated fields of messages one after another are those of one message."""
    last = None if state.last_preserved is None else encode_time(state.last_preserved)
    pieces = [pb.StateFile(last_preserved=last).SerializeToString()]
    for at in range(0, len(state.entries), BATCH):
        batch = [_encode(entry) for entry in state.entries[at : at + BATCH]]
        pieces.append(pb.StateFile(entries=batch).SerializeToString())
    return b"".join(pieces)


def decode_entries(entries: Iterable[pb.Entry], where: str) -> list[Entry]:
    """The entries of a decoded message. Raises `ManifestError`."""
    states: dict[pb.State, _State] = {number: state for state, number in _STATES.items()}
    return [_decode(entry, states, where) for entry in entries]


def _encode(entry: Entry) -> pb.Entry:
    return pb.Entry(
        state=_STATES[entry.state],
        name=entry.name,
        step=entry.step,
        slot=entry.slot,
        etag=entry.etag,
        created=encode_time(entry.created),
        save_id=entry.save_id,
        sequence=entry.sequence,
        total_bytes=entry.total_bytes,
        world_size=entry.world_size,
        metrics=encode_json(entry.metrics, {}),
        metadata=encode_json(entry.metadata, None),
        pinned=entry.pinned,
        preserved=entry.preserved,
        unfinished=entry.unfinished,
        since=None if entry.since is None else encode_time(entry.since),
        condemned=entry.condemned,
    )


def _decode(entry: pb.Entry, states: Mapping[pb.State, _State], where: str) -> Entry:
    state = states.get(entry.state)
    if state is None or not entry.HasField("created"):
        raise ManifestError(f"{where}: damaged: an entry has no state that is known, or was not created", path=where)
    return Entry(
        state=state,
        name=entry.name,
        step=entry.step if entry.HasField("step") else None,
        slot=entry.slot,
        etag=entry.etag if entry.HasField("etag") else None,
        created=decode_time(entry.created, where),
        save_id=entry.save_id,
        sequence=entry.sequence,
        total_bytes=entry.total_bytes,
        world_size=entry.world_size,
        metrics=decode_json(entry.metrics or b"{}", where, Metrics),
        metadata=decode_json(entry.metadata or b"null", where),
        pinned=entry.pinned,
        preserved=entry.preserved,
        unfinished=entry.unfinished,
        since=decode_time(entry.since, where) if entry.HasField("since") else None,
        condemned=list(entry.condemned),
    )
