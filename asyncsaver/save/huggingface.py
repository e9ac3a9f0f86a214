"""Write a folder of safetensors files and the index that makes them one model, as Hugging Face's libraries read it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointExistsError
from asyncsaver.formats.huggingface import INDEX_SUFFIX, SUFFIX
from asyncsaver.formats.safetensors import encode_index
from asyncsaver.model.checkpoint import Progress
from asyncsaver.model.manifest import Json, TensorEntry
from asyncsaver.model.names import INDEX_FILE, shard_filename
from asyncsaver.model.shards import plan_shards
from asyncsaver.save.contents import InMemory
from asyncsaver.save.publish import Publication, check_written
from asyncsaver.save.stage import Staged, largest_shard
from asyncsaver.save.upload import Uploads
from asyncsaver.save.write import put_shards
from asyncsaver.store.contract import ObjectInfo

_LONE_FILE = "model.safetensors"


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


@dataclass(slots=True, kw_only=True)
class HuggingFaceWriter:
    """Writes one folder. Used once.

    Args:
        root: where to.
        folder: relative to the root.
        step: for progress reports.
        shard_bytes: how large a file may grow before the next one is begun; a tensor is not divided.
        overwrite: replace what is there.
        limit: seconds for a commit that the store leaves unclear.
        report: told as bytes land.
    """

    root: Root
    folder: str
    step: int | None
    shard_bytes: int
    overwrite: bool
    limit: float
    report: Callable[[Progress], None]

    async def write(self, staged: Staged, metadata: Mapping[str, Json]) -> int:
        """Write the files, then the index. When it fails or is cancelled before, nothing stays, and nothing has changed.

        Args:
            staged: the tensors.
            metadata: for the index.

        Returns:
            The size of the files in bytes, without the index.

        Raises:
            CheckpointExistsError: something is there already, or somebody else has written it meanwhile.
            CommitUnknownError: the store left unclear whether the index was written.
            StoreError: the store failed.
        """
        threads, root, total = self.root.threads, self.root, staged.nbytes
        where = f"{root.store.url}/{self.folder}"
        standing = await self._look(where)
        superseded = await self._superseded(standing)
        attempt = Publication(root=root, where=where, limit=self.limit)
        try:
            largest = largest_shard(self.shard_bytes, root.store, total, root.concurrency)
            plans = await threads.run(plan_shards, staged.tensors, largest)
            names = [shard_filename(number, len(plans)) for number in range(1, len(plans) + 1)]
            if standing:  # other names, so that what is there stays whole until the index is replaced
                tag = f"{root.random_bits(64):016x}"
                names = [name.replace("model-", f"model-{tag}-", 1) for name in names]
            paths = [f"{self.folder}/{name}" for name in names]
            if paths and not await attempt.take(paths):
                raise CheckpointExistsError(f"{where} is being written by somebody else, or was left half written")
            begun = asyncio.Event()
            begun.set()
            uploads = Uploads(root, self.step, total, self.report, begun)
            contents = staged.contents or InMemory(root.adapters)
            shards = await put_shards(uploads, contents, list(zip(paths, plans, strict=True)), staged.tensors, largest)
            await check_written(self.root.store, f"{self.folder}/", {file.path: file.size for file, _ in shards})
            index = await threads.run(self._index, staged, names, [entries for _, entries in shards], metadata)
            self.report(Progress("committing", self.step, total, total))
            path = f"{self.folder}/{INDEX_FILE}"
            await attempt.publish(path, index, standing.get(path))
        finally:
            await attempt.tidy()
        await attempt.delete(superseded, "files of the checkpoint that was replaced")
        self.report(Progress("committed", self.step, total, total))
        return sum(file.size for file, _ in shards)

    async def _look(self, where: str) -> dict[str, ObjectInfo]:
        listing = await self.root.store.list(f"{self.folder}/", delimiter=True)
        standing = {item.path: item for item in listing.objects if item.path.endswith((SUFFIX, INDEX_SUFFIX))}
        if standing and not self.overwrite:
            raise CheckpointExistsError(f"{where} holds {min(standing)}; overwrite=True replaces it")
        return standing

    async def _superseded(self, standing: Mapping[str, ObjectInfo]) -> list[str]:
        """What is to be deleted once another index stands: the files that the old one names, and what readers look for first."""
        path, lone = f"{self.folder}/{INDEX_FILE}", f"{self.folder}/{_LONE_FILE}"
        superseded = {lone} & standing.keys()
        if path in standing:
            blob = await self.root.store.get(path)
            try:
                index = await self.root.threads.run(msgspec.json.decode, blob.data, type=_Index)
            except (msgspec.DecodeError, UnicodeDecodeError):  # nobody can say what belongs to it
                return sorted(superseded)
            superseded |= {f"{self.folder}/{name}" for name in index.weight_map.values()} & standing.keys()
        return sorted(superseded)

    def _index(
        self,
        staged: Staged,
        names: list[str],
        entries: list[dict[str, TensorEntry]],
        metadata: Mapping[str, Json],
    ) -> bytes:
        placed = {name: file for file, held in zip(names, entries, strict=True) for name in held}
        return encode_index({one.name: placed[one.name] for one in staged.tensors}, staged.nbytes, metadata)
