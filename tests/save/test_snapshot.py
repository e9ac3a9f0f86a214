"""Snapshots: copies of any array, side by side, that outlive changes, and memory that outlives its readers."""

from __future__ import annotations

import asyncio
import mmap
import uuid
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from asyncsaver import Saver
from asyncsaver.aio.threads import Threads
from asyncsaver.model.flatten import TensorLeaf
from asyncsaver.model.leaves import Adapters, NumpyAdapter
from asyncsaver.save.arena import Arena, Bytes, map_memory
from asyncsaver.save.snapshot import snapshot
from asyncsaver.save.stage import stage
from asyncsaver.store import NEVER, Part, Resend
from asyncsaver_backends.memory import MemoryStore

MIB = 2**20
BASE = np.arange(24, dtype=np.float32).reshape(4, 6)
ARRAYS: dict[str, Any] = {
    "plain": BASE,
    "fortran": np.asfortranarray(BASE),
    "reversed": BASE[::-1, ::-2],
    "broadcast": np.broadcast_to(BASE[:1], (7, 6)),
    "big-endian": BASE.astype(">f4"),
    "single": np.array(2.5),
    "single, big-endian": np.array(7, ">i8"),
    "empty": np.zeros((3, 0, 2), np.complex128),
    "bool": BASE > 3,
    "bfloat16": BASE.astype(ml_dtypes.bfloat16),
    "bfloat16, strided": BASE.astype(ml_dtypes.bfloat16).T[::2],
    "float8": BASE.astype(ml_dtypes.float8_e4m3fn),
    "int4": np.arange(-8, 8).astype(ml_dtypes.int4),
    "text": np.array([["a", "bcd"], ["", "é"]]),
    "bytes": np.array([b"xyz", b"1"]),
    "void": np.frombuffer(b"abcdefghijkl", "V3"),
    "dates": np.array(["2020-02-02", "NaT"], "M8[ns]"),
    "one byte": np.array([9], np.uint8),
}


class Frozen(NumpyAdapter):
    """Takes arrays that are read-only for immutable."""

    def is_immutable(self, value: Any) -> bool:
        return not value.flags.writeable


class Holding(MemoryStore):
    """Never ends an upload, and goes on reading what it was given after that was cancelled."""

    holds = False

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.held: list[memoryview] = []
        self.reached = asyncio.Event()

    async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
        if not self.holds:
            await super().put_parts(path, parts, size=size, resend=resend)
            return
        async for part in parts:
            with part as data:
                self.held.append(memoryview(data))
        self.reached.set()
        await asyncio.Event().wait()


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads("test", 4)
    yield threads
    threads.close()


def dirty(size: int) -> Bytes:
    return np.full(size, 0xA5, np.uint8)


async def copies_of(
    state: object, threads: Threads, *adapters: NumpyAdapter, take: Callable[[int], Bytes] = dirty
) -> dict[str, TensorLeaf]:
    known = Adapters(*adapters) if adapters else Adapters.discover()
    copied = await snapshot(stage(state, known), known, threads, take)
    return {tensor.name: tensor for tensor in copied.tensors}


async def test_any_array_is_copied_as_it_is(threads: Threads) -> None:
    copies = await copies_of(ARRAYS, threads)
    assert list(copies) == list(ARRAYS)
    for name, array in ARRAYS.items():
        copy = copies[name].value
        assert (copy.dtype, copy.shape) == (array.dtype, array.shape), name
        assert copy.tobytes() == array.tobytes(), name
        assert copy.flags.c_contiguous, name
        assert not np.shares_memory(copy, array), name


async def test_copies_lie_side_by_side(threads: Threads) -> None:
    taken: list[Bytes] = []

    def take(size: int) -> Bytes:
        taken.append(Arena().take(size, keep=0))
        return taken[-1]

    state = {f"t{index}": np.full(index, index % 256, np.uint8) for index in range(1, 1000)}
    copies = await copies_of(state, threads, take=take)
    (memory,) = taken
    ends = memory.ctypes.data
    for copy in (tensor.value for tensor in copies.values()):
        assert copy.ctypes.data % 64 == 0
        assert ends <= copy.ctypes.data < ends + 64
        ends = copy.ctypes.data + copy.nbytes
    assert ends <= memory.ctypes.data + memory.size
    assert all((copies[name].value == array).all() for name, array in state.items())


async def test_large_states_are_copied_in_several_threads(threads: Threads) -> None:
    state = {f"t{index}": np.full(24 * MIB, index, np.uint8) for index in range(4)} | {"last": np.ones(1)}
    copies = await copies_of(state, threads)
    assert list(copies) == list(state)
    assert all((copies[name].value == array).all() for name, array in state.items())


async def test_what_cannot_change_is_shared(threads: Threads) -> None:
    fixed = np.arange(1000)
    fixed.flags.writeable = False
    sizes: list[int] = []

    def take(size: int) -> Bytes:
        sizes.append(size)
        return dirty(size)

    copies = await copies_of({"fixed": fixed, "free": np.ones(3)}, threads, Frozen(), take=take)
    assert copies["fixed"].value is fixed
    assert copies["free"].value.tolist() == [1, 1, 1]
    assert sizes == [64]


async def test_tensors_of_torch(threads: Threads) -> None:
    torch = pytest.importorskip("torch")
    state = {
        "plain": torch.arange(12.0).reshape(3, 4),
        "transposed": torch.arange(12.0).reshape(3, 4).T,
        "bfloat16": torch.arange(12).to(torch.bfloat16)[::3],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "single": torch.tensor(3),
        "conjugated": torch.tensor([1 + 2j]).conj(),
    }
    wanted = {name: tensor.detach().clone() for name, tensor in state.items()}
    copies = await copies_of(state, threads)
    for tensor in state.values():
        tensor.detach().zero_()
    adapter = Adapters.discover().by_kind("torch")
    assert adapter is not None
    for name, tensor in wanted.items():
        assert torch.equal(adapter.from_numpy(copies[name].value), tensor.resolve_conj()), name


async def test_a_tensor_that_has_grown_is_refused(threads: Threads) -> None:
    torch = pytest.importorskip("torch")
    known = Adapters.discover()
    tensor = torch.zeros(4)
    staged = stage({"x": tensor, "y": np.ones(4)}, known)
    tensor.resize_(1000)
    with pytest.raises(RuntimeError, match="x: a tensor of 16 bytes had 4000 when it was copied"):
        await snapshot(staged, known, threads, dirty)


def store() -> Holding:
    return Holding(f"memory://snapshots-{uuid.uuid4().hex}/run")


async def test_saves_one_after_another_use_the_same_memory() -> None:
    """All but now and then: a thread may be slow to forget what it was called with."""
    mapped: list[int] = []

    def new(size: int) -> mmap.mmap:
        mapped.append(size)
        return map_memory(size)

    saver = Saver(store(), max_to_keep=None, memory_budget=MIB)  # each snapshot is beyond it, and alone
    saver._staging._arena = Arena(new)
    state = {"w": np.zeros(2 * MIB, np.uint8), "b": np.zeros(5)}
    async with saver:
        for step in range(10):
            state["w"][:] = step
            pending = await saver.save_in_background(state, step=step)
            state["w"][:] = 255
            await pending
        assert len(mapped) <= 4
        for step in range(10):
            assert set((await saver.restore(step=step))["w"].tolist()) == {step}


async def test_memory_that_a_cancelled_save_left_to_a_request_is_not_used_again() -> None:
    held_store = store()
    state = {"w": np.full(16 * MIB, 1, np.uint8)}
    async with Saver(held_store, memory_budget=64 * MIB) as saver:
        held_store.holds = True
        pending = await saver.save_in_background(state, step=1)
        await held_store.reached.wait()
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        del pending
        held_store.holds = False
        for step in (2, 3):
            state["w"][:] = step
            await (await saver.save_in_background(state, step=step))
            assert saver._staging._snapshots.used == 0
        views = [data for data in held_store.held if data.nbytes == held_store.capabilities.part_bytes]
        assert len(views) > 1
        # The first part begins with the header; all others are views of the snapshot.
        assert all(set(data.tobytes()) == {1} for data in views[1:])
        assert set((await saver.restore(step=2))["w"].tolist()) == {2}
        held_store.held.clear()


async def test_closing_releases_what_snapshots_have_left() -> None:
    mapped: list[mmap.mmap] = []

    def new(size: int) -> mmap.mmap:
        mapped.append(map_memory(size))
        return mapped[-1]

    async with Saver(store()) as saver:
        saver._staging._arena = Arena(new)
        await (await saver.save_in_background({"w": np.ones(MIB)}, step=1))
        saver._staging.close()
        async with asyncio.timeout(60):
            # A thread may be slow to forget what it was called with.
            while not mapped[0].closed:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
    assert len(mapped) == 1
