"""Where the bytes of tensors come from: arrays in memory, or another checkpoint."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from asyncsaver.model.dtypes import Array
from asyncsaver.model.flatten import TensorLeaf
from asyncsaver.model.leaves import Adapters
from asyncsaver.model.running import running_digest
from asyncsaver.restore.stream import Streaming, TensorStream
from asyncsaver.save.shard_bytes import XXH3_128, Bytes, ShardBytes, Sources


class Contents(Protocol):
    """Gives the bytes of tensors."""

    @property
    def one_by_one(self) -> bool:
        """Whether shards should go one after another, since some tensor of them is held whole."""
        ...

    def shard(self, header: bytes, tensors: Sequence[TensorLeaf], like: str = XXH3_128) -> ShardBytes:
        """The bytes of a shard, from its beginning.

        Args:
            header: its first bytes.
            tensors: those in it, in file order.
            like: see `ShardBytes`.
        """
        ...


@dataclass(frozen=True, slots=True)
class InMemory:
    """Arrays that the caller has.

    Args:
        adapters: for them.
    """

    adapters: Adapters

    @property
    def one_by_one(self) -> bool:
        """See `Contents`."""
        return False

    def shard(self, header: bytes, tensors: Sequence[TensorLeaf], like: str = XXH3_128) -> ShardBytes:
        """See `Contents`."""
        sizes = [tensor.nbytes for tensor in tensors]
        return ShardBytes(header, Sources(sizes, lambda position: self._array(tensors[position])), like)

    def _array(self, tensor: TensorLeaf) -> Array:
        adapter = self.adapters.by_kind(tensor.kind)
        if adapter is None:
            raise RuntimeError(f"{tensor.name}: the adapter for {tensor.kind!r} that described it is gone")
        return adapter.to_numpy(tensor.value)


@dataclass(frozen=True, slots=True)
class FromCheckpoint:
    """Tensors of another checkpoint, which are read when their bytes are wanted.

    Args:
        streaming: of it.
        one_by_one: see `Contents`.
    """

    streaming: Streaming
    one_by_one: bool

    def shard(self, header: bytes, tensors: Sequence[TensorLeaf], like: str = XXH3_128) -> ShardBytes:
        """See `Contents`."""
        stream = TensorStream(self.streaming, [tensor.name for tensor in tensors if tensor.nbytes])
        return _StreamedBytes(header, [tensor.nbytes for tensor in tensors], stream, like)


class _StreamedBytes(ShardBytes):
    """A shard whose tensors are read from elsewhere. `load` reads what the next `take` takes, and hardly more."""

    def __init__(self, header: bytes, sizes: Sequence[int], stream: TensorStream, like: str) -> None:
        super().__init__(header, Sources(sizes, _no_array), like)
        self._stream = stream
        self._digest = running_digest(like)
        self._left = 0  # of the run that passes now

    async def load(self, size: int) -> None:
        """See `ShardBytes`."""
        await self._stream.load(min(size, self.size - self._taken) - self._rest.size - self._left)

    def _advance(self) -> Iterator[Bytes]:
        self._pass_empty()
        while (run := self._stream.take()) is not None:
            rest = _Rest(run.data, deque(run.ends))
            del run
            while rest.data.size:
                # No name for the piece here: it would keep the memory while the next one is being read.
                yield self._cut(rest)

    def _cut(self, rest: _Rest) -> Bytes:
        """The next piece of what was read, as far as there is room for it, hashed."""
        piece, rest.data = rest.data[: self._room], rest.data[self._room :]
        start, stop = 0, rest.passed + piece.size
        while rest.ends and rest.ends[0] <= stop:
            end = rest.ends.popleft() - rest.passed
            self._digest.update(piece[start:end].data)
            self.hashes.append(self._digest.hexdigest())
            self._digest = running_digest(self._like)
            self._pass_empty()
            start = end
        if start < piece.size:
            self._digest.update(piece[start:].data)
        rest.passed, self._left = stop, rest.data.size
        if not rest.data.size:
            rest.data = np.empty(0, np.uint8)  # rather than an empty view, which would keep the memory
        return piece

    def _pass_empty(self) -> None:
        sizes = self._sources.sizes
        while len(self.hashes) < len(sizes) and not sizes[len(self.hashes)]:
            self.hashes.append(running_digest(self._like).hexdigest())


@dataclass(slots=True)
class _Rest:
    """What is left of a run, where the tensors in it end, and how much of it has passed."""

    data: Bytes
    ends: deque[int]
    passed: int = 0


def _no_array(position: int) -> Array:
    raise RuntimeError(f"tensor {position} of the shard is read as it is needed, and never is an array")
