"""Write a checkpoint as TensorFlow does (V2): data files, and the index that makes them one.

``P.index`` is created last and exclusively, and what it names is written by this attempt alone (see `save.publish`). Since the
number of data files is part of their names, an attempt finds names that are free by having more of them, the last of which are
empty; so a checkpoint that is being replaced stays whole until its index is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointExistsError, InvalidStateError, ManifestError
from asyncsaver.formats.tensorflow.bundle import data_path, decode_index, encode_index, index_path
from asyncsaver.model.checkpoint import Progress
from asyncsaver.model.shards import ShardPlan
from asyncsaver.save.publish import Publication, check_written
from asyncsaver.save.stage import largest_shard
from asyncsaver.save.tensorflow_data import MOST_FILES, Bundle, index_of, plan_data, put_data
from asyncsaver.save.upload import Uploads
from asyncsaver.store.contract import ObjectInfo


@dataclass(slots=True, kw_only=True)
class TensorFlowWriter:
    """Writes one checkpoint. Used once.

    Args:
        root: where to.
        prefix: of the files, relative to the root: ``model.ckpt-12``.
        step: for progress reports.
        shard_bytes: how large a data file may grow before the next one is begun; a tensor is not divided.
        overwrite: replace what is there.
        limit: seconds for a commit that the store leaves unclear.
        report: told as bytes land.
    """

    root: Root
    prefix: str
    step: int | None
    shard_bytes: int
    overwrite: bool
    limit: float
    report: Callable[[Progress], None]

    async def write(self, bundle: Bundle) -> None:
        """Write the data files, then the index. When it fails or is cancelled before, nothing stays, and nothing has changed.

        Raises:
            CheckpointExistsError: a checkpoint is there already, or somebody else has written one meanwhile.
            CommitUnknownError: the store left unclear whether the index was written.
            StoreError: the store failed.
        """
        threads, where = self.root.threads, f"{self.root.store.url}/{self.prefix}"
        standing = await self._look(where)
        superseded = await self._superseded(standing)
        attempt = Publication(root=self.root, where=where, limit=self.limit)
        try:
            largest = largest_shard(self.shard_bytes, self.root.store, bundle.staged.nbytes, self.root.concurrency)
            plans = await threads.run(plan_data, bundle.staged.tensors, largest)
            paths = await self._take(attempt, len(plans), standing)
            plans += [ShardPlan((), 0)] * (len(paths) - len(plans))
            files = list(zip(paths, plans, strict=True))
            uploads = Uploads(self.root, self.step, bundle.staged.nbytes, self.report)
            written = await put_data(uploads, bundle, files, largest)
            folder, slash, _ = self.prefix.rpartition("/")
            await check_written(self.root.store, folder + slash, {path: plan.nbytes for path, plan in files})
            index = await threads.run(lambda: encode_index(index_of(bundle, len(paths), written)))
            self.report(Progress("committing", self.step, bundle.staged.nbytes, bundle.staged.nbytes))
            await attempt.publish(index_path(self.prefix), index, standing.get(index_path(self.prefix)))
        finally:
            await attempt.tidy()
        await attempt.delete(superseded, "files of the checkpoint that was replaced")
        self.report(Progress("committed", self.step, bundle.staged.nbytes, bundle.staged.nbytes))

    async def _look(self, where: str) -> dict[str, ObjectInfo]:
        """What stands under the prefix: data files, index, or a file of TensorFlow's V1."""
        folder, slash, _ = self.prefix.rpartition("/")
        listing = await self.root.store.list(folder + slash, delimiter=True)
        data = re.compile(re.escape(self.prefix) + r"\.data-[0-9]{5}-of-[0-9]{5}")
        records = {index_path(self.prefix), self.prefix}
        standing = {item.path: item for item in listing.objects if item.path in records or data.fullmatch(item.path)}
        found = sorted(records & standing.keys())
        if found and not self.overwrite:
            raise CheckpointExistsError(f"{where} is there already ({found[-1]}); overwrite=True replaces it")
        return standing

    async def _superseded(self, standing: Mapping[str, ObjectInfo]) -> list[str]:
        """What is to be deleted once another checkpoint stands in its place. Data files that no index names stay."""
        superseded = [path for path in standing if path == self.prefix]
        if (path := index_path(self.prefix)) in standing:
            blob = await self.root.store.get(path)
            try:
                count = (await self.root.threads.run(decode_index, blob.data, path)).shards
            except ManifestError:  # nobody can say what belongs to it
                return superseded
            superseded += [one for one in standing if one.endswith(f"-of-{count:05d}")]
        return superseded

    async def _take(self, attempt: Publication, count: int, standing: Mapping[str, ObjectInfo]) -> list[str]:
        """Find names for as many data files, or for more, that nobody has."""
        for files in range(max(1, count), MOST_FILES + 1):
            paths = [data_path(self.prefix, file, files) for file in range(files)]
            if standing.keys().isdisjoint(paths) and await attempt.take(paths):
                return paths
        raise InvalidStateError(
            f"{attempt.where}: TensorFlow's format has no names for more than {MOST_FILES} data files"
        )
