"""Memory is used again, but never while anybody could still read what it held."""

from __future__ import annotations

import errno
import gc
import mmap
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.save.arena import Arena, Bytes, map_memory

MIB = 2**20
READERS: dict[str, Callable[[Bytes], object]] = {
    "slice": lambda memory: memory[5:9],
    "view of a view": lambda memory: memory[:8].view(np.float32).reshape(1, 2).T[0],
    "array on it": lambda memory: np.ndarray((2, 3), np.int16, memory, 64),
    "memoryview": lambda memory: memory[10:20].data,
    "memoryview of a memoryview": lambda memory: memoryview(memory.data)[3:].cast("B"),
    "read-only view": lambda memory: np.frombuffer(memoryview(memory).toreadonly(), np.uint8),
    "cycle": lambda memory: _cycle(memory[:1]),
}


def _cycle(value: object) -> list[object]:
    cycle: list[object] = [value]
    cycle.append(cycle)
    return cycle


class Mapping:
    """Maps memory, and knows what of it is still there."""

    def __init__(self, kind: type[mmap.mmap] = mmap.mmap) -> None:
        self.times = 0
        self._kind = kind
        self._mapped: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()

    def __call__(self, size: int) -> mmap.mmap:
        self.times += 1
        memory = self._kind(-1, size, flags=mmap.MAP_PRIVATE)
        self._mapped.add(memory)
        return memory

    @property
    def sizes(self) -> list[int]:
        return sorted(len(memory) for memory in self._mapped if not memory.closed)


class Noted(mmap.mmap):
    """Notes what the system is told."""

    advice: list[int]

    def madvise(self, option: int, *place: int) -> None:
        self.advice = [*getattr(self, "advice", []), option]
        super().madvise(option, *place)


class Locked(mmap.mmap):
    """Memory that the system may not take."""

    def madvise(self, option: int, *place: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")


def test_memory_is_used_again() -> None:
    mapping = Mapping()
    arena = Arena(mapping)
    for fill in range(5):
        memory = arena.take(3 * MIB, keep=MIB)
        assert memory.size == 3 * MIB
        assert memory.ctypes.data % mmap.PAGESIZE == 0
        memory[:] = fill
        del memory
    assert mapping.times == 1


@pytest.mark.parametrize("reader", READERS)
def test_memory_that_is_referenced_is_not_lent_again(reader: str) -> None:
    mapping = Mapping()
    arena = Arena(mapping)
    memory = arena.take(100_000, keep=MIB)
    memory[:] = 1
    held = READERS[reader](memory)
    del memory
    others = [arena.take(100_000, keep=MIB) for _ in range(3)]
    for other in others:
        other[:] = 2
    assert mapping.times == 4
    if reader != "cycle":
        assert set(np.asarray(held).tobytes()) == {1}
    del held, other
    others.clear()
    gc.collect()
    again = [arena.take(100_000, keep=MIB) for _ in range(4)]
    assert mapping.times == 4
    assert len({memory.ctypes.data for memory in again}) == 4


def test_a_tensor_of_torch_holds_memory() -> None:
    torch = pytest.importorskip("torch")
    mapping = Mapping()
    arena = Arena(mapping)
    tensor = torch.from_numpy(arena.take(64, keep=MIB).view(np.float32)).reshape(4, 4)[1]
    arena.take(64, keep=MIB)
    assert mapping.times == 2
    del tensor
    both = [arena.take(64, keep=MIB), arena.take(64, keep=MIB)]
    assert mapping.times == 2
    assert len(both) == 2


def test_memory_comes_back_from_another_thread() -> None:
    mapping = Mapping()
    arena = Arena(mapping)
    held = [arena.take(MIB, keep=MIB)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    held.append(arena.take(MIB, keep=MIB))
    assert mapping.times == 1


@given(st.lists(st.tuples(st.integers(1, 300_000), st.booleans()), max_size=40))
def test_what_is_lent_keeps_its_content(operations: list[tuple[int, bool]]) -> None:
    """Whatever is taken and dropped in whatever order."""
    mapping = Mapping()
    arena = Arena(mapping)
    lent: list[tuple[int, Bytes]] = []
    for mark, (size, drops) in enumerate(operations):
        memory = arena.take(size, keep=100_000)
        memory[:] = mark
        lent.append((mark, memory))
        del memory
        if drops:
            lent.pop(len(lent) // 2)
    for mark, memory in lent:
        assert (memory == mark).all()


def test_a_state_that_grows_and_shrinks_leaves_nothing_behind() -> None:
    mapping = Mapping()
    arena = Arena(mapping)
    for size in [*range(MIB, 4 * MIB, 10_000), *range(4 * MIB, 4096, -10_000)]:
        arena.take(size, keep=2 * MIB)
        assert sum(mapping.sizes) <= 2 * MIB + 1.25 * 2 * size
    assert mapping.times < 30


def test_a_little_more_fits_as_well() -> None:
    mapping = Mapping()
    arena = Arena(mapping)
    arena.take(2**24 + 1, keep=0)
    arena.take(2**24 + 2**20, keep=0)
    assert mapping.times == 1
    assert mapping.sizes[0] <= 1.125 * (2**24 + 1)


def test_large_memory_is_not_given_to_a_small_snapshot() -> None:
    mapping = Mapping()
    arena = Arena(mapping)
    arena.take(8 * MIB, keep=0)
    small = arena.take(MIB, keep=8 * MIB)
    large = arena.take(8 * MIB, keep=0)
    assert mapping.sizes == [small.size, large.size]


def test_no_more_is_kept_than_asked_for() -> None:
    mapping = Mapping()
    arena = Arena(mapping)
    held = [arena.take(MIB, keep=0) for _ in range(4)]
    held.clear()
    held.append(arena.take(MIB, keep=2 * MIB))
    assert mapping.sizes == [MIB] * 3
    held.append(arena.take(4 * MIB, keep=-5 * MIB))
    assert mapping.sizes == [MIB, 4 * MIB]


@pytest.mark.skipif(not hasattr(mmap, "MADV_FREE"), reason="this system has no such mark")
def test_the_system_may_take_what_is_not_lent() -> None:
    made: list[Noted] = []

    def new(size: int) -> Noted:
        made.append(Noted(-1, size, flags=mmap.MAP_PRIVATE))
        return made[-1]

    arena = Arena(new)
    memory = arena.take(MIB, keep=0)
    assert not hasattr(made[0], "advice")
    del memory
    assert made[0].advice == [mmap.MADV_FREE]


def test_memory_that_cannot_be_given_up_is_released() -> None:
    mapping = Mapping(Locked)
    arena = Arena(mapping)
    arena.take(MIB, keep=MIB)
    assert mapping.sizes == []
    memory = arena.take(MIB, keep=MIB)
    assert (mapping.times, mapping.sizes) == (2, [memory.size])


def test_closing_releases_everything() -> None:
    mapping = Mapping()
    arena = Arena(mapping)
    held = [arena.take(MIB, keep=0), arena.take(2 * MIB, keep=0)]
    held[1][:] = 7
    held.pop(0)
    arena.close()
    arena.close()
    assert mapping.sizes == [2 * MIB]
    assert (held[0] == 7).all()
    held.clear()
    assert mapping.sizes == []


def test_nothing_takes_no_memory() -> None:
    mapping = Mapping()
    assert Arena(mapping).take(0, keep=0).size == 0
    assert mapping.times == 0


def test_too_little_memory_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match="no memory for a snapshot"):
        map_memory(2**60)


@pytest.mark.parametrize("size", [1, mmap.PAGESIZE, 5 * MIB])
def test_new_memory_is_zero_and_private(size: int) -> None:
    memory: Any = Arena().take(size, keep=0)
    assert not memory.any()
    memory[-1] = 1
