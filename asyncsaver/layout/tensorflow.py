"""TensorFlow's layout: its files in the folder itself, and our records of them in a root below.

Imported only when asked for: it needs an extra.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from asyncsaver.aio.tasks import run_all, run_both
from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointDeletedError, CheckpointNotFoundError, ManifestError
from asyncsaver.formats.tensorflow.bundle import index_path
from asyncsaver.formats.tensorflow.naming import RECORDS
from asyncsaver.layout.contract import Layout
from asyncsaver.layout.tensorflow_attempt import TensorFlowAttempt
from asyncsaver.layout.tensorflow_files import TensorFlowFiles
from asyncsaver.layout.tensorflow_names import data_files, decode_plan, shards_of
from asyncsaver.layout.tensorflow_order import merge_order
from asyncsaver.layout.tensorflow_source import read_own
from asyncsaver.layout.tensorflow_stage import stage_sharded, stage_tensorflow
from asyncsaver.layout.tensorflow_state import StateText
from asyncsaver.layout.tensorflow_v1_attempt import TableAttempt
from asyncsaver.layout.tensorflow_v1_names import is_alone, is_lost, path_of, tables_of
from asyncsaver.layout.tensorflow_v1_source import has_tables, read_tables
from asyncsaver.layout.tensorflow_v1_stage import stage_v1
from asyncsaver.model.catalog import Catalog, Listed
from asyncsaver.model.checkpoint import Checkpoint, checkpoint_of
from asyncsaver.model.names import save_folder
from asyncsaver.model.statefile import Entry
from asyncsaver.model.tensorflow_config import TensorFlowConfig
from asyncsaver.prune.delete import delete_checkpoint, set_pin
from asyncsaver.prune.prune import prune_root
from asyncsaver.prune.report import PruneReport, SweepReport
from asyncsaver.prune.sweep import sweep_root
from asyncsaver.restore.find import Found, find_checkpoint, find_name, find_step, newest_of
from asyncsaver.restore.foreign import open_foreign
from asyncsaver.restore.source import Source
from asyncsaver.save.attempt import Attempt
from asyncsaver.save.exclusive import read_if_there
from asyncsaver.save.line import SaveLine, SaveSettings
from asyncsaver.store.below import Below
from asyncsaver.store.contract import ObjectInfo
from asyncsaver.tensorflow.paths import folder_at

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

log = logging.getLogger("asyncsaver")
_TRIES = 5


@dataclass(frozen=True, slots=True)
class _Look:
    """What there is.

    Attributes:
        catalog: of our records, without those of which somebody else has deleted the files.
        others: checkpoints that the text file lists and that are not ours, by name.
        order: names of all, oldest first.
    """

    catalog: Catalog
    others: dict[str, Checkpoint]
    order: Sequence[str]


class TensorFlowLayout(Layout):
    """See `Layout`.

    Args:
        root: the folder.
        settings: for saves.
        config: how files are written.
        url: of the folder, as the user calls it, for the paths in the text file.
        filesystem: where it is, if that is a ready one.
    """

    def __init__(
        self,
        root: Root,
        settings: SaveSettings,
        config: TensorFlowConfig,
        url: str,
        filesystem: AbstractFileSystem | None = None,
    ) -> None:
        self.root = root
        self.describe = stage_sharded if config.sharded else stage_tensorflow
        self.records = replace(root, store=Below(root.store, RECORDS), home=root.store.url)
        self._state = StateText(
            root,
            folder_at(url, filesystem),
            config.latest_filename,
            relative=config.save_relative_paths,
            only_last=settings.policy.keeps_all,
        )
        self._files = TensorFlowFiles(root, self.records, self._state)
        self.records.companions = self._files
        attempt: Callable[..., Attempt] = TensorFlowAttempt
        if config.write_version == "v1":
            attempt = partial(TableAttempt, sharded=config.sharded)
            self.describe = partial(stage_v1, self.describe)
        attempt = partial(attempt, outer=root, files=self._files, state=self._state)
        self.line = SaveLine(self.records, settings, attempt)

    async def source(self, step: int | None, checkpoint: Checkpoint | None = None) -> Source:
        """See `Layout`."""
        if checkpoint is not None:
            if not checkpoint.save_id:
                return await self._read_others(checkpoint.name)
            found = await find_checkpoint(self.records, checkpoint)
            source = await self._read(found)
            if source is None:
                raise CheckpointDeletedError(f"{checkpoint.url}: somebody else has saved another one there")
            return source
        if step is not None:
            return await self._source_of(self.root.naming.names(step))
        for _ in range(_TRIES):
            look = await self._look()
            newest = self._newest(look)
            if newest is None:
                raise CheckpointNotFoundError(
                    f"{self.root.store.url} holds no committed checkpoint with the prefix {self.root.naming.prefix!r}"
                )
            try:
                return await self._source_of([newest])
            except CheckpointNotFoundError as error:
                log.warning("%s; taking the next one", error)
        raise CheckpointDeletedError(
            f"{self.root.store.url}: {_TRIES} times the latest checkpoint was deleted while it was looked up"
        )

    async def latest(self) -> Checkpoint | None:
        """See `Layout`."""
        look = await self._look()
        newest = self._newest(look)
        return None if newest is None else self._described(look, newest)

    async def checkpoints(self) -> Sequence[Checkpoint]:
        """See `Layout`. Those that somebody else has saved are listed if the text file lists them."""
        look = await self._look()
        return [self._described(look, name) for name in look.order]

    async def delete(self, step: int | None) -> None:
        """See `Layout`. Those that somebody else has saved are not deleted."""
        names = self.root.naming.names(step)
        found = await run_all(self.records.reader.folder(name) for name in names)
        if any(one.records for one in found):
            await self._state.forget(names)
        if not await delete_checkpoint(self.records, names, writer=self.line.settings.writer):
            await self._refuse_others(names, "delete")
            await find_step(self.records, step)  # raises: there is none

    async def set_pin(self, step: int | None, *, pinned: bool) -> None:
        """See `Layout`."""
        names = self.root.naming.names(step)
        found = await run_all(find_name(self.records, name) for name in names)
        if not any(isinstance(one, Found) for one in found):
            await self._refuse_others(names, "pin")
        await set_pin(self.records, (await find_step(self.records, step)).manifest, pinned=pinned)

    async def prune(self, *, dry_run: bool) -> PruneReport:
        """See `Layout`."""
        settings = self.line.settings
        began = datetime.fromtimestamp(settings.began, UTC)
        return await prune_root(self.records, settings.policy, began=began, writer=settings.writer, dry_run=dry_run)

    async def sweep(self, grace: timedelta, *, dry_run: bool) -> SweepReport:
        """See `Layout`."""
        return await sweep_root(self.records, grace=grace, writer=self.line.settings.writer, dry_run=dry_run)

    async def close(self) -> None:
        """See `Layout`."""
        await self.root.close()

    async def _look(self) -> _Look:
        catalog, (listing, listed) = await run_both(
            self.records.load(), run_both(self.root.store.list(delimiter=True), self._state.read())
        )
        objects = listing.objects
        there = {item.path for item in objects}
        ours = [
            entry
            for entry in catalog.checkpoints
            if index_path(entry.name) in there
            or data_files(objects, entry.name)
            or not await self._is_lost(catalog, entry, there)
        ]
        own = [entry.name for entry in ours]
        damaged = {path.partition("/")[0] for path in catalog.damaged}
        others = {
            name: self._checkpoint(name, objects)
            for name in listed.names
            if name not in own and name not in damaged and not there.isdisjoint((index_path(name), name))
        }
        unlisted = bool(others and ours and own[-1] not in listed.names)
        fresh = unlisted and await self._saw(ours[-1]) == listed.crc
        order = merge_order(own, [name for name in listed.names if name in own or name in others], fresh=fresh)
        return _Look(replace(catalog, checkpoints=ours), others, order)

    async def _is_lost(self, catalog: Catalog, entry: Entry, there: Collection[str]) -> bool:
        """Whether somebody else has deleted the files of a checkpoint of ours, of which neither index nor data stand."""
        saved = _saved(catalog, entry)
        tables = tables_of(saved, entry.name)
        if tables:
            return is_lost(entry.name, saved, tables, there, alone=is_alone(catalog, entry))
        return await self._files.publisher.evidence.is_lost(entry.name, entry.save_id)

    async def _saw(self, entry: Entry) -> str | None:
        """The crc32c of the text file when a save of ours began; "" where that is not known any more."""
        listing = await self.records.store.list(save_folder(entry.name, entry.save_id))
        for item in listing.objects:
            if shards_of(item.path) is not None:
                blob = await read_if_there(self.records, item.path)
                with contextlib.suppress(ManifestError):
                    return "" if blob is None else decode_plan(blob.data, item.path).state
        return ""

    def _newest(self, look: _Look) -> str | None:
        """The name of the latest one; raises `ManifestError` where a damaged record may be of a later one."""
        newest = newest_of(look.catalog)
        if look.order and look.order[-1] in look.others:
            return look.order[-1]
        return None if newest is None else newest.name

    def _described(self, look: _Look, name: str) -> Checkpoint:
        entry = look.catalog.by_name(name)
        if entry is None:
            return look.others[name]
        path = path_of(_saved(look.catalog, entry), name)
        return checkpoint_of(entry, self.root.store.url, pinned=entry.pinned, path=path)

    async def _source_of(self, names: Sequence[str]) -> Source:
        """What to read of a checkpoint that may have any of these names."""
        deleted: CheckpointNotFoundError | None = None
        for name in names:
            found = await find_name(self.records, name)
            if isinstance(found, Found):
                source = await self._read(found)
                return await self._read_others(name) if source is None else source
            if found is not None and deleted is None:
                deleted = CheckpointDeletedError(
                    f"{self.root.store.url}/{name} was deleted at {found.created:%Y-%m-%d %H:%M:%S} UTC"
                )
        for name in names:
            try:
                return await self._read_others(name)
            except CheckpointNotFoundError as error:
                deleted = deleted or error
        raise deleted or CheckpointNotFoundError(f"{self.root.store.url}/{names[0]} is not a committed checkpoint")

    async def _read(self, found: Found) -> Source | None:
        publisher = self._files.publisher
        if has_tables(found):
            return await read_tables(self.root, self.records, publisher.tables, found)
        return await read_own(self.root, self.records, publisher.evidence, found)

    async def _read_others(self, name: str) -> Source:
        return await open_foreign(self.root, name, "tensorflow")

    async def _refuse_others(self, names: Sequence[str], what: str) -> None:
        """Raise `CheckpointNotFoundError` if there is one of somebody else's."""
        objects = (await self.root.store.list(delimiter=True)).objects
        for name in names:
            if any(item.path in (index_path(name), name) for item in objects):
                raise CheckpointNotFoundError(
                    f"{self.root.store.url}/{name} was not saved by asyncsaver, which does not {what} it"
                )

    def _checkpoint(self, name: str, objects: Sequence[ObjectInfo]) -> Checkpoint:
        """One that somebody else has saved, as far as it can be told without reading it."""
        paths = {path for files in data_files(objects, name).values() for path in files} or {name}
        times = [item.modified for item in objects if item.path in paths and item.modified is not None]
        return Checkpoint(
            url=f"{self.root.store.url.rstrip('/')}/{name}",
            name=name,
            step=self.root.naming.parse(name)[1],
            slot=0,
            save_id="",
            created=max(times, default=datetime.fromtimestamp(0, UTC)),
            total_bytes=sum(item.size for item in objects if item.path in paths),
            world_size=1,
        )


def _saved(catalog: Catalog, entry: Entry) -> Sequence[Listed]:
    """What is listed in the folder of a save."""
    return catalog.folders[entry.name].saves.get(entry.save_id, ())
