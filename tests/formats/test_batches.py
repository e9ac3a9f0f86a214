"""What is encoded and decoded in batches is what one call would have made of it."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from asyncsaver.formats.batches import BATCH, LARGE, UNREADABLE, batches, decode_tensors, decode_tree, encode_members
from asyncsaver.formats.safetensors import encode_header, encode_index
from asyncsaver.model.manifest import Chunk, TensorEntry

# What looks like the end of an entry, a node or a string, inside a name.
TRAPS = ["]]},", ']]},"', "},", '},"', "},{", '"', "\\", "{", "[[", "é"]


def entry(number: int) -> TensorEntry:
    return TensorEntry("float32", (2, 3), (Chunk((0, 0), (2, 3), 0, number * 24, number * 24 + 24, f"{number:032x}"),))


def tensors(seed: int, count: int, traps: float) -> dict[str, TensorEntry]:
    choose = random.Random(seed)
    return {
        f"{number}{choose.choice(TRAPS) if choose.random() < traps else '.weight'}": entry(number)
        for number in range(count)
    }


def tree(choose: random.Random, size: int) -> Any:
    """A value of about so many leaves."""
    if size <= 1:
        name = choose.choice([*TRAPS, "w", "b"])
        return choose.choice([{"tensor": name}, {"tensor": name, "kind": "torch"}, 1.5, None, name, [], {}])
    width = choose.choice([1, 2, 3, size])
    members = [tree(choose, size // width) for _ in range(width)]
    if choose.random() < 0.4:
        return {choose.choice(["list", "tuple"]): members}
    return {f"{number}{choose.choice(TRAPS)}": member for number, member in enumerate(members)}


@pytest.mark.parametrize("count", [0, 1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH])
@pytest.mark.parametrize("traps", [0.0, 0.3, 1.0])
def test_tensors_come_back(count: int, traps: float) -> None:
    whole = tensors(count, count, traps)
    text = bytes(encode_members(whole))
    assert text == msgspec.json.encode(whole)
    decoded = decode_tensors(text)
    assert decoded == whole
    assert list(decoded) == list(whole)


@pytest.mark.parametrize("seed", range(40))
def test_trees_come_back(seed: int) -> None:
    choose = random.Random(seed)
    value = tree(choose, choose.choice([10, 30_000, 60_000]))
    text = msgspec.json.encode(value)
    decoded = decode_tree(text)
    assert decoded == value
    assert msgspec.json.encode(decoded) == text  # the order, too


def test_doubled_members_the_last_counts() -> None:
    text = bytes(encode_members(tensors(0, 2 * BATCH, 0.0)))
    doubled = text[:-1] + b"," + bytes(encode_members({"0.weight": entry(7)}))[1:]
    assert len(doubled) > LARGE
    assert decode_tensors(doubled) == msgspec.json.decode(doubled, type=dict[str, TensorEntry])
    assert decode_tensors(doubled)["0.weight"] == entry(7)


@pytest.mark.parametrize("seed", range(300))
def test_what_one_call_refuses_is_refused(seed: int) -> None:
    choose = random.Random(seed)
    text = bytearray(encode_members(tensors(seed, 2 * BATCH, 0.01)))
    for _ in range(choose.choice([1, 1, 2])):
        # Most of them where it was cut: there a mistake of ours would be.
        cut = text.find(b']]},"', choose.choice([0, LARGE, LARGE - 200, 2 * LARGE]))
        at = max(0, cut + choose.randrange(-3, 8)) if choose.random() < 0.8 else choose.randrange(len(text))
        text[at : at + choose.randrange(2)] = choose.choice(
            [b"", b"]", b"}", b"{", b"[", b",", b'"', b":", b"1", b"\\"]
        )
    damaged = bytes(text)
    for decode, kind in ((decode_tensors, dict[str, TensorEntry]), (decode_tree, Any)):
        try:
            expected = msgspec.json.decode(damaged, type=kind)
        except UNREADABLE as error:
            with pytest.raises(type(error)):
                decode(damaged)
        else:
            assert decode(damaged) == expected


@pytest.mark.parametrize(
    "text", [b"[]", b"1", b"null", b'"a"', b"[" + b"1," * LARGE + b"1]", b'"' + b"]]},x" * LARGE + b'"']
)
def test_what_is_no_object_holds_no_tensors(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_tensors(text)
    assert decode_tree(text) == msgspec.json.decode(text)


def test_a_deep_tree_is_not_gone_through_level_by_level() -> None:
    value: Any = {f"leaf{number}": {"tensor": "w"} for number in range(20_000)}
    for _ in range(100):
        value = {"dict": {"inner": value}}
    assert decode_tree(msgspec.json.encode(value)) == value


def test_batches_hold_everything_once() -> None:
    members = dict.fromkeys(map(str, range(2 * BATCH + 1)))
    assert [len(batch) for batch in batches(members)] == [BATCH, BATCH, 1]
    assert [name for batch in batches(members) for name in batch] == list(members)


@pytest.mark.parametrize("count", [0, 1, BATCH, BATCH + 1])
def test_headers_and_indices_are_those_of_one_call(count: int) -> None:
    names = [f'{number}"{{\n }}' for number in range(count)]
    rows = [(name, "F32", (2,), 8 * number, 8 * number + 8) for number, name in enumerate(names)]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    header |= {
        name: {"dtype": code, "shape": shape, "data_offsets": (start, stop)} for name, code, shape, start, stop in rows
    }
    assert encode_header(rows)[8:].rstrip(b" ") == msgspec.json.encode(header)
    index = {"metadata": {"total_size": count}, "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    assert encode_index(index["weight_map"], count) == msgspec.json.format(msgspec.json.encode(index), indent=1)
