"""What stands in a root, read past every saver and store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

from asyncsaver.errors import ManifestError
from asyncsaver.formats import native
from asyncsaver.formats.encodings import STATE_FILES, decode_body, decode_state
from asyncsaver.model.manifest import Manifest, Summary
from asyncsaver.model.names import PINNED_MARKER, PRESERVED_MARKER, is_save_id, parse_slot
from asyncsaver.model.statefile import StateFile

from ..doubles.world import World  # noqa: TID252 - test folders have no name
from .model import Marks


@dataclass(frozen=True, slots=True)
class Inside:
    """A look at a root as it is now."""

    world: World

    def objects(self) -> Mapping[str, bytes]:
        """Everything, by its path."""
        objects = self.world.memory()._bucket.objects
        return {path.removeprefix("run/"): bytes(one.content) for path, one in objects.items()}

    def state(self) -> StateFile:
        """The state file; an empty one where it is missing or damaged. Of two kinds that stand, both."""
        both = [self._state(path) for path in STATE_FILES.values()]
        marks = [state.last_preserved for state in both if state.last_preserved is not None]
        entries = [entry for state in both for entry in state.entries]
        return StateFile(entries=entries, last_preserved=max(marks, default=None))

    def _state(self, path: str) -> StateFile:
        try:
            return decode_state(self.objects()[path], path)
        except (KeyError, ManifestError):
            return StateFile()

    def listed(self) -> set[str]:
        """Names of the checkpoints in the state file."""
        return {entry.name for entry in self.state().entries if entry.state == "committed"}

    def marks(self) -> Marks:
        """Which marks stand."""
        beside = [path.split("/") for path in self.objects()]
        return Marks(
            {path[0] for path in beside if path[1:] == [PINNED_MARKER]},
            {path[0] for path in beside if path[1:] == [PRESERVED_MARKER]},
        )

    def leftovers(self, foreign: Collection[str]) -> set[str]:
        """Save ids of the attempts that have written something, and that no record names."""
        attempts, named = set(), set()
        for path, data in self.objects().items():
            name, _, rest = path.partition("/")
            slot = parse_slot(rest)
            if path in foreign:
                continue
            if slot is not None:
                named.add(getattr(native.decode_record(data, name=name, slot=slot), "save_id", ""))
            elif is_save_id(save_id := rest.partition("/")[0]):
                attempts.add(save_id)
        return attempts - named

    def ruins(self, foreign: Collection[str]) -> set[str]:
        """Paths of committed manifests that refer to files which are not there."""
        objects = self.objects()
        ruins = set()
        for path, data in objects.items():
            name, _, rest = path.partition("/")
            slot = parse_slot(rest)
            if slot is None or path in foreign:
                continue
            record = native.decode_record(data, name=name, slot=slot)
            if isinstance(record, Summary):
                if record.body.path not in objects:
                    ruins.add(path)
                    continue
                record = decode_body(objects[record.body.path], record)
            if isinstance(record, Manifest) and not {file.path for file in record.files} <= objects.keys():
                ruins.add(path)
        return ruins

    def quiet_for(self, save_id: str) -> timedelta:
        """How long ago an attempt has written something, by the store's clock."""
        objects = self.world.memory()._bucket.objects
        newest = max(one.modified for path, one in objects.items() if f"/{save_id}/" in path)
        return max(self.world.time - newest, timedelta(0))

    def clear(self) -> None:
        """Give the memory back."""
        bucket = self.world.memory()._bucket
        for key in list(bucket.objects):
            bucket.drop(key)
