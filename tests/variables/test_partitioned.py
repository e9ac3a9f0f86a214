"""One tensor held in slices: what is refused, and that it is a leaf like any other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver import Partitioned, Saver, StructureMismatchError, UnsupportedLeafError, open_checkpoint
from asyncsaver.model.leaves import Adapters
from asyncsaver.variables import bind

from .through import restore, restore_from

GOLDEN = Path(__file__).parents[1] / "golden" / "tensorflow"
WHOLE = np.arange(40, dtype="f4").reshape(10, 4)


def cut(array: Any, edges: Sequence[int], axis: int = 0) -> Partitioned:
    """Copies of what lies between edges along an axis."""
    index = (slice(None),) * axis
    return Partitioned.joined([array[(*index, slice(*pair))].copy() for pair in pairwise(edges)], axis)


PARTITIONS: dict[str, Callable[[Any], Any]] = {
    "none": lambda array: array.copy(),
    "3": lambda array: cut(array, [0, 4, 7, 10]),
    "4": lambda array: cut(array, [0, 3, 6, 8, 10]),
    "2axis1": lambda array: cut(array, [0, 2, 4], 1),
    "5axis": lambda array: cut(array, [0, 2, 4, 6, 8, 10]),
}


def joined(value: Any) -> Any:
    return Adapters.discover().find(value).to_numpy(value)  # type: ignore[union-attr]


@pytest.mark.parametrize("target", ["none", "3", "4", "2axis1"])
@pytest.mark.parametrize("source", ["none", "3", "2axis1", "5axis"])
async def test_items_041_and_042_every_pair_of_partitions_restores(source: str, target: str, saver: Saver) -> None:
    await saver.save({"model": {"w": PARTITIONS[source](WHOLE)}}, step=1)
    into = PARTITIONS[target](np.zeros_like(WHOLE))
    arrays = [part.array for part in into.slices] if isinstance(into, Partitioned) else [into]
    restored = await saver.restore({"model": {"w": into}})
    assert restored["model"]["w"] is into
    assert all(part.array is array for part, array in zip(getattr(into, "slices", ()), arrays, strict=False))
    assert np.array_equal(joined(into), WHOLE)
    bound = bind({"model.w": PARTITIONS[target](np.zeros_like(WHOLE))}, Adapters.discover())
    await restore(saver, bound)
    assert np.array_equal(joined(bound.state()["model.w"]), WHOLE)


async def test_item_041_a_partitioned_tensor_is_whole_on_storage(saver: Saver) -> None:
    await saver.save({"w": PARTITIONS["3"](WHOLE)}, step=1)
    restored = await saver.restore()
    assert type(restored["w"]) is np.ndarray
    assert np.array_equal(restored["w"], WHOLE)
    async with await saver.open() as reader:
        assert reader.tensors["w"].shape == (10, 4)
        assert np.array_equal(await reader.read("w", (slice(3, 9), 1)), WHOLE[3:9, 1])


async def test_item_041_a_background_save_copies_it_and_keeps_its_slices(saver: Saver) -> None:
    tensor = PARTITIONS["3"](WHOLE)
    pending = await saver.save_in_background({"w": tensor}, step=1)
    for part in tensor.slices:
        part.array[...] = -1
    await pending
    assert np.array_equal((await saver.restore())["w"], WHOLE)


def test_item_041_slices_of_a_copy_are_views_of_it(adapters: Adapters) -> None:
    copy = WHOLE.copy()
    tensor = PARTITIONS["2axis1"](np.zeros_like(WHOLE)).over(copy)
    assert [(part.offset, part.shape) for part in tensor.slices] == [((0, 0), (10, 2)), ((0, 2), (10, 2))]
    assert all(np.shares_memory(part.array, copy) for part in tensor.slices)
    adapter = adapters.find(tensor)
    assert adapter is not None
    assert adapter.to_numpy(tensor) is copy


@pytest.mark.parametrize("name", ["p/axis0", "p/axis1", "p/bool8", "p/f64_axis2", "p/i64", "p/one", "p/r1", "plain"])
@pytest.mark.parametrize("through", ["tensorflow", "native"])
async def test_items_041_and_042_what_tensorflow_partitioned_restores_into_slices(
    through: str, name: str, saver: Saver, adapters: Adapters
) -> None:
    listed = json.loads((GOLDEN / "v2_partitioned/model.ckpt.json").read_text())["tensors"][name]
    async with await open_checkpoint(GOLDEN / "v2_partitioned/model.ckpt", format="tensorflow") as reader:
        chunks = reader.source.tensors[name].chunks
        zeros = [(chunk.offset, np.zeros(chunk.shape, listed["dtype"])) for chunk in chunks]
        into = Partitioned(listed["shape"], zeros)
        bound = bind({name: into}, adapters)
        await restore_from(reader, bound)
    if through == "native":  # and on through a checkpoint of ours
        await saver.save(bound.state(), step=1)
        into = Partitioned(listed["shape"], [(offset, np.zeros_like(array)) for offset, array in zeros])
        await restore(saver, bind({name: into}, adapters))
    assert sha256(joined(into).tobytes()).hexdigest() == listed["sha256"]


async def test_item_041_a_mismatch_changes_no_slice(saver: Saver) -> None:
    await saver.save({"w": WHOLE}, step=1)
    into = cut(np.zeros((10, 5), "f4"), [0, 5, 10])
    with pytest.raises(StructureMismatchError, match=re.escape("w: float32[10, 4] in the checkpoint, float32[10, 5]")):
        await saver.restore({"w": into})
    assert not joined(into).any()


async def test_item_041_it_reshapes_and_casts_like_an_array(saver: Saver) -> None:
    await saver.save({"w": WHOLE}, step=1)
    into = cut(np.zeros(40), [0, 7, 40])
    await saver.restore({"w": into}, reshape=True, dtype="target")
    assert np.array_equal(joined(into), WHOLE.reshape(-1))


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ([((0, 0), WHOLE[:6]), ((5, 0), WHOLE[5:])], "the slices [0:6, 0:4] and [5:10, 0:4] overlap"),
        ([((0, 0), WHOLE[:6]), ((0, 0), WHOLE[:6])], "the slices [0:6, 0:4] and [0:6, 0:4] overlap"),
        ([((0, 0), WHOLE[:6]), ((7, 0), WHOLE[7:])], "no slice holds [6:7, 0:4]; there are [0:6, 0:4], [7:10, 0:4]"),
        ([((0, 0), WHOLE[:, :3])], "no slice holds [0:10, 3:4]; there are [0:10, 0:3]"),
        ([((0, 0), WHOLE[:9]), ((5, 3), WHOLE[:5, :1])], "the slices [0:9, 0:4] and [5:10, 3:4] overlap"),
        ([((1, 0), WHOLE)], "the slice [1:11, 0:4] holds nothing, or reaches outside"),
        ([((-1, 0), WHOLE)], "the slice [-1:9, 0:4] holds nothing, or reaches outside"),
        ([((0, 0), WHOLE), ((0, 0), WHOLE[:0])], "the slice [0:0, 0:4] holds nothing, or reaches outside"),
        ([((0,), WHOLE)], "a slice at [0] of shape [10, 4] has another number of axes"),
        ([((0, 0), WHOLE.reshape(-1))], "a slice at [0, 0] of shape [40] has another number of axes"),
        ([], "needs at least one slice"),
    ],
)
def test_item_041_slices_cover_the_tensor_exactly_once(slices: Any, message: str) -> None:
    with pytest.raises(
        ValueError, match=re.escape("a partitioned tensor of shape [10, 4]") + ".*" + re.escape(message)
    ):
        Partitioned((10, 4), slices)


@pytest.mark.parametrize(
    ("shape", "slices", "error"),
    [
        ((-1, 4), [((0, 0), WHOLE)], ValueError),
        ((10, 4), [((0, 0), [1, 2])], TypeError),
        ((10, 4), [((0, 0), Partitioned((10, 4), [((0, 0), WHOLE)]))], TypeError),
        ((10.0, 4), [((0, 0), WHOLE)], TypeError),
        ((10, 4), [((0.0, 0), WHOLE)], TypeError),
    ],
)
def test_item_041_what_is_no_partitioned_tensor(shape: Any, slices: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Partitioned(shape, slices)


def test_item_041_arrays_are_joined_along_an_axis() -> None:
    tensor = Partitioned.joined([WHOLE[:, :1], WHOLE[:, 1:]], axis=1)
    assert tensor.shape == (10, 4)
    assert [part.offset for part in tensor.slices] == [(0, 0), (0, 1)]
    assert repr(tensor) == "<Partitioned [10, 4] in 2 slices>"
    for arrays, axis in (([], 0), ([WHOLE], 2), ([WHOLE], -1), ([np.zeros(())], 0)):
        with pytest.raises(ValueError, match="no arrays with an axis"):
            Partitioned.joined(arrays, axis)
    with pytest.raises(ValueError, match="cannot be joined along axis 0"):
        Partitioned.joined([WHOLE, WHOLE[:, :3]])
    with pytest.raises(TypeError, match="not a value of type str"):
        Partitioned.joined(["ab"])


@pytest.mark.parametrize("shape", [(), (0, 4)])
def test_item_041_one_slice_may_be_all_there_is(shape: tuple[int, ...], adapters: Adapters) -> None:
    tensor = Partitioned(shape, [((0,) * len(shape), np.ones(shape))])
    assert np.array_equal(joined(tensor), np.ones(shape))
    adapter = adapters.find(tensor)
    assert adapter is not None
    assert adapter.fill(tensor, np.full(shape, 7.0)) is tensor
    assert np.array_equal(tensor.slices[0].array, np.full(shape, 7.0))


async def test_item_041_slices_of_other_kinds_are_named(saver: Saver) -> None:
    class Shaped:
        shape = (2,)

    for second, message in (
        (np.zeros(2, "f8"), r"p: the slices \[0:2\] and \[2:4\] have different dtypes: float32 and float64"),
        (np.ma.zeros(2, "f4"), r"p: the slice \[2:4\]: the mask of a masked array"),
        (Shaped(), r"p: the slice \[2:4\]: it is no array, but a value of type Shaped"),
    ):
        with pytest.raises(UnsupportedLeafError, match=message):
            await saver.save({"p": Partitioned((4,), [((0,), np.zeros(2, "f4")), ((2,), second)])}, step=1)
    assert await saver.checkpoints() == []


def test_item_041_a_slice_whose_shape_has_changed_is_noticed(adapters: Adapters) -> None:
    array = np.zeros(2)
    tensor = Partitioned((2,), [((0,), array)])
    array.resize(3, refcheck=False)
    adapter = adapters.find(tensor)
    assert adapter is not None
    with pytest.raises(UnsupportedLeafError, match=r"the slice \[0:2\] has another shape now: \[3\]"):
        adapter.describe(tensor)


def test_item_041_what_cannot_be_filled_is_replaced(adapters: Adapters) -> None:
    fixed, open_ = np.zeros(2), np.zeros(2)
    fixed.flags.writeable = False
    tensor = Partitioned.joined([fixed, open_])
    adapter = adapters.find(tensor)
    assert adapter is not None
    assert not adapter.is_fillable(tensor)
    filled = adapter.fill(tensor, np.arange(4.0))
    assert filled is not tensor
    assert filled.slices[1].array is open_
    assert np.array_equal(joined(filled), np.arange(4.0))
    assert not fixed.any()


def test_item_041_a_new_one_has_the_slices_of_the_one_that_it_is_like(adapters: Adapters) -> None:
    adapter = adapters.by_kind("partitioned")
    assert adapter is not None
    array = np.arange(4.0)
    assert adapter.from_numpy(array) is array
    made = adapter.from_numpy(array, Partitioned.joined([array[:1], array[1:]]))
    assert [part.array.tolist() for part in made.slices] == [[0], [1, 2, 3]]
    assert adapter.writable_view(made) is None
    assert adapter.check_object(made, {}) is None
    assert not adapter.is_immutable(made)


async def test_item_041_slices_may_be_tensors_of_pytorch(saver: Saver) -> None:
    torch = pytest.importorskip("torch")
    source = Partitioned.joined([torch.ones(2, 3, dtype=torch.bfloat16), torch.zeros(1, 3, dtype=torch.bfloat16)])
    await saver.save({"w": source}, step=1)
    view = torch.zeros(6, 2, dtype=torch.bfloat16)
    into = Partitioned((3, 3), [((0, 0), view[:3, :1]), ((0, 1), view[3:])])
    restored = await saver.restore({"w": into})
    assert restored["w"] is into
    assert view[:3, 0].tolist() == view[3:, 0].tolist() == view[3:, 1].tolist() == [1, 1, 0]
    assert not view[:3, 1].any()


async def test_item_041_slices_of_jax_are_replaced(saver: Saver) -> None:
    jax = pytest.importorskip("jax")
    source = Partitioned.joined([jax.numpy.ones(2), jax.numpy.zeros(1)])
    await saver.save({"w": source}, step=1)
    into = Partitioned.joined([jax.numpy.zeros(1), jax.numpy.zeros(2)])
    restored = (await saver.restore({"w": into}))["w"]
    assert isinstance(restored.slices[0].array, jax.Array)
    assert joined(restored).tolist() == [1, 1, 0]
    assert joined(into).tolist() == [0, 0, 0]


@st.composite
def boxes(draw: st.DrawFn) -> tuple[tuple[int, ...], list[tuple[tuple[int, int], ...]]]:
    """A shape, and boxes that cover it exactly once, by cutting it again and again."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    whole: list[tuple[tuple[int, int], ...]] = [tuple((0, size) for size in shape)]
    for _ in range(draw(st.integers(0, 6))):
        number = draw(st.integers(0, len(whole) - 1))
        box, axis = whole[number], draw(st.integers(0, len(shape) - 1))
        start, stop = box[axis]
        if stop - start > 1:
            at = draw(st.integers(start + 1, stop - 1))
            halves = [(*box[:axis], half, *box[axis + 1 :]) for half in ((start, at), (at, stop))]
            whole[number : number + 1] = halves
    return shape, draw(st.permutations(whole))


def sliced(boxes: Sequence[tuple[tuple[int, int], ...]], array: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    for box in boxes:
        yield tuple(start for start, _ in box), array[tuple(slice(*edges) for edges in box)].copy()


@given(boxes(), st.data())
def test_item_041_any_partition_is_accepted_and_any_damage_to_it_refused(
    case: tuple[tuple[int, ...], list[tuple[tuple[int, int], ...]]], data: st.DataObject
) -> None:
    shape, whole = case
    array = np.arange(np.prod(shape)).reshape(shape)
    tensor = Partitioned(shape, sliced(whole, array))
    assert np.array_equal(joined(tensor), array)
    other = np.zeros_like(array)
    into = Partitioned(shape, sliced(whole, other))
    Adapters().find(into).fill(into, array)  # type: ignore[union-attr]
    assert np.array_equal(joined(into), array)
    number = data.draw(st.integers(0, len(whole) - 1))
    without = [*whole[:number], *whole[number + 1 :]]
    with pytest.raises(ValueError, match=r"no slice holds|needs at least one"):
        Partitioned(shape, sliced(without, array))
    with pytest.raises(ValueError, match="overlap"):
        Partitioned(shape, sliced([*whole, whole[number]], array))
