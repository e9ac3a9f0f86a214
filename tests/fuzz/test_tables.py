"""TensorFlow's documents, spoiled byte by byte, each read as far as a restore goes; the same that atheris is given."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsaver.errors import CheckpointCorruptError

from .tables import USES, whole_documents

Scale = Callable[[int, int], int]
pytestmark = pytest.mark.torture
WHOLE = list(whole_documents())
STRANGE = [
    b"",
    b"\x00",
    b"\xff",
    b"\x00\x01",
    b"\xff" * 9 + b"\x01",
    b"\x80" * 9 + b"\x01",
    b"\xff" * 4 + b"\x07",
    b"\x0b" * 40,
]
ROOM = 48 * 2**20


def spoiled(data: bytes, other: bytes, choose: random.Random) -> bytes:
    """A few bytes flipped, left out, repeated, taken from another document, or replaced."""
    changed = bytearray(data)
    for _ in range(choose.choice([1, 1, 2, 5])):
        start = choose.randrange(len(changed) + 1)
        stop = start + choose.choice([0, 1, 1, 8])
        match choose.randrange(5):
            case 0 if changed:
                changed[start % len(changed)] ^= 1 << choose.randrange(8)
            case 1:
                changed[start:stop] = choose.choice(STRANGE)
            case 2:
                changed[start:stop] = changed[stop : stop + 20] * choose.choice([2, 50])
            case 3:
                at = choose.randrange(len(other))
                changed[start:stop] = other[at : at + choose.choice([1, 8, 40])]
            case _:
                changed[start:stop] = choose.randbytes(choose.choice([1, 2, 10]))
    return bytes(changed)


@pytest.mark.parametrize("kind", USES)
def test_whole_documents_are_read(kind: str) -> None:
    whole = [data for name, data in WHOLE if name == kind]
    assert whole
    for data in whole:
        USES[kind](data)


@pytest.mark.parametrize("kind", USES)
def test_spoiled_documents(kind: str, scale: Scale, figures: Any) -> None:
    whole = [data for name, data in WHOLE if name == kind]
    problems: set[str] = set()
    count = scale(200, 20_000)
    tracemalloc.start()
    try:
        for seed in range(count):
            choose = random.Random(f"{kind} {seed}")
            data = spoiled(choose.choice(whole), choose.choice(WHOLE)[1], choose)
            try:
                USES[kind](data)
            except CheckpointCorruptError as error:
                problems.add(str(error))
            except BaseException as error:
                error.add_note(f"seed {seed}: {data!r}")
                raise
        assert tracemalloc.get_traced_memory()[1] < ROOM
    finally:
        tracemalloc.stop()
    assert problems
    assert max(map(len, problems)) < 3000  # somebody has to read it
    figures.add("hostile documents read, TensorFlow's formats", count)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    for use in USES.values():
        with contextlib.suppress(CheckpointCorruptError):
            use(data)
