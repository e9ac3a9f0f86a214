"""What an index of TensorFlow's tells of who has written it, and whether its data are there."""

from __future__ import annotations

import logging

from asyncsaver.catalog.root import Root
from asyncsaver.errors import ManifestError, ObjectNotFoundError
from asyncsaver.formats.tensorflow.bundle import data_path, data_sizes, decode_index, decode_shards, index_path
from asyncsaver.layout.tensorflow_names import (
    INDEX_COPY,
    Plan,
    claim_path,
    crc_of,
    data_files,
    decode_claim,
    decode_plan,
    plan_path,
)
from asyncsaver.model.names import save_folder
from asyncsaver.save.exclusive import read_if_there
from asyncsaver.store.contract import Blob, Store

log = logging.getLogger("asyncsaver")


class Evidence:
    """Looks for it. Reads only.

    Args:
        outer: where TensorFlow's files are.
        records: where our records of them are.
    """

    def __init__(self, outer: Root, records: Root) -> None:
        self._outer = outer
        self._records = records

    async def is_foreign(self, name: str, save_id: str, standing: Blob) -> bool:
        """Whether an index that is not that of a save was written by somebody else since, rather than before.

        Args:
            name: of the checkpoint.
            save_id: of the save that its highest record has committed.
            standing: what stands there.
        """
        if await self._is_damaged(index_path(name), standing):
            return False
        index = await self.copy_of(name, save_id)
        plan = None if index is None else await self.plan_of(name, save_id, index)
        return plan is not None and standing.data != index and not await self.may_replace(name, standing, plan)

    async def owner_of(self, name: str, shards: int) -> str | None:
        """The save that has claimed the data files ``-of-N``; None where nobody has, or it cannot be told."""
        path = claim_path(name, shards)
        claim = await read_if_there(self._records, path)
        try:
            return None if claim is None else decode_claim(claim.data, path).save_id
        except ManifestError as error:
            log.warning("%s/%s", self._records.store.url, error)
            return None

    async def is_lost(self, name: str, save_id: str) -> bool:
        """Whether there is neither an index of a checkpoint nor any data of that save: somebody else has deleted them."""
        if await read_if_there(self._outer, index_path(name)) is not None:
            return False
        index = await self.copy_of(name, save_id)
        return index is not None and not await self._any_data(name, index)

    async def copy_of(self, name: str, save_id: str) -> bytes | None:
        """The index that a save is to publish; None where it is gone."""
        blob = await read_if_there(self._records, save_folder(name, save_id) + INDEX_COPY)
        return None if blob is None else blob.data

    async def plan_of(self, name: str, save_id: str, index: bytes) -> Plan | None:
        """What a save was going to do, whose index this is; None where that is gone, or damaged."""
        try:
            shards = await self._outer.threads.run(decode_shards, index, save_folder(name, save_id) + INDEX_COPY)
            path = plan_path(name, save_id, shards)
            blob = await read_if_there(self._records, path)
            return None if blob is None else decode_plan(blob.data, path)
        except ManifestError as error:
            log.warning("%s/%s", self._records.store.url, error)
            return None

    async def may_replace(self, name: str, standing: Blob, plan: Plan) -> bool:
        """Whether it is what was there when the save began, or ours."""
        return plan.replaces == (len(standing.data), crc_of(standing.data)) or await self.is_ours(name, standing)

    async def is_ours(self, name: str, standing: Blob) -> bool:
        """Whether an index is that of a save of ours, if perhaps damaged, rather than of somebody else."""
        path = index_path(name)
        try:
            shards = await self._outer.threads.run(decode_shards, standing.data, path)
        except ManifestError:
            return False
        save_id = await self.owner_of(name, shards)
        if save_id is None:
            return False
        copy = await self.copy_of(name, save_id)
        if copy is not None:
            return copy == standing.data or await self._is_damaged(path, standing)
        # Of a save that is gone, or of somebody else who has taken the names of its data; then these are there.
        return not await self.data_stand(name, standing.data)

    async def data_stand(self, name: str, index: bytes) -> bool:
        """Whether all data files that an index names are there."""
        path = index_path(name)

        def wanted() -> dict[str, int]:
            return data_sizes(decode_index(index, path), name)

        try:
            sizes = await self._outer.threads.run(wanted)
        except ManifestError:
            return True  # nothing can be said of it
        listing = await self._outer.store.list(delimiter=True)
        found = {item.path: item.size for item in listing.objects}
        for one, size in sizes.items():
            if found.get(one) != size and await _size(self._outer.store, one) != size:
                return False
        return True

    async def _any_data(self, name: str, index: bytes) -> bool:
        try:
            shards = await self._outer.threads.run(decode_shards, index, INDEX_COPY)
        except ManifestError:
            return True  # nothing can be said of it
        if data_files((await self._outer.store.list(delimiter=True)).objects, name).get(shards):
            return True
        return await _size(self._outer.store, data_path(name, 0, shards)) is not None

    async def _is_damaged(self, path: str, standing: Blob) -> bool:
        try:
            await self._outer.threads.run(decode_index, standing.data, path)
        except ManifestError:
            return True
        return False


async def _size(store: Store, path: str) -> int | None:
    try:
        return (await store.head(path)).size
    except ObjectNotFoundError:
        return None
