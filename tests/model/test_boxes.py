"""Boxes of a run: together they are the run, in order, each contiguous, and there are few."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.model.boxes import boxes_of

SHAPES = st.lists(st.integers(1, 6), max_size=4).map(tuple)


@given(SHAPES, st.data())
def test_boxes_are_the_run_in_order(shape: tuple[int, ...], data: st.DataObject) -> None:
    count = math.prod(shape)
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    elements = np.arange(count).reshape(shape)
    pieces = []
    for offset, box in boxes_of(shape, start, stop):
        piece = elements[(*[slice(low, low + length) for low, length in zip(offset, box, strict=True)], ...)]
        assert piece.shape == box
        pieces.append(piece.reshape(-1).tolist())
    assert [element for piece in pieces for element in piece] == list(range(start, stop))
    assert len(pieces) <= max(1, 2 * len(shape))


def test_a_run_of_whole_rows_is_one_box() -> None:
    assert list(boxes_of((4, 3, 5), 15, 60)) == [((1, 0, 0), (3, 3, 5))]
    assert list(boxes_of((4, 3, 5), 13, 33)) == [((0, 2, 3), (1, 1, 2)), ((1, 0, 0), (1, 3, 5)), ((2, 0, 0), (1, 1, 3))]


def test_no_elements_are_no_box_and_a_single_one_is_all() -> None:
    assert list(boxes_of((0, 3), 0, 0)) == []
    assert list(boxes_of((), 0, 1)) == [((), ())]
