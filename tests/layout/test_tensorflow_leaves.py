"""What TensorFlow's files hold of a state, and how it comes back."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from asyncsaver import Partitioned, Saver, convert
from asyncsaver.errors import InvalidStateError, StructureMismatchError
from asyncsaver.formats.tensorflow.bundle import decode_index

from ..doubles.world import World  # noqa: TID252 - test folders have no name
from .tensorflow_eyes import in_memory, seen

NUMBERS = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128",
]  # fmt: skip
EXTENDED = ["bfloat16", "float8_e5m2", "float8_e4m3fn", "int4", "uint4"]


def saver_at(url: str, **arguments: Any) -> Saver:
    return Saver(url, format="tensorflow", prefix="m", pad_step_number=False, **arguments)


@pytest.fixture
def url() -> str:
    return World().url


async def test_every_dtype_comes_back_and_is_seen(url: str) -> None:
    arrays: dict[str, Any] = {name: np.ones((2, 3), name) for name in NUMBERS}
    arrays |= {name: np.ones(4, getattr(ml_dtypes, name)) for name in EXTENDED}
    arrays |= {"empty": np.ones((0, 3)), "zero-d": np.array(3), "big endian": np.arange(3, dtype=">i4")}
    arrays["fortran"] = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    async with saver_at(url) as saver:
        await saver.save(arrays, step=1)
        restored = await saver.restore()
        await saver.verify(1)
    for name, array in arrays.items():
        assert restored[name].dtype == array.dtype.newbyteorder("="), name
        assert np.array_equal(restored[name], array), name
    shown = seen(in_memory(url))["m-1"]
    assert shown.keys() == arrays.keys()
    assert np.array_equal(shown["fortran"], arrays["fortran"])


async def test_plain_values_are_scalars_for_tensorflow_and_come_back_as_they_were(url: str) -> None:
    state = {
        "int": 7, "huge": 2**70, "float": 1.5, "nan": float("nan"), "true": True, "text": "ü", "bytes": b"\0\xff",
        "none": None, "list": [1, (2.0, "x")], "scalar": np.float32(2.5), "date": np.datetime64("2030-01-01"),
        "long": b"x" * 5000,
    }  # fmt: skip
    async with saver_at(url) as saver:
        await saver.save(state, step=1)
        restored = await saver.restore()
    assert repr(restored) == repr(state)
    shown = seen(in_memory(url))["m-1"]
    assert shown.keys() == {
        "int", "float", "nan", "true", "text", "bytes", "list.0", "list.1.0", "list.1.1", "scalar", "long",
    }  # fmt: skip
    assert (shown["int"].dtype, shown["float"].dtype, shown["true"].dtype) == (np.int64, np.float64, np.bool_)
    assert (shown["text"][()], shown["bytes"][()]) == ("ü".encode(), b"\0\xff")
    assert (shown["scalar"].dtype, shown["scalar"][()]) == (np.float32, 2.5)


async def test_strings_come_back_as_arrays_of_bytes(url: str) -> None:
    state = {
        "bytes": np.array([[b"a", b""], [b"\0x", b"long" * 100]], object),
        "text": np.array(["é", "z"], object),
        "S": np.array([b"ab", b"c"]),
        "U": np.array(["ab", "ü"]),
        "none": np.array([], object),
    }
    async with saver_at(url) as saver:
        pending = await saver.save_in_background(state, step=1)
        state["bytes"][0, 0] = b"changed"
        await pending
        restored = await saver.restore()
        target = {name: np.empty(array.shape, object) for name, array in state.items()}
        await saver.restore(target)
        await saver.verify(1)
    for got in (restored, target):
        assert got["bytes"].tolist() == [[b"a", b""], [b"\0x", b"long" * 100]]
        assert got["text"].tolist() == ["é".encode(), b"z"]
        assert got["S"].tolist() == [b"ab", b"c"]
        assert got["U"].tolist() == [b"ab", "ü".encode()]
        assert got["none"].shape == (0,)
    assert all(array.dtype == object for array in restored.values())


async def test_names_are_paths_and_may_have_slashes(url: str) -> None:
    state = {"layer1/kernel": np.ones(2), "model": {"a": np.zeros(1), "b": [np.ones(1)]}}
    async with saver_at(url) as saver:
        await saver.save(state, step=1)
        assert (await saver.restore(select="layer1/*")).keys() == {"layer1/kernel"}
    assert list(seen(in_memory(url))["m-1"]) == ["layer1/kernel", "model.a", "model.b.0"]


async def test_items_041_and_042_tensors_in_slices_are_sliced_entries(url: str) -> None:
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    rows = Partitioned(whole.shape, [((0, 0), whole[:1].copy()), ((1, 0), whole[1:].copy())])
    blocks = Partitioned(
        whole.shape, [((0, 0), whole[:, :2].copy()), ((0, 2), whole[:2, 2:].copy()), ((2, 2), whole[2:, 2:].copy())]
    )
    alone = Partitioned(whole.shape, [((0, 0), whole.copy())])
    async with saver_at(url) as saver:
        pending = await saver.save_in_background({"rows": rows, "blocks": blocks, "alone": alone}, step=1)
        rows.slices[0].array[:] = -1
        await pending
        restored = await saver.restore()
        await saver.verify(1)
    assert all(np.array_equal(restored[name], whole) for name in ("rows", "blocks", "alone"))
    index = decode_index(in_memory(url)["m-1.index"], "m-1.index")
    assert index.entries["rows"].slices == (((0, 1), (0, -1)), ((1, 3), (0, -1)))
    assert len(index.entries["blocks"].slices) == 3
    assert index.entries["alone"].slices == ()
    assert np.array_equal(seen(in_memory(url))["m-1"]["blocks"], whole)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (np.ones(2, "M8[s]"), "TensorFlow has no <M8"),
        (np.ones(2, "V3"), "TensorFlow has no"),
        (np.array([1, "x"], object), "bytes or str only, not int"),
        (np.ones(2, ml_dtypes.float8_e8m0fnu), "TensorFlow has no float8_e8m0fnu"),
    ],
    ids=["dates", "void", "objects", "float8"],
)
async def test_what_tensorflow_has_no_type_for_is_refused_by_name(url: str, leaf: Any, message: str) -> None:
    async with saver_at(url) as saver:
        with pytest.raises(InvalidStateError, match=f"(?s)wrong.leaf.*{message}"):
            await saver.save({"fine": np.ones(2), "wrong": {"leaf": leaf}}, step=1)
    assert not in_memory(url)


@pytest.mark.parametrize(
    ("name", "message"), [("\0x", "TensorFlow's index has no place"), ("lone \ud800", "lone surrogates")]
)
async def test_names_that_tensorflow_cannot_hold_are_refused(url: str, name: str, message: str) -> None:
    async with saver_at(url) as saver:
        with pytest.raises(InvalidStateError, match=message):
            await saver.save({name: np.ones(2)}, step=1)
    assert not in_memory(url)


async def test_a_target_that_does_not_fit_is_left_alone(url: str) -> None:
    async with saver_at(url) as saver:
        await saver.save({"a": np.ones(2), "n": 1}, step=1)
        target = {"a": np.zeros(3), "n": 0}
        with pytest.raises(StructureMismatchError, match="a: "):
            await saver.restore(target)
        assert not target["a"].any()


async def test_a_state_without_arrays(url: str) -> None:
    async with saver_at(url) as saver:
        await saver.save({}, step=1)
        assert await saver.restore() == {}
        await saver.save({"n": 1}, step=2, metrics={"loss": 0.5}, metadata={"git": "x"})
        latest = await saver.latest()
        assert latest is not None
        assert (latest.metrics, latest.metadata) == ({"loss": 0.5}, {"git": "x"})
        assert await saver.restore() == {"n": 1}
    assert seen(in_memory(url)).keys() == {"m-1", "m-2"}


async def test_it_converts_into_a_native_checkpoint(url: str) -> None:
    async with saver_at(url) as saver:
        await saver.save({"a": np.ones(2), "n": 1}, step=1)
    target = f"{World().url}/ckpt-00000001"
    await convert(f"{url}/m-1", target)
    async with Saver(target.rpartition("/")[0]) as native:
        restored = await native.restore()
    assert np.array_equal(restored["a"], np.ones(2))
    assert restored["n"] == 1
