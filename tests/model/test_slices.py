"""The smallest run that holds a slice, compared with NumPy's own indexing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices

from asyncsaver.model.slices import byte_range, overlap, smallest_run

shapes = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
ITEMSIZE = 8


@st.composite
def indexed(draw: st.DrawFn) -> tuple[tuple[int, ...], Any]:
    shape = draw(shapes)
    return shape, draw(basic_indices(shape, allow_newaxis=False, allow_ellipsis=True))


@given(indexed())
def test_a_run_holds_what_numpy_selects(case: tuple[tuple[int, ...], Any]) -> None:
    shape, index = case
    whole = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    run = smallest_run(shape, index)
    start, stop = byte_range(shape, run, ITEMSIZE)
    box = np.frombuffer(whole.tobytes()[start:stop], np.int64).reshape(run.shape)
    # Contiguous: the bytes of the run are the box that it says they are.
    corner = tuple(slice(at, at + length) for at, length in zip(run.offset, run.shape, strict=True))
    np.testing.assert_array_equal(box, whole[corner])
    expected = whole[index]
    np.testing.assert_array_equal(box[run.index], expected)
    assert box[run.index].shape == np.shape(expected)


@given(indexed())
def test_no_smaller_run_holds_it(case: tuple[tuple[int, ...], Any]) -> None:
    shape, index = case
    whole = np.arange(math.prod(shape)).reshape(shape)
    selected = np.ravel(whole[index])
    run = smallest_run(shape, index)
    if not selected.size:
        assert 0 in run.shape
        return
    # The smallest contiguous box with these two corners: one row until the first axis on which they differ, all after it.
    low, high = np.unravel_index(selected.min(), shape), np.unravel_index(selected.max(), shape)
    differ = next((axis for axis in range(len(shape)) if low[axis] != high[axis]), len(shape))
    expected = [1 if axis < differ else high[axis] - low[axis] + 1 if axis == differ else size
                for axis, size in enumerate(shape)]  # fmt: skip
    assert list(run.shape) == expected


def test_a_slice_of_no_columns_reads_nothing() -> None:
    run = smallest_run((1000, 1000), (slice(None), slice(5, 5)))
    assert byte_range((1000, 1000), run, 8) == (0, 0)


@pytest.mark.parametrize("index", [True, None, 1.0, "a", [0], np.array([0, 1]), (0, None), (slice(None), [1])])
def test_other_kinds_of_index_are_refused(index: Any) -> None:
    with pytest.raises(TypeError, match=r"a tensor is read by ints|only integer"):
        smallest_run((3, 4), index)


@pytest.mark.parametrize("index", [3, -4, (0, 4), (0, 0, 0), (..., 0, ...), (0, ..., 0, 0), np.int64(3)])
def test_indices_that_do_not_fit_are_refused(index: Any) -> None:
    with pytest.raises(IndexError, match=r"ind|ellips"):
        smallest_run((3, 4), index)


def test_integers_of_numpy_are_indices() -> None:
    last: Any = np.int64(-1)
    assert smallest_run((3, 4), last) == smallest_run((3, 4), 2)


boxes = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), max_size=3)


@given(boxes)
def test_two_boxes_share_what_their_masks_share(axes: list[tuple[int, int, int, int]]) -> None:
    offset, shape, other_offset, other_shape = ([axis[field] for axis in axes] for field in range(4))
    masks = np.zeros((2, *[8] * len(axes)), bool)
    for which, low, length in ((0, offset, shape), (1, other_offset, other_shape)):
        masks[(which, *(slice(at, at + size) for at, size in zip(low, length, strict=True)))] = True
    expected = masks[0] & masks[1]
    shared = overlap(offset, shape, other_offset, other_shape)
    found = np.zeros_like(expected)
    if shared is not None:
        found[shared] = True
    np.testing.assert_array_equal(found, expected)
    assert (shared is None) == (not expected.any())
