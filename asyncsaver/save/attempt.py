"""One attempt to save: slot → shards → part → merge → commit, and tidying up when it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from asyncsaver.aio.completion import to_completion
from asyncsaver.aio.tasks import run_all, run_both
from asyncsaver.catalog.reader import FolderRecords
from asyncsaver.catalog.root import Root
from asyncsaver.errors import AsyncSaverError, CheckpointCorruptError, CommitUnknownError
from asyncsaver.formats import native
from asyncsaver.formats.encodings import encode_body
from asyncsaver.formats.safetensors import encode_index
from asyncsaver.model.checkpoint import Progress
from asyncsaver.model.manifest import (
    Aborted,
    Body,
    CommitRecord,
    FileEntry,
    Json,
    Manifest,
    Part,
    TensorEntry,
    summary_of,
)
from asyncsaver.model.merge import check_sizes, merge_parts
from asyncsaver.model.names import (
    INDEX_FILE,
    PINNED_MARKER,
    PRESERVED_MARKER,
    new_save_id,
    part_path,
    save_folder,
    slot_path,
)
from asyncsaver.save.commit import Committed, choose_slot, commit, condemned_error
from asyncsaver.save.stage import Staged, largest_shard
from asyncsaver.save.write import ShardWriter

log = logging.getLogger("asyncsaver")
_TIDY_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the caller asked for, checked.

    Attributes:
        name: of the checkpoint.
        step: None where it has none.
        metrics: as JSON can hold them.
        metadata: the user's JSON.
        overwrite: replace a committed checkpoint.
        pin: exempt it from pruning.
        report: told as the save advances.
        recorded: whether the state file is to list it, and retention to decide on it. If not, it stays for good.
        meta: a sidecar that goes with it, in formats that have one.
        meta_suffix: what the sidecar's name ends in.
        shard_keys: name of each tensor → the key of its shard, where that is settled; in formats with such shards.
    """

    name: str
    step: int | None
    metrics: Mapping[str, int | float | str]
    metadata: Json
    overwrite: bool
    pin: bool
    report: Callable[[Progress], None]
    recorded: bool = True
    meta: bytes | None = None
    meta_suffix: str = "meta"
    shard_keys: Mapping[str, str] | None = None


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One attempt. Used once.

    Attributes:
        root: where to.
        request: what.
        staged: the state.
        shard_bytes: see `Saver`.
        commit_timeout: seconds for an unclear commit.
        saver: goes into the manifest.
        writer: the name and version of this software.
        save_id: unique; every byte goes under it.
        slot: where the manifest is to stand.
        pinned: whether a pin will stand beside it: the one asked for, or that of the checkpoint it replaces.
        preserved: whether retention has decided to keep the checkpoint it replaces for good.
        outcome: whether it has become a checkpoint.
        bytes_written: shards, part, index, manifest, and its body where it has one.
    """

    root: Root
    request: Request
    staged: Staged
    shard_bytes: int
    commit_timeout: float
    saver: Mapping[str, Json]
    writer: str
    save_id: str = field(init=False)
    slot: int = field(init=False, default=0)
    pinned: bool = field(init=False, default=False)
    preserved: bool = field(init=False, default=False)
    outcome: Literal["not committed", "unknown", "committed"] = field(init=False, default="not committed")
    bytes_written: int = field(init=False, default=0)
    _marks: list[str] = field(init=False, default_factory=list)
    _body: Body | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.save_id = new_save_id(self.root.clock(), self.root.random_bits(64))

    @property
    def folder(self) -> str:
        """Everything that this attempt writes before the commit, with a trailing slash."""
        return save_folder(self.request.name, self.save_id)

    @property
    def path(self) -> str:
        """What the URL of the checkpoint ends in."""
        return self.request.name

    async def _choose_slot(self) -> FolderRecords:
        """Look at what stands at the slots; raises `CheckpointExistsError`."""
        found = await self.root.reader.folder(self.request.name)
        self.slot = choose_slot(found, self.root.store.url, overwrite=self.request.overwrite)
        self.pinned = self.request.pin or found.folder.pinned
        self.preserved = found.folder.preserved or not self.request.recorded
        return found

    async def write(self) -> Part:
        """Choose the slot and write the shards; returns what the part will say of them.

        The first shards are prepared while the store is asked for what stands at the slots, and put only once it is known that
        this attempt may go on: every byte of it is younger than its choice, which a sweep counts on.

        Raises:
            CheckpointExistsError: the checkpoint is there already; nothing was written.
        """
        begun = asyncio.Event()

        async def begin() -> None:
            await self._choose_slot()
            begun.set()

        root, request = self.root, self.request
        shard_bytes = largest_shard(self.shard_bytes, root.store, self.staged.nbytes, root.concurrency)
        shards = ShardWriter(root, request.name, request.step, self.save_id, shard_bytes, request.report, begun)
        _, part = await run_both(begin(), shards.write(self.staged))
        self.bytes_written += sum(file.size for file in part.files)
        return part

    async def merge(self, part: Part, sequence: int) -> Manifest:
        """Merge, write part and index (and the body of the manifest), and check that every shard stands as it was written.

        What this process has written it knows; only the parts of others would have to be read.

        Raises:
            SaveAbortedError: a sweep has condemned this attempt, and deleted what it wrote.
            ManifestError: the parts do not make up a whole checkpoint.
            CheckpointCorruptError: a shard is not there as it was written.
        """
        try:
            return await self._merge(part, sequence)
        except CheckpointCorruptError as error:
            found = await self.root.reader.folder(self.request.name)
            for slot, one in found.records.items():
                if isinstance(one.record, Aborted) and self.save_id in one.record.condemned:
                    where = f"{self.root.store.url}/{slot_path(self.request.name, slot)}"
                    raise condemned_error(where, one.record, self.save_id) from error
            raise

    async def _merge(self, part: Part, sequence: int) -> Manifest:
        files, tensors = await self.root.threads.run(merge_parts, [part], save_id=self.save_id, world_size=1)
        manifest = self._manifest(sequence, files, tensors)
        # At once: none of them says anything about the others.
        await run_all(
            [self._put_part(part), self._put_index(part), self._put_body(manifest), self._check_written(files)]
        )
        return manifest

    def _manifest(
        self,
        sequence: int,
        files: list[FileEntry],
        tensors: dict[str, TensorEntry],
        holding: Sequence[FileEntry] | None = None,
    ) -> Manifest:
        """What is to be committed.

        Args:
            sequence: of the commit.
            files: those that it lists.
            tensors: likewise.
            holding: the files that hold the tensors, where it does not list those.
        """
        return Manifest(
            name=self.request.name,
            step=self.request.step,
            slot=self.slot,
            created=self.root.now(),
            writer=self.writer,
            save_id=self.save_id,
            sequence=sequence,
            world_size=1,
            tree=self.staged.tree,
            tensors=tensors,
            files=files,
            total_bytes=sum(file.size for file in (files if holding is None else holding)),
            metrics=dict(self.request.metrics),
            metadata=self.request.metadata,
            saver=dict(self.saver),
        )

    async def commit(self, manifest: Manifest) -> Committed:
        """Make it a checkpoint. Runs to its end even when cancelled; `outcome` then tells what became of it."""
        self.request.report(Progress("committing", self.request.step, self.staged.nbytes, self.staged.nbytes))
        for mark, wanted in ((PINNED_MARKER, self.request.pin), (PRESERVED_MARKER, not self.request.recorded)):
            if wanted:
                # Before the commit: a checkpoint that was to be pinned must at no time be there without its pin.
                self._marks.append(f"{self.request.name}/{mark}")
                await self.root.store.put(self._marks[-1], b"{}")

        record: CommitRecord = manifest if self._body is None else summary_of(manifest, self._body)

        async def settle() -> Committed:
            self.outcome = "unknown"
            try:
                result = await commit(self.root, record, overwrite=self.request.overwrite, limit=self.commit_timeout)
            except CommitUnknownError:
                raise
            except AsyncSaverError:
                self.outcome = "not committed"
                raise
            self.outcome = "committed"
            return result

        committed = await to_completion(settle())
        self.bytes_written += committed.nbytes
        return committed

    async def tidy(self) -> None:
        """Delete what a failed attempt has written, unless it was, or may have been, committed.

        What cannot be deleted within a time limit is left to a sweep, which the log says.
        """
        if self.outcome != "not committed":
            return

        async def delete() -> None:
            try:
                async with asyncio.timeout(_TIDY_SECONDS):
                    if self.root.companions is not None:
                        await self.root.companions.remove(self.request.name, self.save_id)
                    listing = await self.root.store.list(self.folder)
                    paths = [item.path for item in listing.objects]
                    if self._marks and not await self._marks_may_be_anothers():
                        paths += self._marks
                    failed = await self.root.store.delete(paths)
                reason: object = next(iter(failed.values()), None)
            except (AsyncSaverError, TimeoutError) as problem:
                reason = problem
            if reason is not None:
                log.warning(
                    "%s/%s: leftovers of a failed save stay for a sweep: %s", self.root.store.url, self.folder, reason
                )

        await to_completion(delete())

    async def _marks_may_be_anothers(self) -> bool:
        found = await self.root.reader.folder(self.request.name)
        committed = any(isinstance(one.record, CommitRecord) for one in found.records.values())
        return committed or bool(found.damaged) or bool(found.folder.saves.keys() - {self.save_id})

    async def _put_part(self, part: Part) -> None:
        data = await self.root.threads.run(native.encode, part)
        await self.root.store.put(part_path(self.request.name, self.save_id, part.rank), data)
        self.bytes_written += len(data)

    async def _put_index(self, part: Part) -> None:
        if part.files:
            data = await self.root.threads.run(_index, part, self.folder, self.staged.nbytes)
            await self.root.store.put(self.folder + INDEX_FILE, data)
            self.bytes_written += len(data)

    async def _put_body(self, manifest: Manifest) -> None:
        if self.root.manifest_format == "proto":
            data, body = await self.root.threads.run(encode_body, manifest)
            await self.root.store.put(body.path, data)
            self._body = body
            self.bytes_written += len(data)

    async def _check_written(self, files: Sequence[FileEntry]) -> None:
        listing = await self.root.store.list(self.folder)
        check_sizes(files, {item.path: item.size for item in listing.objects})
        self.root.saw_store_time(item.modified for item in listing.objects)


def _index(part: Part, folder: str, total_size: int) -> bytes:
    weight_map = {
        name: part.files[entry.chunks[0].file].path.removeprefix(folder) for name, entry in part.tensors.items()
    }
    return encode_index(weight_map, total_size)
