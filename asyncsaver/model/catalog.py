"""What a root holds, worked out from one listing and the records that stand at the slots. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import msgspec

from asyncsaver.model.names import PINNED_MARKER, PRESERVED_MARKER, Naming, is_save_id, parse_claim, parse_slot
from asyncsaver.model.statefile import Entry


class Listed(Protocol):
    """An object as a store lists it."""

    @property
    def path(self) -> str:
        """Relative to the root."""
        ...

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    @property
    def etag(self) -> str | None:
        """Its version."""
        ...

    @property
    def modified(self) -> datetime | None:
        """By the store's clock."""
        ...


@dataclass(slots=True)
class Folder:
    """The objects in one checkpoint's folder.

    Attributes:
        name: of the checkpoint.
        step: None where it has none.
        slots: slot → object.
        saves: save id → what that attempt wrote.
        claims: claims to names of files outside of it, by number; see `claim_filename`.
        pinned: a pin stands here.
        preserved: a mark stands here that retention keeps it for good.
    """

    name: str
    step: int | None
    slots: dict[int, Listed] = field(default_factory=dict)
    saves: dict[str, list[Listed]] = field(default_factory=dict)
    claims: dict[int, Listed] = field(default_factory=dict)
    pinned: bool = False
    preserved: bool = False

    def sizes(self, save_id: str) -> dict[str, int]:
        """Path → size in bytes of what one attempt wrote."""
        return {item.path: item.size for item in self.saves.get(save_id, ())}


def sort_into_folders(objects: Iterable[Listed], naming: Naming) -> dict[str, Folder]:
    """Group what is ours by checkpoint. Everything else is left alone: it does not appear."""
    folders: dict[str, Folder] = {}
    for item in objects:
        name, _, rest = item.path.partition("/")
        folder = folders.get(name)
        if folder is None:
            ours, step = naming.parse(name)
            if not ours or not rest:
                continue
            folder = folders[name] = Folder(name, step)
        first, _, below = rest.partition("/")
        if below:
            if is_save_id(first):
                folder.saves.setdefault(first, []).append(item)
        elif (slot := parse_slot(first)) is not None:
            folder.slots[slot] = item
        elif first == PINNED_MARKER:
            folder.pinned = True
        elif first == PRESERVED_MARKER:
            folder.preserved = True
        elif (number := parse_claim(first)) is not None:
            folder.claims[number] = item
    return folders


@dataclass(frozen=True, slots=True)
class Catalog:
    """What a root holds.

    Attributes:
        checkpoints: the committed ones that readers see, oldest first: per name the highest committed slot.
        superseded: committed records below the highest one of their name.
        retired: tombstones and fences.
        damaged: path of a record that cannot be read → why.
        folders: what is listed, by name.
        seen: what the state file said at that time, by the path of the record.
        last_preserved: likewise, of all state files; see `StateFile`.
    """

    checkpoints: Sequence[Entry]
    superseded: Sequence[Entry]
    retired: Sequence[Entry]
    damaged: Mapping[str, Exception]
    folders: Mapping[str, Folder]
    seen: Mapping[str, Entry] = field(default_factory=dict)
    last_preserved: datetime | None = None

    def by_name(self, name: str) -> Entry | None:
        """The committed checkpoint of that name, if there is one."""
        return next((entry for entry in self.checkpoints if entry.name == name), None)

    @property
    def newest(self) -> Entry | None:
        """The checkpoint committed last."""
        return self.checkpoints[-1] if self.checkpoints else None

    @property
    def entries(self) -> list[Entry]:
        """All of them, as a state file lists them."""
        return [*self.checkpoints, *self.superseded, *self.retired]


@dataclass(frozen=True, slots=True)
class Sorted:
    """Entries by what they mean for readers; see `Catalog` for the fields."""

    checkpoints: Sequence[Entry]
    superseded: Sequence[Entry]
    retired: Sequence[Entry]


def sort_entries(entries: Iterable[Entry]) -> Sorted:
    """Tell the checkpoints that readers see (per name the highest committed slot, oldest first) from the rest."""
    checkpoints: dict[str, Entry] = {}
    superseded, retired = [], []
    for entry in sorted(entries, key=lambda entry: entry.slot):
        if entry.state != "committed":
            retired.append(entry)
            continue
        if entry.name in checkpoints:
            superseded.append(checkpoints[entry.name])
        checkpoints[entry.name] = entry
    return Sorted(sorted(checkpoints.values(), key=lambda entry: entry.order), superseded, retired)


def build_catalog(folders: Mapping[str, Folder], entries: Iterable[Entry], damaged: Mapping[str, Exception]) -> Catalog:
    """Put records in order.

    Args:
        folders: from `sort_into_folders`.
        entries: one for each readable record at the slots of those folders.
        damaged: those that are not.
    """
    found = sort_entries(_as_listed(entry, folders[entry.name]) for entry in entries)
    return Catalog(found.checkpoints, found.superseded, found.retired, dict(damaged), folders)


def _as_listed(entry: Entry, folder: Folder) -> Entry:
    """The entry with what only the listing tells."""
    if entry.state == "committed":
        listed = {"pinned": folder.pinned, "preserved": folder.preserved}
    else:
        listed = {"unfinished": entry.state == "deleted" and entry.save_id in folder.saves}
    if all(getattr(entry, field) == value for field, value in listed.items()):
        return entry
    return msgspec.structs.replace(entry, **listed)


def next_slot(entries: Iterable[Entry], unreadable: Iterable[int] = ()) -> int:
    """The slot that a new attempt targets: one past every record of the name.

    Not the first gap: a gap is where an old tombstone has expired, and a manifest there would hide behind higher ones.
    """
    return max([*(entry.slot for entry in entries), *unreadable], default=-1) + 1
