"""The state file: the list of checkpoints that restore and pruning read first. A cache; never the truth.

Every entry names the version (etag) of the record it was made from, so that a reader can tell a stale entry from a good one by
a listing alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

import msgspec

from asyncsaver.model.manifest import Aborted, Deleted, Json, Manifest, Record, Summary, Utc
from asyncsaver.model.names import slot_path

VERSION = 1
FORMAT = "asyncsaver-state"


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record at a slot, without its tensors: what listing and retention need.

    Attributes:
        state: of the record: "committed", "deleted" or "aborted".
        etag: of the object at the slot when it was read; None where the store has no etags (then it is read each time).
        condemned: save ids, for an aborted record.
        pinned: a pin stands beside the checkpoint.
        preserved: retention has decided to keep it for good.
        since: for a tombstone or a fence, from when its time to live counts, by the store's clock; None until a save after it.
        unfinished: for a tombstone, some of its files may still be there.
    """

    state: Literal["committed", "deleted", "aborted"]
    name: str
    step: int | None
    slot: int
    etag: str | None
    created: Utc
    save_id: str = ""
    sequence: int = 0
    total_bytes: int = 0
    world_size: int = 1
    metrics: dict[str, int | float | str] = {}
    metadata: Json = None
    condemned: list[str] = []
    pinned: bool = False
    preserved: bool = False
    since: Utc | None = None
    unfinished: bool = False

    @property
    def path(self) -> str:
        """Where its record stands."""
        return slot_path(self.name, self.slot)

    @property
    def order(self) -> tuple[int, int, int, str]:
        """Sorts checkpoints from oldest to newest: by commit order, and where two savers raced, by step."""
        return (self.sequence, -1 if self.step is None else self.step, self.slot, self.save_id)


class StateFile(msgspec.Struct, frozen=True, kw_only=True):
    """The state file.

    Attributes:
        entries: one for each record at a slot.
        last_preserved: the time from which `KeepEveryHours` counts on, UTC; None until something was saved.
    """

    format: str = FORMAT
    version: int = VERSION
    entries: list[Entry] = []
    last_preserved: Utc | None = None

    def by_path(self) -> dict[str, Entry]:
        """Entries by the path of their record."""
        return {entry.path: entry for entry in self.entries}

    def with_entries(self, entries: Iterable[Entry], *, without: Iterable[str] = ()) -> StateFile:
        """Add or replace entries, and drop those whose records stand at the paths ``without``."""
        merged = self.by_path()
        for path in without:
            merged.pop(path, None)
        merged.update({entry.path: entry for entry in entries})
        return msgspec.structs.replace(
            self, entries=sorted(merged.values(), key=lambda entry: (entry.order, entry.path))
        )

    def reconciled(
        self, entries: Iterable[Entry], *, late: datetime, began: datetime, seen: Mapping[str, Entry] | None = None
    ) -> StateFile:
        """This state with what was found on the store in place of what it had listed.

        Args:
            entries: one for each record that stands.
            late: what the store's clock says: from now on count the tombstones and fences that are new.
            began: where `KeepEveryHours` counts from if nothing is recorded yet.
            seen: what this state said when the store was looked at. What it says otherwise now, others have written since, and
                stays. None where nothing can have changed.
        """
        since = {entry.path: entry.since for entry in self.entries if entry.state != "committed"}
        known = [
            entry
            if entry.state == "committed" or entry.since is not None
            else msgspec.structs.replace(entry, since=since.get(entry.path) or late)
            for entry in entries
        ]
        empty = msgspec.structs.replace(self, entries=[], last_preserved=self.last_preserved or began)
        newer = [] if seen is None else [entry for entry in self.entries if seen.get(entry.path) != entry]
        return empty.with_entries([*known, *newer])


def entry_of(record: Record, etag: str | None) -> Entry:
    """The entry for a record that was read from, or written to, its slot."""
    common = {"name": record.name, "step": record.step, "slot": record.slot, "etag": etag, "created": record.created}
    match record:
        case Manifest() | Summary():
            return Entry(
                state="committed",
                save_id=record.save_id,
                sequence=record.sequence,
                total_bytes=record.total_bytes,
                world_size=record.world_size,
                metrics=record.metrics,
                metadata=record.metadata,
                **common,  # type: ignore[arg-type]
            )
        case Deleted():
            return Entry(state="deleted", save_id=record.save_id, **common)  # type: ignore[arg-type]
        case Aborted():
            return Entry(state="aborted", condemned=record.condemned, **common)  # type: ignore[arg-type]
