"""What must be true of a root at every moment, whoever does what in whatever order."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from asyncsaver.formats import native
from asyncsaver.formats.encodings import STATE_FILES, decode_body, decode_state
from asyncsaver.model.manifest import CommitRecord, Deleted, FileEntry, Manifest, Record
from asyncsaver.model.names import PINNED_MARKER, is_save_id, parse_slot
from asyncsaver.model.statefile import Entry
from asyncsaver.store.probe import PROBE_FOLDER
from asyncsaver.testing import SimulatedBucket


class ViolationError(AssertionError):
    """An invariant does not hold."""


@lru_cache(maxsize=4096)
def decoded(data: bytes, name: str, slot: int) -> Record:
    """Records are few and come again in every schedule."""
    return native.decode_record(data, name=name, slot=slot)


def order(manifest: CommitRecord) -> tuple[int, int, int, str]:
    """Sorts checkpoints as readers do."""
    return (manifest.sequence, -1 if manifest.step is None else manifest.step, manifest.slot, manifest.save_id)


@dataclass(slots=True)
class Oracle:
    """Watches a bucket.

    Attributes:
        standing: path of a slot → the record there.
        committed: save id → the manifest that once stood for it.
        failed: save ids whose savers were told that nothing was committed.
        unwanted: names that were deleted by hand.
        pinned: names that were pinned, and that nobody has begun to unpin or to delete.
    """

    bucket: SimulatedBucket
    standing: dict[str, Record] = field(default_factory=dict)
    committed: dict[str, CommitRecord] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    unwanted: set[str] = field(default_factory=set)
    pinned: set[str] = field(default_factory=set)
    _freed: set[str] = field(default_factory=set)
    _spared: dict[str, set[str]] = field(default_factory=dict)
    _dead: set[str] = field(default_factory=set)
    _by_slot: dict[str, str] = field(default_factory=dict)
    _newest: CommitRecord | None = None
    _wrong: list[str] = field(default_factory=list)
    _stale: bool = True

    def watch(self) -> None:
        """Begin with what is there, and follow every change from now on."""
        for path, data in self.bucket.contents.items():
            self.changed(path, None, data)
        self.bucket.changed = self.changed

    def changed(self, path: str, old: bytes | None, new: bytes | None) -> None:
        """Note a change, and what is wrong about it."""
        self._stale = True
        if path in STATE_FILES.values() and new is not None:
            decode_state(new, path)  # what stands there can always be read
        name, _, rest = path.partition("/")
        slot = parse_slot(rest)
        if slot is None:
            return
        if new is None:
            if isinstance(self.standing.pop(path, None), Deleted):
                self._by_slot.pop(path, None)  # a tombstone that has expired: the slot is free again
            return
        record = decoded(new, name, slot)
        replaced = self.standing.get(path)
        self.standing[path] = record
        if isinstance(record, CommitRecord):
            winner = self._by_slot.setdefault(path, record.save_id)
            if winner != record.save_id:
                self._wrong.append(f"{path} was won by {winner}, and now {record.save_id} stands there")
            first = self.committed.setdefault(record.save_id, record)
            if first.slot != record.slot:
                self._wrong.append(f"{record.save_id} stands at two slots, {first.slot} and {record.slot}")
            if record.save_id in self._dead:
                self._wrong.append(f"{record.save_id} is back after it was deleted")
            if self._newest is None or order(record) > order(self._newest):
                self._newest = record
        elif isinstance(record, Deleted):
            self._dead.add(record.save_id)
            spared = name in self._spared.get(record.writer, ())
            if spared and isinstance(replaced, CommitRecord) and not self._stands(name, above=slot):
                self._wrong.append(f"{record.writer} has deleted {path}, which was pinned before it began")

    def begins(self, writer: str) -> None:
        """Somebody begins to work who finds these pins."""
        self._spared[writer] = set(self.pinned)

    def pin(self, name: str) -> None:
        """Somebody was told that it is pinned: what stands now stays, unless who deletes it has begun before."""
        if name not in self._freed and self._stands(name):
            self.pinned.add(name)

    def unpin(self, name: str) -> None:
        """Somebody begins to unpin, or to delete: from now on nothing is certain."""
        self._freed.add(name)
        self.pinned.discard(name)
        for names in self._spared.values():
            names.discard(name)

    def remains(self, name: str) -> list[str]:
        """What is left of the saves of that name whose deletion has begun."""
        return [path for path in self.bucket.contents if path.startswith(f"{name}/") and _second(path) in self._dead]

    def pins_are_listed(self, entries: Iterable[Entry]) -> None:
        """The state file tells of every checkpoint whether it is pinned."""
        for entry in entries:
            pinned = self.bucket.size(f"{entry.name}/{PINNED_MARKER}") is not None
            if entry.state == "committed" and entry.pinned != pinned:
                raise ViolationError(f"{entry.path} is listed with pinned={entry.pinned}")

    def facts(self) -> Hashable:
        """All that it remembers and would judge by from now on."""
        newest = None if self._newest is None else self._newest.save_id
        sets = (self.committed, self.failed, self.unwanted, self.pinned, self._freed, self._dead, self._by_slot.items())
        return newest, *map(frozenset, sets)

    def _stands(self, name: str, *, above: int = -1) -> bool:
        return any(
            isinstance(record, CommitRecord) and record.name == name and record.slot > above
            for record in self.standing.values()
        )

    def check(self) -> None:
        """Raise if anything is wrong now."""
        if not self._stale:
            return
        self._stale = False
        wrong = self._wrong
        highest: dict[str, int] = {}
        for path, record in self.standing.items():
            if not isinstance(record, CommitRecord):
                continue
            highest[record.name] = max(record.slot, highest.get(record.name, -1))
            for file in self._files(record):
                if self.bucket.size(file.path) != file.size:
                    wrong.append(f"{path} is committed, but {file.path} has {self.bucket.size(file.path)} bytes")
            if record.save_id in self.failed:
                wrong.append(f"{path}: {record.save_id} is committed, though its saver was told that it is not")
        for name in self.pinned & highest.keys():
            if self.bucket.size(f"{name}/{PINNED_MARKER}") is None:
                wrong.append(f"{name} was pinned, and its mark is gone")
        newest = self._newest
        if newest is not None and newest.name not in self.unwanted and highest.get(newest.name, -1) < newest.slot:
            wrong.append(f"the newest checkpoint, {newest.name} in slot {newest.slot}, is gone")
        if wrong:
            raise ViolationError("\n".join(wrong))

    def _files(self, record: CommitRecord) -> Sequence[FileEntry]:
        if isinstance(record, Manifest):
            return record.files
        if self.bucket.size(record.body.path) is None:
            raise ViolationError(f"{record.name} is committed, but {record.body.path} is not there")
        return decode_body(self.bucket.find(record.body.path).content, record).files

    def nothing_left_over(self) -> None:
        """Every byte of data belongs to a standing manifest."""
        wanted = {record.save_id for record in self.standing.values() if isinstance(record, CommitRecord)}
        left = [
            path
            for path in self.bucket.contents
            if (is_save_id(_second(path)) and _second(path) not in wanted) or path.startswith(PROBE_FOLDER)
        ]
        if left:
            raise ViolationError(f"left over after prune and sweep: {left}")

    def visible(self) -> Mapping[str, CommitRecord]:
        """Name → the manifest that readers should see."""
        found: dict[str, CommitRecord] = {}
        for record in self.standing.values():
            if isinstance(record, CommitRecord) and (record.name not in found or found[record.name].slot < record.slot):
                found[record.name] = record
        return found


def _second(path: str) -> str:
    return path.partition("/")[2].partition("/")[0]
