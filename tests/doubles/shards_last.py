"""A store that breaks the order in which a checkpoint is written, for tests that this is noticed."""

from __future__ import annotations

from asyncsaver.store import Buffer, Listing, ObjectInfo, PutMode, Store

from .scripted import ScriptedStore


class ShardsLast(ScriptedStore):
    """Sends shards only once a manifest stands; until then it pretends that they were there."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.held: dict[str, bytes] = {}

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        if path.endswith(".safetensors"):
            self.held[path] = bytes(data)
            return ObjectInfo(path, len(self.held[path]))
        info = await super().put(path, data, mode=mode)
        if "/manifest" in path:
            for shard, content in self.held.items():
                await super().put(shard, content)
            self.held.clear()
        return info

    async def list(self, prefix: str = "", *, delimiter: bool = False) -> Listing:
        found = await super().list(prefix, delimiter=delimiter)
        held = [ObjectInfo(path, len(data)) for path, data in self.held.items() if path.startswith(prefix)]
        return Listing([*found.objects, *held], found.prefixes)
