"""Shards: the header of a safetensors file, and the index that joins several into one model.

Layout (https://huggingface.co/docs/safetensors): eight bytes little-endian with the length of the header, the header as JSON,
padded with spaces, then the tensors' bytes without gaps.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import msgspec

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
    # transformers refuses files whose metadata name no framework it knows.
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for name, code, shape, start, stop in tensors:
        header[name] = _Tensor(code, shape, (start, stop))
    text = msgspec.json.encode(header)
    padded = text.ljust(-(-(len(text) + 8) // _ALIGNMENT) * _ALIGNMENT - 8)
    return struct.pack("<Q", len(padded)) + padded


def encode_index(weight_map: Mapping[str, str], total_size: int) -> bytes:
    """The Hugging Face index of a sharded checkpoint.

    Args:
        weight_map: tensor → file name.
        total_size: of all tensors, in bytes.
    """
    return msgspec.json.format(
        msgspec.json.encode({"metadata": {"total_size": total_size}, "weight_map": weight_map}), indent=1
    )
