"""Merging parts: whole tensors pass, anything else is refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.errors import ManifestError, RanksMissingError
from asyncsaver.model.manifest import Chunk, FileEntry, Part, TensorEntry
from asyncsaver.model.merge import check_coverage, check_sizes, merge_parts

SAVE_ID = "20260101T000000Z-0000000000000001"
Box = tuple[tuple[int, ...], tuple[int, ...]]


def chunk(offset: Sequence[int], shape: Sequence[int], file: int = 0) -> Chunk:
    return Chunk(tuple(offset), tuple(shape), file, 0, math.prod(shape), "0" * 32)


def entry(shape: Sequence[int], boxes: Sequence[Box], file: int = 0) -> TensorEntry:
    return TensorEntry("uint8", tuple(shape), tuple(chunk(offset, box, file) for offset, box in boxes))


def part(rank: int, world_size: int, files: Sequence[str] = (), **tensors: TensorEntry) -> Part:
    entries = [FileEntry(path, 10**6, "00000000") for path in files]
    return Part(save_id=SAVE_ID, rank=rank, world_size=world_size, files=entries, tensors=tensors)


@st.composite
def tilings(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Box]]:
    """A shape, and boxes that cover it exactly once: cut again and again along one axis."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    boxes: list[Box] = [((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 6))):
        which = draw(st.integers(0, len(boxes) - 1))
        axis = draw(st.integers(0, len(shape) - 1))
        offset, box = boxes[which]
        if box[axis] < 2:
            continue
        at = draw(st.integers(1, box[axis] - 1))
        low = (*box[:axis], at, *box[axis + 1 :])
        high = (*box[:axis], box[axis] - at, *box[axis + 1 :])
        moved = (*offset[:axis], offset[axis] + at, *offset[axis + 1 :])
        boxes[which : which + 1] = [(offset, low), (moved, high)]
    return shape, draw(st.permutations(boxes))


def covers_once(shape: Sequence[int], boxes: Sequence[Box]) -> bool:
    mask = np.zeros(shape, int)
    for offset, box in boxes:
        if any(at < 0 or length < 1 or at + length > size for at, length, size in zip(offset, box, shape, strict=True)):
            return False
        mask[tuple(slice(at, at + length) for at, length in zip(offset, box, strict=True))] += 1
    return bool((mask == 1).all())


@given(tilings())
def test_every_tiling_is_whole(tiling: tuple[tuple[int, ...], list[Box]]) -> None:
    shape, boxes = tiling
    assert covers_once(shape, boxes)
    check_coverage("t", entry(shape, boxes))


@given(tilings(), st.data())
def test_damage_is_noticed_exactly_when_a_mask_shows_it(
    tiling: tuple[tuple[int, ...], list[Box]], data: st.DataObject
) -> None:
    shape, boxes = tiling
    which = data.draw(st.integers(0, len(boxes) - 1))
    axis = data.draw(st.integers(0, len(shape) - 1))
    offset, box = boxes[which]
    change = data.draw(st.sampled_from(["drop", "double", "move", "stretch", "replace"]))
    by = data.draw(st.sampled_from([-2, -1, 1, 2]))
    moved = (*offset[:axis], offset[axis] + by, *offset[axis + 1 :])
    stretched = (*box[:axis], box[axis] + by, *box[axis + 1 :])
    changed = {
        "drop": [],
        "double": [boxes[which]] * 2,
        "move": [(moved, box)],
        "stretch": [(offset, stretched)],
        "replace": [boxes[(which + 1) % len(boxes)]],
    }[change]
    damaged = [*boxes[:which], *changed, *boxes[which + 1 :]]
    if covers_once(shape, damaged):
        check_coverage("t", entry(shape, damaged))
    else:
        with pytest.raises(ManifestError, match="'t'"):
            check_coverage("t", entry(shape, damaged))


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=2),
    st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3), st.integers(0, 3), st.integers(0, 3)), max_size=4),
)
def test_any_boxes_agree_with_the_mask(shape: list[int], numbers: list[tuple[int, int, int, int]]) -> None:
    axes = len(shape)
    boxes: list[Box] = [(row[:axes], row[2 : 2 + axes]) for row in numbers]
    whole_and_empty = boxes == [((0,) * axes, tuple(shape))]  # one chunk without elements is how an empty tensor stands
    if covers_once(shape, boxes) or whole_and_empty:
        check_coverage("t", entry(shape, boxes))
    else:
        with pytest.raises(ManifestError):
            check_coverage("t", entry(shape, boxes))


@pytest.mark.parametrize(
    ("shape", "boxes", "whole"),
    [
        ((), [((), ())], True),
        ((), [], False),
        ((), [((), ()), ((), ())], False),
        ((0, 3), [((0, 0), (0, 3))], True),
        ((2, 3), [((), (2, 3))], False),
        ((2, 3), [((0,), (2, 3))], False),
        ((2, 3), [((0, 0, 0), (2, 3))], False),
        ((2, 3), [((0, 0), (6,))], False),
        ((2, 3), [((0, 0), (3, 2))], False),
    ],
)
def test_corners(shape: tuple[int, ...], boxes: list[Box], whole: bool) -> None:
    if whole:
        check_coverage("t", entry(shape, boxes))
    else:
        with pytest.raises(ManifestError):
            check_coverage("t", entry(shape, boxes))


@given(tilings(), st.integers(1, 4))
def test_parts_in_any_order_make_one_checkpoint(tiling: tuple[tuple[int, ...], list[Box]], world_size: int) -> None:
    shape, boxes = tiling
    dealt = [boxes[rank::world_size] for rank in range(world_size)]
    parts = [
        part(rank, world_size, [f"c/x/{rank}-{file}" for file in range(rank + 1)], t=entry(shape, own, file=rank))
        for rank, own in enumerate(dealt)
    ]
    before = [[len(one.tensors["t"].chunks) for one in parts], [len(one.files) for one in parts]]
    merged = [merge_parts(order, save_id=SAVE_ID, world_size=world_size)
              for order in itertools.islice(itertools.permutations(parts), 6)]  # fmt: skip
    assert all(one == merged[0] for one in merged)
    files, tensors = merged[0]
    assert [file.path for file in files] == [file.path for one in parts for file in one.files]
    for rank, own in enumerate(dealt):
        placed = [
            (chunk.offset, chunk.shape)
            for chunk in tensors["t"].chunks
            if files[chunk.file].path == f"c/x/{rank}-{rank}"
        ]
        assert placed == own
    assert before == [[len(one.tensors["t"].chunks) for one in parts], [len(one.files) for one in parts]]


def test_a_missing_rank_is_named() -> None:
    with pytest.raises(RanksMissingError, match=r"\[0, 2\] of 4"):
        merge_parts([part(1, 4), part(3, 4)], save_id=SAVE_ID, world_size=4)


WHOLE = entry((2,), [((0,), (2,))])


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ([part(0, 1), part(0, 1)], "two parts"),
        ([part(0, 1), part(1, 1)], "rank 1's of 1"),
        ([part(0, 1), part(-1, 1)], "rank -1's of 1"),
        ([part(0, 2)], "belongs to save"),
        ([part(0, 2, ["c/a"]), part(1, 2, ["c/a"])], "two ranks wrote c/a"),
        ([part(0, 2, ["c/a"], t=WHOLE), part(1, 2, ["c/b"], t=WHOLE)], "hold 4 of its 2"),
        ([part(0, 2, ["c/a"], t=WHOLE), part(1, 2, ["c/b"], t=entry((3,), [((0,), (1,))]))], r"uint8\[3\]"),
        ([part(0, 2, ["c/a"], t=WHOLE), part(1, 2, t=TensorEntry("int8", (2,), ()))], r"int8\[2\]"),
        ([part(0, 1, ["c/a"], t=entry((2,), [((0,), (1,))]))], "hold 1 of its 2"),
    ],
)
def test_what_does_not_make_a_checkpoint_is_refused(parts: list[Part], problem: str) -> None:
    world_size = 1 if "belongs" in problem else parts[0].world_size
    with pytest.raises(ManifestError, match=problem):
        merge_parts(parts, save_id=SAVE_ID, world_size=world_size)


def test_parts_of_another_save_are_refused() -> None:
    with pytest.raises(ManifestError, match="belongs to save"):
        merge_parts([part(0, 1)], save_id="other", world_size=1)


def test_sizes_on_the_store() -> None:
    files = [FileEntry("c/a", 5, ""), FileEntry("c/b", 0, "")]
    check_sizes(files, {"c/a": 5, "c/b": 0, "c/other": 1})
    with pytest.raises(ManifestError, match="does not list it") as caught:
        check_sizes(files, {"c/a": 5})
    assert caught.value.path == "c/b"
    with pytest.raises(ManifestError, match="4 bytes on the store, 5 were written"):
        check_sizes(files, {"c/a": 4, "c/b": 0})


def test_a_tensor_in_many_chunks_is_checked_quickly() -> None:
    boxes: list[Box] = [((row, column), (1, 100)) for row in range(200) for column in range(0, 1000, 100)]
    check_coverage("t", entry((200, 1000), boxes))


def grid(shape: Sequence[int], cell: Sequence[int]) -> list[Box]:
    """A tensor cut into equal boxes."""
    steps = [range(0, size, length) for size, length in zip(shape, cell, strict=True)]
    return [(offset, tuple(cell)) for offset in itertools.product(*steps)]


# Comparing each with each, or counting the corners of each, would take minutes, and the test's time limit ends that.
LARGE_GRIDS = [((2,) * 14, (1,) * 14), ((100, 100), (1, 1)), ((3, 10, 400, 5), (3, 1, 4, 1))]


@pytest.mark.parametrize(("shape", "cell"), LARGE_GRIDS)
def test_many_chunks_that_split_many_axes(shape: tuple[int, ...], cell: tuple[int, ...]) -> None:
    boxes = grid(shape, cell)
    check_coverage("t", entry(shape, boxes))
    with pytest.raises(ManifestError, match="elements"):
        check_coverage("t", entry(shape, boxes[:-1]))
    offset = ", ".join(map(str, boxes[0][0]))
    with pytest.raises(ManifestError, match=rf"chunks at \[{offset}\] and \[{offset}\] overlap"):
        check_coverage("t", entry(shape, [*boxes[:-1], boxes[0]]))


def test_an_overlap_among_many_chunks_that_begin_apart() -> None:
    boxes = grid((100, 200), (1, 2))
    boxes[5000] = ((50, 1), (1, 2))  # instead of [50, 0]
    with pytest.raises(ManifestError, match=r"chunks at \[50, [12]\] and \[50, [12]\] overlap"):
        check_coverage("t", entry((100, 200), boxes))


def test_an_overlap_that_would_take_too_long_to_name_is_refused_all_the_same() -> None:
    """Every row is cut in two, each at another place: sweeping along the rows meets all first halves at once."""
    rows = 5000
    length = rows + 2
    boxes: list[Box] = [((0, row), (row + 1, 1)) for row in range(rows)]
    boxes += [((row + 1, row), (length - row - 1, 1)) for row in range(rows)]
    check_coverage("t", entry((length, rows), boxes))
    boxes[-1] = ((rows - 1, rows - 1), (2, 1))  # over the end of the first half, and short of the end of the row
    with pytest.raises(ManifestError, match="chunks overlap"):
        check_coverage("t", entry((length, rows), boxes))
