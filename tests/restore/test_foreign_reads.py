"""Parts of other libraries' checkpoints: slices, selections, casts, and targets of every kind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from asyncsaver import Saver, StructureMismatchError, UnreadableTensorError, UnsupportedLeafError

from .foreign_goldens import GOLDENS, blank, leaf

SINGLE = GOLDENS["tensorflow/v2_single/model.ckpt"]
SLICED = GOLDENS["tensorflow/extra/sliced"]
PARTITIONED = GOLDENS["tensorflow/v2_partitioned/model.ckpt"]
MIXED = GOLDENS["dcp/mixed"]


def indices(shape: Sequence[int]) -> Iterator[Any]:
    """Some of every kind that fit a shape."""
    yield ...
    yield ()
    if not shape:
        return
    yield np.s_[:0]
    yield np.s_[1:]
    yield np.s_[::-1]
    yield np.s_[..., ::2]
    if 0 not in shape:
        yield 0
        yield np.s_[..., -1]
        yield (-1,) * len(shape)
        yield tuple(slice(length // 2, length) for length in shape)


@pytest.mark.parametrize(
    "path",
    [
        "tensorflow/v2_single/model.ckpt",  # all dtypes, no axis, no elements
        "tensorflow/v2_partitioned/model.ckpt",
        "tensorflow/extra/sliced",  # strings, too
        "tensorflow/extra/sliced-v1",
        "tensorflow/v1_single/model.ckpt-v1",
        "tensorflow/derived/big_endian",
        "tensorflow/object_based/ckpt-1",  # strings without an axis
        "huggingface/sliced",
        "dcp/mixed",  # transposed
        "dcp/ranks-20",
    ],
)
async def test_slices(memory_root: Any, path: str) -> None:
    golden = GOLDENS[path]
    await golden.put(memory_root)
    async with await golden.open(memory_root) as reader:
        for name in golden.tensors:
            whole = await reader.read(name)
            for index in indices(whole.shape):
                part = await reader.read(name, index)
                expected = np.ascontiguousarray(whole[index])
                assert (part.shape, part.dtype) == (np.shape(whole[index]), whole.dtype), (name, index)
                same = (
                    list(part.flat) == list(expected.flat)
                    if part.dtype == object
                    else part.tobytes() == expected.tobytes()
                )
                assert same, (name, index)
            with pytest.raises(IndexError):
                await reader.read(name, (0,) * (whole.ndim + 1))


async def test_of_a_tensor_in_slices_only_those_are_read_that_are_asked_for(memory_root: Any) -> None:
    """Also where they are to be decoded: the others are missing here, and nobody notices."""
    await SLICED.put(memory_root)
    async with await SLICED.open(memory_root) as reader:
        name = next(name for name, info in reader.tensors.items() if info.dtype_name == "string")
        whole = await reader.read(name)
        entry = reader.source.tensors[name]
        first = entry.chunks[0]
        reader.source.tensors[name] = type(entry)(
            entry.dtype, entry.shape, (first, *[chunk_at(chunk, 2**40) for chunk in entry.chunks[1:]])
        )
        assert list(await reader.read(name, np.s_[: first.shape[0]])) == list(whole[: first.shape[0]])


def chunk_at(chunk: Any, start: int) -> Any:
    return type(chunk)(chunk.offset, chunk.shape, chunk.file, start, start + chunk.stop - chunk.start, chunk.xxh3_128)


async def test_no_such_tensor(memory_root: Any) -> None:
    await SINGLE.put(memory_root)
    async with await SINGLE.open(memory_root) as reader:
        with pytest.raises(KeyError, match="no tensor 'nothing'"):
            await reader.read("nothing")
        assert "nothing" not in reader.tensors
        with pytest.raises(KeyError):
            reader.tensors["nothing"]


async def test_selections(memory_root: Any) -> None:
    await SINGLE.put(memory_root)
    async with await SINGLE.open(memory_root) as reader:
        names = [name for name in reader.tensors if "float32" in name]
        state = await reader.restore(select="*float32*")
        assert list(state) == names
        state = await reader.restore(select=names[:2])
        assert list(state) == names[:2]
        with pytest.raises(StructureMismatchError, match="'float31' selects none"):
            await reader.restore(select="float31")


async def test_casts(memory_root: Any) -> None:
    await SINGLE.put(memory_root)
    async with await SINGLE.open(memory_root) as reader:
        state = await reader.restore(dtype="float64")
        stored = await reader.restore()
        for name, array in state.items():
            floating = reader.tensors[name].dtype_name in {"float16", "bfloat16", "float32", "float64"}
            assert array.dtype == (np.float64 if floating else stored[name].dtype)
            np.testing.assert_array_equal(array, stored[name].astype(array.dtype))
        name = next(name for name, info in reader.tensors.items() if str(info) == "float32[3, 4]")
        target = np.zeros((3, 4), np.float16)
        await reader.restore({name: target}, select=name, dtype="target")
        np.testing.assert_array_equal(target, stored[name].astype(np.float16))


async def test_other_shapes_and_layouts(memory_root: Any) -> None:
    await PARTITIONED.put(memory_root)
    async with await PARTITIONED.open(memory_root) as reader:
        stored = await reader.restore()
        name = next(name for name, info in reader.tensors.items() if str(info) == "float32[10, 4]")
        flat = np.zeros(40, np.float32)
        with pytest.raises(StructureMismatchError, match="reshape=True would reshape it"):
            await reader.restore({name: flat}, select=name)
        assert not flat.any()
        await reader.restore({name: flat}, select=name, reshape=True)
        np.testing.assert_array_equal(flat, stored[name].ravel())
        fortran = np.zeros((10, 4), np.float32, order="F")
        within = np.zeros((20, 8), np.float32)
        for target in (fortran, within[::2, ::2]):
            await reader.restore({name: target}, select=name)
            np.testing.assert_array_equal(target, stored[name])
        assert not within[1::2].any()


async def test_strict(memory_root: Any) -> None:
    await PARTITIONED.put(memory_root)
    async with await PARTITIONED.open(memory_root) as reader:
        target = {name: blank(reader, name) for name in reader.tensors}
        before = {name: array.copy() for name, array in target.items()}
        lost, kept = itertools.islice(target, 2)
        other = {**target, "added": np.zeros(3)}
        del other[lost]
        with pytest.raises(StructureMismatchError) as caught:
            await reader.restore(other)
        assert (caught.value.missing, caught.value.unexpected) == (("added",), (lost,))
        for name, array in target.items():
            np.testing.assert_array_equal(array, before[name])
        restored = await reader.restore(other, strict=False)
        assert restored["added"] is other["added"]
        assert lost not in restored
        PARTITIONED.check(kept, target[kept])


async def test_names_that_were_flat_fill_nested_targets(memory_root: Any) -> None:
    golden = GOLDENS["huggingface/indexed-5"]
    await golden.put(memory_root)
    async with await golden.open(memory_root) as reader:
        target = {"a": blank(reader, "a"), "b": {"c": blank(reader, "b.c")}}
        await reader.restore(target)
    golden.check("a", target["a"])
    golden.check("b.c", target["b"]["c"])  # type: ignore[index]


# --- strings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [2**29, 1], ids=["held", "straight into the target"])
@pytest.mark.parametrize(
    "path", ["tensorflow/extra/sliced", "tensorflow/extra/sliced-v1", "tensorflow/object_based/ckpt-1"]
)
async def test_strings_fill_arrays_of_objects_in_place(memory_root: Any, path: str, budget: int) -> None:
    golden = GOLDENS[path]
    await golden.put(memory_root)
    async with await golden.open(memory_root) as reader:
        reader._root.budget.resize(budget)
        names = [name for name, info in reader.tensors.items() if info.dtype_name == "string"]
        target = {name: blank(reader, name) for name in names}
        restored = await reader.restore(dict(target), select=lambda name: name in target)
    for name, array in target.items():
        assert restored[name] is array
        assert all(type(one) is bytes for one in array.flat)
        golden.check(name, array)


async def test_strings_fit_only_objects_of_their_shape(memory_root: Any) -> None:
    await SLICED.put(memory_root)
    async with await SLICED.open(memory_root) as reader:
        name = next(name for name, info in reader.tensors.items() if info.dtype_name == "string")
        for wrong in (np.zeros(4, "S9"), np.full(3, b"", object), np.zeros(4, np.float32)):
            before = wrong.copy()
            for dtype in (None, "target"):
                with pytest.raises(StructureMismatchError, match="in the checkpoint"):
                    await reader.restore({name: wrong}, select=name, dtype=dtype)
            np.testing.assert_array_equal(wrong, before)
        square = np.full((2, 2), b"", object)
        await reader.restore({name: square}, select=name, reshape=True)
        SLICED.check(name, square.reshape(4))
        readonly = np.full(4, b"before", object)
        readonly.flags.writeable = False
        restored = await reader.restore({name: readonly}, select=name)
        SLICED.check(name, restored[name])
        assert list(readonly) == [b"before"] * 4


async def test_arrays_of_objects_are_not_saved_all_the_same() -> None:
    async with Saver("memory://objects/run") as saver:
        with pytest.raises(UnsupportedLeafError, match="arrays of Python objects"):
            await saver.save({"a": np.full(3, b"", object)})


async def test_objects_that_nothing_decodes_are_not_made_of_bytes(memory_root: Any) -> None:
    """A file's bytes would become references to objects."""
    await SLICED.put(memory_root)
    async with await SLICED.open(memory_root) as reader:
        name = next(name for name, info in reader.tensors.items() if info.dtype_name == "string")
        object.__setattr__(reader.source, "encoding", lambda name, chunk: None)
        with pytest.raises(TypeError, match="nothing says how"):
            await reader.read(name)
        with pytest.raises(TypeError, match="nothing says how"):
            await reader.restore(select=name)


# --- what cannot be read -----------------------------------------------------------------------------------------


async def test_unreadable_tensors_are_listed_and_hinder_no_other(nearby_root: Any) -> None:
    await MIXED.put(nearby_root)
    async with await MIXED.open(nearby_root) as reader:
        assert {*reader.unreadable} == MIXED.unreadable
        for name in MIXED.unreadable:
            with pytest.raises(
                UnreadableTensorError, match=f"1 of the tensors cannot be read; .*\n  {name}: "
            ) as caught:
                await reader.read(name)
            assert caught.value.tensors == (name,)
        target = {name: blank(reader, name) for name in MIXED.tensors}
        before = {name: array.copy() for name, array in target.items()}
        for arguments in ({}, {"target": {**target, "model": {"conj": np.zeros(2, np.complex64)}}, "strict": False}):
            with pytest.raises(UnreadableTensorError, match="select= leaves them out"):
                await reader.restore(**arguments)  # type: ignore[arg-type]
        for name, array in target.items():
            np.testing.assert_array_equal(array, before[name])
        state = await reader.restore(select="optim")
        MIXED.check("optim.state.0.exp_avg", leaf(state, "optim.state.0.exp_avg"))


async def test_a_variant(memory_root: Any) -> None:
    golden = GOLDENS["tensorflow/extra/dtypes"]
    await golden.put(memory_root)
    variant = type(golden)("tensorflow/extra/variant", golden.folder, {})
    async with await variant.open(memory_root) as reader:
        assert str(reader.tensors["list"]) == "variant[]"
        assert list(reader.unreadable) == ["list"]
        assert list(await reader.read("x")) == [1.0, 2.0]
        with pytest.raises(
            UnreadableTensorError, match=r"variant\.index: tensor 'list': TensorFlow's variant has no data"
        ):
            await reader.restore()
        assert list((await reader.restore(select="x"))["x"]) == [1.0, 2.0]
