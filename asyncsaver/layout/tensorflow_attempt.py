"""One attempt to save TensorFlow's files: claim names → data files → copy of the index and part → commit of a small record."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from asyncsaver.aio.tasks import run_all, run_both
from asyncsaver.catalog.reader import FolderRecords
from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointExistsError, ManifestError, StoreError
from asyncsaver.formats.tensorflow.bundle import decode_shards, encode_index, index_path
from asyncsaver.layout.tensorflow_files import TensorFlowFiles
from asyncsaver.layout.tensorflow_names import (
    INDEX_COPY,
    SIDECAR_COPY,
    Plan,
    crc_of,
    data_files,
    data_paths,
)
from asyncsaver.layout.tensorflow_publish import Ready
from asyncsaver.layout.tensorflow_stage import StagedStrings, bundle_of
from asyncsaver.layout.tensorflow_state import StateText
from asyncsaver.model.flatten import TensorLeaf
from asyncsaver.model.manifest import CommitRecord, FileEntry, Manifest, Part
from asyncsaver.model.shards import ShardPlan
from asyncsaver.save.attempt import Attempt
from asyncsaver.save.commit import Committed
from asyncsaver.save.exclusive import read_if_there
from asyncsaver.save.publish import check_written
from asyncsaver.save.stage import largest_shard
from asyncsaver.save.tensorflow_data import index_of, plan_data, plan_shards, put_data
from asyncsaver.save.upload import Uploads
from asyncsaver.store.contract import Blob, ObjectInfo

log = logging.getLogger("asyncsaver")


@dataclass(slots=True, kw_only=True)
class TensorFlowAttempt(Attempt):
    """See `Attempt`, whose root is that of the records.

    Attributes:
        outer: where TensorFlow's files go.
        files: those.
        state: the text file that lists checkpoints.
    """

    outer: Root
    files: TensorFlowFiles
    state: StateText
    _index: bytes = field(init=False, default=b"")
    _plan: Plan | None = field(init=False, default=None)
    _standing: Blob | None = field(init=False, default=None)

    async def write(self) -> Part:
        """Choose the slot, claim names and write the data files; returns what the part will say of them.

        Raises:
            CheckpointExistsError: the checkpoint is there already; nothing was written.
        """
        root, request, name = self.outer, self.request, self.request.name
        shard_bytes = self._largest_file()
        (found, objects), bundle = await run_both(self._look(), root.threads.run(bundle_of, self.staged, root.adapters))
        plans = await root.threads.run(self._planned_files, bundle.staged.tensors, shard_bytes)
        taken = {*data_files(objects, name), *found.folder.claims}
        plan = self._plan = await self._planned(objects)
        shards = await self.files.claim(name, plan, len(plans), taken)
        paths = zip(data_paths(name, len(plans), shards), plans, strict=True)
        uploads = Uploads(root, request.step, self.staged.nbytes, request.report)
        written = await put_data(uploads, bundle, list(paths), shard_bytes)
        self._index = await root.threads.run(lambda: encode_index(index_of(bundle, shards, written)))
        files = [one.file for one in written]
        self.bytes_written += sum(file.size for file in files)
        return Part(save_id=self.save_id, rank=0, world_size=1, files=files, tensors={})

    @property
    def _shard_keys(self) -> Mapping[str, str] | None:
        """Which shard each tensor goes to, by name; None where only their sizes matter."""
        if self.request.shard_keys is not None:
            return self.request.shard_keys
        return self.staged.devices if isinstance(self.staged, StagedStrings) else None

    def _largest_file(self) -> int:
        """How large a data file may grow."""
        if self._shard_keys is None:
            return largest_shard(self.shard_bytes, self.outer.store, self.staged.nbytes, self.outer.concurrency)
        # One for each key, where it can be: not several, as they would be written the fastest.
        return min(self.shard_bytes, self.outer.store.capabilities.max_object_bytes)

    def _planned_files(self, tensors: Sequence[TensorLeaf], shard_bytes: int) -> list[ShardPlan]:
        keys = self._shard_keys
        return plan_data(tensors, shard_bytes) if keys is None else plan_shards(tensors, shard_bytes, keys)

    async def _look(self) -> tuple[FolderRecords, Sequence[ObjectInfo]]:
        """What stands at the slots, and beside the records."""
        found, listing = await run_both(self._choose_slot(), self.outer.store.list(delimiter=True))
        name = self.request.name
        path = index_path(name)
        paths = {item.path for item in listing.objects}
        committed = any(isinstance(one.record, CommitRecord) for one in found.records.values())
        if not paths.isdisjoint((path, name)) and found.records and not committed:
            await self.files.publish(name)  # ours, perhaps, and to be deleted
            listing = await self.outer.store.list(delimiter=True)
            paths = {item.path for item in listing.objects}
        if path in paths:
            self._standing = await read_if_there(self.outer, path)
        if not self.request.overwrite and not committed and (self._standing is not None or name in paths):
            raise CheckpointExistsError(
                f"{self.outer.store.url}/{name} is there already ({path if self._standing is not None else name}), and was not "
                "saved by asyncsaver; overwrite=True replaces it"
            )
        return found, listing.objects

    async def _planned(self, objects: Sequence[ObjectInfo]) -> Plan:
        name, standing = self.request.name, self._standing
        superseded = [name] if any(item.path == name for item in objects) else []
        if standing is not None and not await self.files.publisher.evidence.is_ours(name, standing):
            try:
                shards = await self.outer.threads.run(decode_shards, standing.data, index_path(name))
                superseded += data_files(objects, name).get(shards, [])
            except ManifestError:
                pass  # nobody can say what belongs to it
        return Plan(
            save_id=self.save_id,
            meta_suffix=None if self.request.meta is None else self.request.meta_suffix,
            replaces=None if standing is None else (len(standing.data), crc_of(standing.data)),
            superseded=tuple(superseded),
            state=(await self.state.read()).crc,
        )

    async def _merge(self, part: Part, sequence: int) -> Manifest:
        if self._plan is None:
            raise RuntimeError("nothing was written that could be merged")
        name = self.request.name
        copy = FileEntry(self.folder + INDEX_COPY, len(self._index), crc_of(self._index))
        manifest = self._manifest(sequence, [copy], {}, part.files)
        ready = Ready(self._index, self._plan, self._standing)
        # At once: none of them says anything about the others.
        await run_all(
            [
                self._put_part(part),
                self._put_copies(copy.path),
                self._put_body(manifest),
                self._check_data(part.files),
                self.files.publisher.prepare(name, ready),
            ]
        )
        return manifest

    async def commit(self, manifest: Manifest) -> Committed:
        """See `Attempt`."""
        self.files.called(self.save_id, self.path)
        committed = await Attempt.commit(self, manifest)
        self.files.publisher.committed(self.request.name, self.save_id)
        return committed

    async def tidy(self) -> None:
        """See `Attempt`. What was cancelled when it was committed already is published."""
        if self.outcome == "committed":
            self.files.publisher.committed(self.request.name, self.save_id)
            try:
                await self.files.publish(self.request.name)
            except StoreError as error:
                log.warning("%s/%s could not be published: %s", self.outer.store.url, self.request.name, error)
            return
        self.files.publisher.forget(self.request.name, self.save_id)
        await Attempt.tidy(self)

    async def _put_copies(self, path: str) -> None:
        await self.root.store.put(path, self._index)
        self.bytes_written += len(self._index)
        if self.request.meta is not None:
            await self.root.store.put(self.folder + SIDECAR_COPY, self.request.meta)
            self.bytes_written += len(self.request.meta)

    async def _check_data(self, files: Sequence[FileEntry]) -> None:
        found = await check_written(self.outer.store, "", {file.path: file.size for file in files})
        self.root.saw_store_time(item.modified for item in found)
