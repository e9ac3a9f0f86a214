"""The reader of pickles: plain data are what `pickle` reads, and nothing is ever imported or called."""

from __future__ import annotations

import collections
import math
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.errors import ManifestError
from asyncsaver.formats.dcp.pickles import Global, Record, read_pickle

from .pickle_writer import Code, called, made, named, pickled, write


def read(data: bytes, *admitted: str) -> Any:
    return read_pickle(data, admitted.__contains__, "f")


def same(one: Any, other: Any) -> bool:
    """Equal, NaN included, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    return one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


integers = st.integers(-(2**63), 2**63 - 1)
plain = st.recursive(
    st.none() | st.booleans() | integers | st.floats() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.integers(-5, 5), inner, max_size=4
        )
    ),
    max_leaves=30,
)


@given(plain, st.sampled_from([2, 3, 4, 5]))
def test_plain_values_are_what_pickle_reads(value: Any, protocol: int) -> None:
    assert same(read(pickle.dumps(value, protocol)), value)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_bytes_and_shared_and_long_things(protocol: int) -> None:
    shared = ["x" * 300, b"\x00" * 70_000]
    value = {"a": [shared] * 3, "b": (shared,), "c": list(range(3000))}
    found = read(pickle.dumps(value, protocol))
    assert found == value
    assert found["a"][0] is found["b"][0]


def test_ordered_dicts_and_cycles() -> None:
    assert read(pickle.dumps(collections.OrderedDict(a=1), 2), "collections:OrderedDict") == {"a": 1}
    cycle: list[Any] = []
    cycle.append(cycle)
    found = read(pickle.dumps(cycle, 2))
    assert found[0] is found
    around: Any = ([],)
    around[0].append(around)  # for which pickle throws away what it has begun
    found = read(pickle.dumps(around, 4))
    assert found[0][0] is found


def test_globals_objects_and_calls_are_names_only() -> None:
    found = read(pickled([named("m", "f"), called("m", "f", 1, "x"), made("m", "C", {"a": None})]), "m:f", "m:C")
    assert found[0] == Global("m:f")
    assert [type(one) for one in found[1:]] == [Record, Record]
    assert [(one.kind, one.args, one.state) for one in found[1:]] == [("m:f", (1, "x"), None), ("m:C", (), {"a": None})]


class Evil:
    """Pickles to a call."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_nothing_is_called(tmp_path: Path, protocol: int) -> None:
    made_by_evil = tmp_path / "evil"
    import os  # noqa: PLC0415 - only to be pickled

    evils = [
        Evil(os.system, (f"touch {made_by_evil}",)),
        Evil(os.mkdir, (str(made_by_evil),)),
        Evil(eval, (f"open({str(made_by_evil)!r}, 'w')",)),
        Evil(exec, (f"open({str(made_by_evil)!r}, 'w')",)),
        Evil(getattr, ("os", "system")),
        Evil(__import__, ("os",)),
        Evil(Evil, (Evil(os.mkdir, (str(made_by_evil),)),)),
    ]
    for evil in evils:
        for value in (evil, [evil], {"a": (evil, 1)}):
            data = pickle.dumps(value, protocol)
            with pytest.raises(
                ManifestError, match=r"it names '.*', which is not among|not a pickle of such a file"
            ) as caught:
                read(data, "collections:OrderedDict")
            assert len(str(caught.value)) < 500
    assert not made_by_evil.exists()


@pytest.mark.parametrize("name", ["os.system", "Size.__class__", "_utils._rebuild_tensor_v2"])
def test_names_with_dots_lead_nowhere(name: str) -> None:
    with pytest.raises(ManifestError, match="which is not among"):
        read(pickled(named("torch", name)), "torch:Size", "torch._utils:_rebuild_tensor_v2")


LONG = struct.pack("<I", 2**31 - 1)
HUGE = struct.pack("<Q", 2**62)
BAD: dict[str, bytes] = {
    "empty": b"",
    "no end": b"\x80\x04N",
    "two values": b"\x80\x04NN.",
    "an open mark": b"\x80\x04N(.",
    "a mark that is missing": b"\x80\x04Nt.",
    "a stack that is empty": b"\x80\x04a.",
    "a memo that is empty": b"\x80\x04h\x00.",
    "another protocol": b"\x80\x06N.",
    "a string cut off": b"\x80\x04X\x05\x00\x00\x00ab.",
    "a string of gigabytes": b"\x80\x04X" + LONG + b".",
    "bytes of exabytes": b"\x80\x04\x8e" + HUGE + b".",
    "a bytearray of exabytes": b"\x80\x05\x96" + HUGE + b".",
    "an integer of gigabytes": b"\x80\x04\x8b" + LONG + b".",
    "an integer of 255 bytes": b"\x80\x04\x8a\xff" + b"\x7f" * 255 + b".",
    "decimal digits": b"I" + b"9" * 100_000 + b"\n.",
    "lone surrogates": b"\x80\x04X\x03\x00\x00\x00\xed\xa0\x80.",
    "a name without an end": b"\x80\x02c" + b"x" * 1000,
    "a class from a registry": b"\x80\x02\x82\x01.",
    "a class with keywords": b"\x80\x04]))}\x92.",
    "items for None": b"\x80\x04NNa.",
    "items for a dict": b"\x80\x04}Na.",
    "a key without a value": b"\x80\x04}(Nu.",
    "a list as a key": b"\x80\x04}]Ns.",
    "a tuple as a key": b"\x80\x04})Ns.",
    "None as a key": b"\x80\x04}NNs.",
    "a large key": pickled(Code(b"}" + write(2**61 - 1) + b"Ns")),
    "a call of None": b"\x80\x04N)R.",
    "a call of what was called": pickled(Code(called("m", "f") + b")R")),
    "a state for a list": b"\x80\x04]}b.",
    "two states": pickled(Code(made("m", "f", {"a": 1}) + write({"b": 1}) + b"b")),
    "containers of one byte each": b"\x80\x04(" + b"}" * 10_000 + b"t.",
}


@pytest.mark.parametrize("case", BAD)
def test_bad_pickles(case: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ManifestError, match=r"^f: at byte ") as caught:
            read(BAD[case], "m:f")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 500


def test_a_large_place_in_the_memo_takes_no_memory() -> None:
    """For which `pickle` would take 32 GiB."""
    assert read(b"\x80\x04Nr" + LONG + b"0j" + LONG + b".") is None


def test_deep_nesting_is_no_danger() -> None:
    """As a key, `pickle` would end the process with it."""
    depth = 300_000
    deep = Code(b")" + b"\x94\x85" * depth)
    found = read(b"\x80\x04" + deep + b".")
    for _ in range(depth):
        (found,) = found
    assert found == ()
    with pytest.raises(ManifestError, match="a key of type tuple"):
        read(b"\x80\x04}" + deep + b"Ns.")


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    for pickle_of in (data, b"\x80\x04" + data + b"."):
        try:
            read(pickle_of, "m:f")
        except ManifestError as error:
            assert len(str(error)) < 1000  # noqa: PT017 - some are pickles
