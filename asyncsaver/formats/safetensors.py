"""Shards: the header of a safetensors file, and the index that joins several into one model.

Layout (https://huggingface.co/docs/safetensors): eight bytes little-endian with the length of the header, the header as JSON,
padded with spaces, then the tensors' bytes without gaps.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from asyncsaver.formats.batches import BATCH, batches
from asyncsaver.model.manifest import Json

_ALIGNMENT = 64


class _Tensor(msgspec.Struct, frozen=True, gc=False):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def encode_header(tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> bytes:
    """The first bytes of a shard, up to where the data begin (at a multiple of 64).

    Args:
        tensors: name, safetensors dtype, shape, first byte and end in the data section, in file order.
    """
    rows = iter(tensors)
    # transformers refuses files whose metadata name no framework it knows.
    members = [b'{"__metadata__":{"format":"pt"}']
    while batch := {
        name: _Tensor(code, shape, (start, stop)) for name, code, shape, start, stop in itertools.islice(rows, BATCH)
    }:
        members.append(msgspec.json.encode(batch)[1:-1])
    text = b",".join(members) + b"}"
    padded = text.ljust(-(-(len(text) + 8) // _ALIGNMENT) * _ALIGNMENT - 8)
    return struct.pack("<Q", len(padded)) + padded


def encode_index(
    weight_map: Mapping[str, str], total_size: int, metadata: Mapping[str, Json] = MappingProxyType({})
) -> bytes:
    """The Hugging Face index of a sharded checkpoint.

    Args:
        weight_map: tensor → file name.
        total_size: of all tensors, in bytes.
        metadata: what else is to stand beside that.
    """
    said = {"metadata": {**metadata, "total_size": total_size}}
    opening = msgspec.json.format(msgspec.json.encode(said), indent=1)[:-2]
    members = [_indented(batch) for batch in batches(weight_map)]
    return opening + b',\n "weight_map": {' + b",".join(members) + (b"\n }\n}" if members else b"}\n}")


def _indented(members: Mapping[str, str]) -> bytes:
    """The lines of an object that stands inside another, without its brackets."""
    text = msgspec.json.format(msgspec.json.encode({"": members}), indent=1)
    return text[text.index(b"{", 1) + 1 : text.rindex(b"\n }")]
