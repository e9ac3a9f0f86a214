"""V1 files that are written: byte for byte TensorFlow's, within little memory, and refused where V1 has no way to say it."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from asyncsaver.errors import InvalidStateError
from asyncsaver.formats.tensorflow.dtypes import NUMBERS, STRING, TYPES, type_of
from asyncsaver.formats.tensorflow.messages import shape_message, slice_message
from asyncsaver.formats.tensorflow.ordered_code import FULL, Slice, slice_key
from asyncsaver.formats.tensorflow.table import write_table
from asyncsaver.formats.tensorflow.v1_values import FIELDS
from asyncsaver.formats.tensorflow.v1_write import Elements, V1Tensor, check_v1, plan_v1
from asyncsaver.formats.tensorflow.varint import pack_varints, packed_size
from asyncsaver.proto import tensorflow_checkpoint_pb2 as messages

from .checkpoints import GOLDEN
from .v1_states import many_blocks

MIB = 2**20
Array = np.ndarray[Any, np.dtype[Any]]


def whole(name: str, array: Array) -> V1Tensor:
    dtype = "string" if array.dtype == object else array.dtype.name
    return V1Tensor(name, dtype, array.shape, [((FULL,) * array.ndim, array)])


def never() -> Array:
    raise AssertionError("nobody needs the elements")


def by_protobuf(tensors: Sequence[V1Tensor]) -> bytes:
    """A V1 file as protobuf and the writer of small tables make it, from arrays in memory."""
    tensors = sorted(tensors, key=lambda tensor: tensor.name.encode())
    listed = [
        messages.SavedSliceMeta(
            name=tensor.name.encode(),
            shape=shape_message(tensor.shape),
            type=NUMBERS[tensor.dtype],
            slice=[slice_message(extents) for extents, _ in tensor.slices],
        )
        for tensor in tensors
    ]
    meta = messages.SavedTensorSliceMeta(tensor=listed, versions=messages.VersionDef(producer=1))
    pairs = [(b"", messages.SavedTensorSlices(meta=meta).SerializeToString())]
    for tensor in tensors:
        for extents, array in tensor.slices:
            assert isinstance(array, np.ndarray)
            saved = messages.SavedSlice(
                name=tensor.name.encode(), slice=slice_message(extents), data=values(array, NUMBERS[tensor.dtype])
            )
            pairs.append(
                (slice_key(tensor.name.encode(), extents), messages.SavedTensorSlices(data=saved).SerializeToString())
            )
    return b"".join(write_table(sorted(pairs)))


def values(array: Array, number: int) -> messages.TensorProto:
    flat = np.ascontiguousarray(array).reshape(-1)
    flat = flat.astype(flat.dtype.newbyteorder("<"))
    if number == STRING:
        runs = list(flat)
    elif FIELDS[number].fixed:
        runs = [flat.tobytes()]
    else:
        runs = [pack_varints(flat.view(np.uint16) if number == NUMBERS["float16"] else flat)]
    return messages.TensorProto(**{FIELDS[number].name: runs if flat.size else []})


@st.composite
def tensor(draw: st.DrawFn, name: str) -> V1Tensor:
    number = draw(st.sampled_from(sorted(FIELDS)))
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6))
    if number == STRING:
        count = int(np.prod(shape))
        array = np.empty(count, object)
        array[:] = draw(st.lists(st.binary(max_size=200), min_size=count, max_size=count))
        array = array.reshape(shape)
    else:
        dtype = TYPES[number].dtype
        array = draw(arrays.arrays(draw(st.sampled_from([dtype, dtype.newbyteorder(">")])), shape))
    if shape and shape[0] > 1 and draw(st.booleans()):
        cut = draw(st.integers(1, shape[0] - 1))
        rest: Slice = tuple([draw(st.sampled_from([FULL, (0, size)])) if size else FULL for size in shape[1:]])
        slices: list[tuple[Slice, Elements]] = [
            (((0, cut), *rest), array[:cut]),
            (((cut, shape[0] - cut), *rest), array[cut:]),
        ]
    else:
        slices = [((FULL,) * len(shape), array.T.copy().T)]  # not always contiguous
    return V1Tensor(name, type_of(number).name, shape, slices)


@settings(max_examples=150)
@given(st.data())
def test_files_are_as_protobuf_makes_them(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), unique=True, max_size=5))
    tensors = [data.draw(tensor(name)) for name in names]
    plan = plan_v1(tensors)
    written = b"".join(plan.pieces())
    assert written == by_protobuf(tensors)
    assert plan.size == len(written)
    assert b"".join(plan.pieces()) == written


def test_many_blocks_are_as_tensorflow_makes_them() -> None:
    golden = json.loads((GOLDEN / "v1_blocks.json").read_text())
    plan = plan_v1([whole(name, array) for name, array in many_blocks().items()])
    written = b"".join(plan.pieces())
    assert plan.size == len(written) == golden["size"]
    assert hashlib.sha256(written).hexdigest() == golden["sha256"]


def test_a_shard_is_as_tensorflow_makes_it() -> None:
    """The state of which TensorFlow's saver wrote two shards; see make_tensorflow_kinds.py."""
    shards: list[dict[str, Array]] = [
        {"a": np.array([1, 2, 3, 4], np.float32), "c": np.arange(6, dtype=np.int32).reshape(2, 3)},
        {"b": np.array([5], np.float32), "s": np.array(1.5, np.float32)},
    ]
    for number, shard in enumerate(shards):
        written = b"".join(plan_v1([whole(name, array) for name, array in shard.items()]).pieces())
        assert written == (GOLDEN / f"kinds/v1_sharded-{number:05d}-of-00002").read_bytes()


@pytest.mark.parametrize("dtype", sorted(NUMBERS.keys() - {TYPES[number].name for number in FIELDS}))
def test_what_v1_does_not_have_is_refused_by_name(dtype: str) -> None:
    """As TensorFlow's op does, but for narrow types before anything is written."""
    tensors = [whole("good", np.zeros(3)), V1Tensor("model/w", dtype, (3,), [((FULL,), never)])]
    with pytest.raises(InvalidStateError, match=rf"model/w: TensorFlow's V1 format cannot hold {dtype}; V2 can"):
        check_v1(tensors)
    with pytest.raises(ValueError, match="model/w"):
        plan_v1(tensors)


def test_what_v1_has() -> None:
    assert {type_of(number).name for number in FIELDS} == {
        "float32", "float64", "int32", "uint8", "int16", "int8", "string", "complex64", "int64", "bool", "qint8", "quint8",
        "qint32", "uint16", "complex128", "float16",
    }  # fmt: skip


def test_a_slice_that_no_message_can_hold_is_refused() -> None:
    fits = V1Tensor("w", "float32", (2**29 - 16,), [((FULL,), never)])
    assert plan_v1([fits]).size > 2**31 - 200
    with pytest.raises(
        InvalidStateError, match=r"w: float32\[536870912\] takes 21474836\d\d bytes .* in slices, or as V2"
    ):
        plan_v1([V1Tensor("w", "float32", (2**29,), [((FULL,), never)])])
    halves: list[tuple[Slice, Elements]] = [(((0, 2**28),), never), (((2**28, 2**28),), never)]
    assert plan_v1([V1Tensor("w", "float32", (2**29,), halves)]).size > 2**31
    strings = np.empty(2, object)
    strings[:] = [bytes(2**30)] * 2
    with pytest.raises(InvalidStateError, match=r"s: string\[2\] takes 2147483\d\d\d bytes"):
        plan_v1([whole("s", strings)])


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ([whole("w", np.zeros(3)), whole("w", np.zeros(3))], "only once"),
        ([V1Tensor("w", "float32", (4,), [(((0, 2),), never), (((0, 2),), never)])], "only once"),
        ([V1Tensor("w", "float32", (4,), [(((2, 3),), never)])], "is not within"),
        ([V1Tensor("w", "float32", (4,), [((FULL, FULL), never)])], "a slice has 2 axes"),
    ],
)
def test_impossible_tensors_are_refused(tensors: Sequence[V1Tensor], why: str) -> None:
    with pytest.raises(InvalidStateError, match=f"w: .*{why}"):
        plan_v1(tensors)


@pytest.mark.parametrize("size", [0, 4, 6])
def test_arrays_of_another_size_than_planned(size: int) -> None:
    plan = plan_v1([V1Tensor("w", "float64", (5,), [((FULL,), np.zeros(size))])])
    with pytest.raises(RuntimeError, match=f"w: where 5 elements were planned, there are {size}"):
        list(plan.pieces())
    with pytest.raises(RuntimeError, match=f"w: where 5 elements were planned, there are {size}"):
        plan_v1([V1Tensor("w", "uint8", (5,), [((FULL,), np.zeros(size, np.uint8))])])


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_arrays_of_another_dtype_than_planned(dtype: type) -> None:
    plan = plan_v1([V1Tensor("w", "float64", (5,), [((FULL,), np.zeros(5, dtype))])])
    with pytest.raises(RuntimeError, match="w: the tensor has changed"):
        list(plan.pieces())


def test_integers_that_take_more_room_when_they_are_written() -> None:
    array = np.zeros(1000, np.int32)
    plan = plan_v1([whole("w", array)])
    array[5] = -1
    with pytest.raises(RuntimeError, match="w: the tensor has changed"):
        list(plan.pieces())


def test_large_arrays_are_passed_on_as_they_lie_in_memory() -> None:
    array = np.arange(MIB, dtype=np.float64)
    pieces = list(plan_v1([whole("w", array)]).pieces())
    assert any(
        np.shares_memory(np.frombuffer(piece, np.uint8), array) for piece in pieces if len(piece) == array.nbytes
    )


def test_one_tensor_is_held_at_a_time() -> None:
    """Of tensors that are only made when asked for, as copies of a device's memory are."""
    held = most = 0

    def let_go() -> None:
        nonlocal held
        held -= 1

    def make(dtype: str) -> Array:
        nonlocal held, most
        array = np.ones(MIB, dtype)
        weakref.finalize(array, let_go)
        held += 1
        most = max(most, held)
        return array

    kinds = ["float64", "int32", "uint8", "float16", "complex64"]
    tensors = [
        V1Tensor(f"{number}", dtype, (MIB,), [((FULL,), lambda dtype=dtype: make(dtype))])
        for number, dtype in enumerate(kinds * 2)
    ]
    plan = plan_v1(tensors)
    assert held == 0
    for piece in plan.pieces():
        del piece
    assert (held, most) == (0, 1)


def test_integers_are_encoded_by_and_by() -> None:
    """Ten bytes each, without ever having all of them."""
    array = np.full(4 * MIB, -1, np.int8)
    plan = plan_v1([whole("w", array)])
    assert plan.size > 40 * MIB
    tracemalloc.start()
    try:
        total = 0
        for piece in plan.pieces():
            total += len(piece)
            del piece
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == plan.size
    assert peak < 24 * MIB


@given(arrays.arrays(st.sampled_from(["i1", "u1", "i4", "u2", "i8", "u8", "?"]), st.integers(0, 50)))
def test_the_size_of_packed_integers_is_known_before(array: Array) -> None:
    assert packed_size(array) == len(pack_varints(array))
