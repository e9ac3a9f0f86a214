"""Headers of safetensors files: as strict as the library, which is the judge here."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from asyncsaver.aio.threads import Threads
from asyncsaver.errors import ManifestError
from asyncsaver.formats.safetensors_header import MAX_HEADER, header_length, parse_header, read_header

from .foreign_folders import store_with

WHOLE = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "U8", "shape": [], "data_offsets": [24, 25]},
    "none": {"dtype": "I64", "shape": [0, 5], "data_offsets": [25, 25]},
    "c": {"dtype": "BF16", "shape": [3], "data_offsets": [25, 31]},
}  # fmt: skip


def file_of(header: Any, data: bytes = bytes(31)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def ours(content: bytes) -> dict[str, Any]:
    length = header_length(content[:16], len(content), "f")
    header = parse_header(content[8 : 8 + length], len(content), "f")
    return {
        name: (found.code, list(found.shape), content[found.start : found.stop])
        for name, found in header.tensors.items()
    }


def theirs(content: bytes) -> dict[str, Any]:
    return {name: (info["dtype"], info["shape"], bytes(info["data"])) for name, info in deserialize(content)}


def test_a_whole_file() -> None:
    assert ours(file_of(WHOLE)) == theirs(file_of(WHOLE))
    assert list(ours(file_of(WHOLE))) == ["a", "b", "none", "c"]


CASES: dict[str, tuple[Any, str]] = {
    "gap": ({"a": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}, "'a': bytes 1 to 3 leave a gap or overlap"),
    "overlap": (
        {n: {"dtype": "U8", "shape": [2], "data_offsets": [s, s + 2]} for n, s in (("a", 0), ("b", 1))},
        "'b': bytes 1 to 3",
    ),
    "backwards": ({"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, -1]}}, "'a': bytes 0 to -1"),
    "too few": ({"a": {"dtype": "F32", "shape": [8], "data_offsets": [0, 31]}}, r"'a': 31 bytes cannot be F32\[8\]"),
    "half a byte": ({"a": {"dtype": "F4", "shape": [61], "data_offsets": [0, 31]}}, r"31 bytes cannot be F4\[61\]"),
    "negative": ({"a": {"dtype": "U8", "shape": [-1, -31], "data_offsets": [0, 31]}}, "impossible shape"),
    "overflow": ({"a": {"dtype": "F32", "shape": [2**62, 2**62, 0], "data_offsets": [0, 0]}}, "impossible shape"),
    "many axes": ({"a": {"dtype": "U8", "shape": [1] * 65, "data_offsets": [0, 1]}}, "impossible shape"),
    "more data": ({"a": {"dtype": "U8", "shape": [30], "data_offsets": [0, 30]}}, "its tensors end at byte"),
    "no data": ({}, "its tensors end at byte"),
    "metadata": ({**WHOLE, "__metadata__": {"a": 1}}, "not what safetensors says"),
    "no object": (b"[]", "does not begin with {"),
    "no JSON": (b"{", "not what safetensors says"),
    "deep": (b'{"a":' + b"[" * 100_000, "not what safetensors says"),
    "long number": (b'{"a":' + b"1" * 100_000 + b"}", "not what safetensors says"),
    "not UTF-8": (b'{"\xff": 1}', "not what safetensors says"),
    "surrogate": (b'{"\\ud800":{"dtype":"U8","shape":[31],"data_offsets":[0,31]}}', "lone surrogates"),
    "twice": (b'{"a":{"dtype":"U8","shape":[31],"data_offsets":[0,31]},"a":{"dtype":"I8","shape":[31],"data_offsets":[0,31]}}',
              "'a': its name stands there twice"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_damaged_headers(case: str) -> None:
    header, message = CASES[case]
    with pytest.raises(ManifestError, match=message) as caught:
        ours(file_of(header))
    assert caught.value.path == "f"
    assert len(str(caught.value)) < 1000
    if case not in {"twice", "many axes", "overflow"}:  # which the library lets pass
        with pytest.raises(SafetensorError):
            deserialize(file_of(header))


@pytest.mark.parametrize("length", [MAX_HEADER + 1, 2**63, 2**64 - 1, 32])
def test_a_header_that_is_longer_than_the_file_or_allowed(length: int) -> None:
    with pytest.raises(ManifestError, match="its header would take"):
        header_length(struct.pack("<Q", length), 39 if length == 32 else 2**63, "f")


def test_a_header_of_the_largest_size_is_none_too_large() -> None:
    assert header_length(struct.pack("<Q", MAX_HEADER), MAX_HEADER + 8, "f") == MAX_HEADER


@pytest.mark.parametrize("code", ["F4", "F6_E2M3", "F6_E3M2", "F128"])
def test_dtypes_that_numpy_has_not_are_told(code: str) -> None:
    header = {"a": {"dtype": code, "shape": [8, 4], "data_offsets": [0, {"F4": 16, "F128": 512}.get(code, 24)]}}
    content = file_of(header, bytes(header["a"]["data_offsets"][1]))
    found = parse_header(content[8 : 8 + content[0]], len(content), "f").tensors["a"]
    assert (found.code, found.dtype, found.shape) == (code, "", (8, 4))


def spoiled(choose: random.Random) -> Any:
    """A header in which something was changed that matters."""
    header = json.loads(json.dumps(WHOLE))
    for _ in range(choose.choice([1, 1, 2])):
        entry = header[choose.choice(["a", "b", "none", "c"])]
        match choose.choice(["dtype", "shape", "offset", "rename"]):
            case "dtype":
                entry["dtype"] = choose.choice(
                    ["F32", "I32", "U8", "BF16", "F16", "BOOL", "I64", "F8_E4M3", "C64", "F4"]
                )
            case "shape":
                entry["shape"] = choose.choice(
                    [[], [0], [3], [3, 2], [6, 1], [1, 3, 1, 1], [2**40], [-1], [1.5], ["2"], None]
                )
            case "offset":
                entry["data_offsets"][choose.randrange(2)] = choose.choice([0, 1, 24, 25, 31, -1, 2**63, 1e3, None])
            case "rename":
                header["new"] = header.pop("c") if "c" in header else entry
                header.setdefault("c", header["none"])
    return header


@given(st.randoms(use_true_random=False))
def test_what_the_library_accepts_and_nothing_else(choose: random.Random) -> None:
    content = file_of(spoiled(choose))
    try:
        wanted = theirs(content)
    except SafetensorError:
        with pytest.raises(ManifestError):
            ours(content)
    else:
        assert ours(content) == wanted


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for content in (data, file_of(data), file_of(b"{" + data)):
        with pytest.raises(ManifestError):
            ours(content)


async def test_a_long_header_takes_two_requests_and_one_inside_a_file_begins_where_it_is_told(memory_root: Any) -> None:
    arrays = {f"{'x' * 200}.{number}": np.full(3, number, np.int32) for number in range(2000)}
    content = save(arrays)
    assert int.from_bytes(content[:8], "little") > 1 << 18
    threads = Threads("test", 1)
    async with store_with(memory_root.url, {"long": content, "inside": b"before" + content}) as store:
        plain = await read_header(store, threads, "long", len(content))
        inside = await read_header(store, threads, "inside", len(content) + 6, 6)
    threads.close()
    assert plain.tensors.keys() == inside.tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        assert content[plain.tensors[name].start : plain.tensors[name].stop] == array.tobytes()
        assert inside.tensors[name].start == plain.tensors[name].start + 6
