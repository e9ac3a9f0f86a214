"""One attempt to save V1 files: into the folder of the save, and from there, once it is committed, to where TensorFlow looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asyncsaver.aio.tasks import run_all, run_both
from asyncsaver.catalog.reader import FolderRecords
from asyncsaver.errors import ManifestError
from asyncsaver.formats.tensorflow.bundle import decode_shards, index_path
from asyncsaver.formats.tensorflow.naming import sharded_filespec
from asyncsaver.formats.tensorflow.v1_write import V1Tensor
from asyncsaver.layout.tensorflow_attempt import TensorFlowAttempt
from asyncsaver.layout.tensorflow_names import SIDECAR_COPY, crc_of, data_files
from asyncsaver.layout.tensorflow_stage import bundle_of
from asyncsaver.layout.tensorflow_v1_names import SINGLE, TablePlan, table_files
from asyncsaver.layout.tensorflow_v1_publish import described, known_saves
from asyncsaver.model.manifest import Manifest, Part
from asyncsaver.restore.recorded import note_of
from asyncsaver.save.tensorflow_data import Bundle
from asyncsaver.save.tensorflow_v1 import v1_tensors, write_v1
from asyncsaver.store.contract import ObjectInfo


@dataclass(slots=True, kw_only=True)
class TableAttempt(TensorFlowAttempt):
    """See `TensorFlowAttempt`.

    Attributes:
        sharded: whether there is a file for each shard key, or else just one.
    """

    sharded: bool
    _shards: int = SINGLE

    @property
    def path(self) -> str:
        """See `Attempt`. Of a sharded checkpoint the pattern, as TensorFlow has it."""
        return self.request.name if self._shards == SINGLE else sharded_filespec(self.request.name, self._shards)

    async def write(self) -> Part:
        """Choose the slot, and write the files; see `Attempt`.

        Raises:
            CheckpointExistsError: the checkpoint is there already; nothing was written.
        """
        root, request, name = self.root, self.request, self.request.name
        (found, objects), bundle = await run_both(self._look(), root.threads.run(bundle_of, self.staged, root.adapters))
        files = await root.threads.run(self._files, bundle)
        plan = self._plan = await self._planned_tables(found, objects)
        if self.sharded:
            taken = {*data_files(objects, name), *found.folder.claims}
            self._shards = await self.files.claim(name, plan, len(files), taken)
            files += [[] for _ in range(self._shards - len(files))]  # others take a file that is not there for damage
        else:
            await self.files.plan(name, plan, SINGLE)
        paths = table_files(name, self.save_id, self._shards)
        written = await write_v1(
            root,
            list(zip(paths, files, strict=True)),
            step=request.step,
            report=request.report,
            note=self.save_id,
        )
        self.bytes_written += sum(file.size for file in written)
        return Part(save_id=self.save_id, rank=0, world_size=1, files=written, tensors={})

    def _files(self, bundle: Bundle) -> list[list[V1Tensor]]:
        """What goes into which file. Blocking."""
        tensors = bundle.staged.tensors
        if not self.sharded:
            return [v1_tensors(bundle, self.root.adapters, range(len(tensors)))]
        plans = self._planned_files(tensors, self._largest_file())
        return [v1_tensors(bundle, self.root.adapters, [item.index for item in plan.tensors]) for plan in plans]

    async def _planned_tables(self, found: FolderRecords, objects: Sequence[ObjectInfo]) -> TablePlan:
        name, standing = self.request.name, self._standing
        stranger = [
            item
            for item in objects
            if item.path == name and await note_of(self.outer.store, item) not in known_saves(found)
        ]
        if standing is not None and not await self.files.publisher.evidence.is_ours(name, standing):
            theirs = [index_path(name)]
            try:
                shards = await self.outer.threads.run(decode_shards, standing.data, index_path(name))
                theirs += data_files(objects, name).get(shards, [])
            except ManifestError:
                pass  # nobody can say what belongs to it
            stranger += [item for item in objects if item.path in theirs]
        return TablePlan(
            save_id=self.save_id,
            meta_suffix=None if self.request.meta is None else self.request.meta_suffix,
            replaces=None if standing is None else (len(standing.data), crc_of(standing.data)),
            state=(await self.state.read()).crc,
            stranger=tuple(map(described, stranger)),
        )

    async def _merge(self, part: Part, sequence: int) -> Manifest:
        manifest = self._manifest(sequence, part.files, {})
        # At once: none of them says anything about the others.
        await run_all(
            [
                self._put_part(part),
                self._put_sidecar(),
                self._put_body(manifest),
                self._check_written(part.files),
                self.files.publisher.hold(self.request.name, self.save_id),
            ]
        )
        return manifest

    async def _put_sidecar(self) -> None:
        if self.request.meta is not None:
            await self.root.store.put(self.folder + SIDECAR_COPY, self.request.meta)
            self.bytes_written += len(self.request.meta)
