"""Bodies that are sent from several places in memory."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver_backends._transfer import SLICE_BYTES, SlicedBody, cut, request_body


@given(st.lists(st.binary(max_size=6), max_size=5), st.integers(0, 40), st.integers(0, 40))
def test_a_cut_through_pieces_is_a_cut_through_their_bytes(pieces: list[bytes], start: int, stop: int) -> None:
    whole = b"".join(pieces)
    assert b"".join(cut([memoryview(piece) for piece in pieces], start, stop)) == whole[start:stop]


@pytest.mark.parametrize("sizes", [(SLICE_BYTES + 1,), (100, SLICE_BYTES), (1, 2 * SLICE_BYTES, 7)])
async def test_a_body_of_pieces_reads_as_one(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    pieces = [rng.bytes(size) for size in sizes]
    whole = b"".join(pieces)
    body = request_body([memoryview(piece) for piece in pieces])
    assert isinstance(body, SlicedBody)
    assert len(body) == len(whole)
    for _ in range(2):  # a request may be sent again
        slices = [piece async for piece in body]
        assert b"".join(slices) == whole
        assert max(map(len, slices)) <= SLICE_BYTES
    assert body.read(50) + body.read() == whole
    assert body.seek(-3, io.SEEK_END) == len(whole) - 3
    assert body.read() == whole[-3:]


def test_what_is_small_is_copied() -> None:
    assert request_body([memoryview(b"head"), memoryview(b"tail")]) == b"headtail"
    assert request_body([]) == b""
