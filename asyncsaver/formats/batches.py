"""Large JSON documents, encoded and decoded batch by batch.

A call into an encoder or decoder holds the GIL for as long as it takes, and so the event loop, though it runs in a thread. What
comes out is the same as in one call.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from asyncsaver.model.manifest import Json, TensorEntry

LARGE = 1 << 18
"""Bytes of JSON that are decoded at once: a millisecond or two."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)
"""What decoding may raise."""

BATCH = 5_000
"""Members that are encoded at once: about a millisecond."""

_LEVELS = 16  # of a tree that are looked through for something to divide: each costs a pass over all that is below


def batches(members: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A dict as several, of `BATCH` members each."""
    rest = iter(members.items())
    return iter(lambda: dict(itertools.islice(rest, BATCH)), {})


def encode_members(members: Mapping[str, Any]) -> msgspec.Raw:
    """A JSON object."""
    return msgspec.Raw(b"{" + b",".join([msgspec.json.encode(batch)[1:-1] for batch in batches(members)]) + b"}")


def decode_tensors(text: bytes) -> dict[str, TensorEntry]:
    """The tensors of a record or part. Raises one of `UNREADABLE`."""
    decoder = msgspec.json.Decoder(dict[str, TensorEntry])
    tensors: dict[str, TensorEntry] = {}
    try:
        for piece in _pieces(text, b']]},"'):
            tensors.update(decoder.decode(piece))
    except UNREADABLE:
        return decoder.decode(text)  # cut in the wrong place; or it is damaged, and this error says where
    return tensors


def decode_tree(text: bytes, level: int = 0) -> Json:
    """Any JSON value. Raises one of `UNREADABLE`."""
    if len(text) <= LARGE or level == _LEVELS:
        return msgspec.json.decode(text)
    is_list = text.startswith(b"[")
    try:
        parts = [msgspec.json.decode(piece) for piece in _pieces(text, b"},{" if is_list else b'},"')]
    except UNREADABLE:  # most of the text is deeper inside
        if is_list:
            return _decode_values(msgspec.json.decode(text, type=list[msgspec.Raw]), level)
        if not text.startswith(b"{"):
            return msgspec.json.decode(text)
        members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        return dict(zip(members, _decode_values(list(members.values()), level), strict=True))
    if is_list:
        return list(itertools.chain.from_iterable(parts))
    tree: dict[str, Json] = {}
    for part in parts:
        tree.update(part)
    return tree


def _decode_values(values: Sequence[msgspec.Raw], level: int) -> list[Json]:
    decoded: list[Json] = []
    small: list[msgspec.Raw] = []
    size = 0

    def decode_small() -> None:
        decoded.extend(msgspec.json.decode(b"[" + b",".join(small) + b"]"))
        small.clear()

    for value in values:
        length = len(memoryview(value))
        if size + length > LARGE:
            decode_small()
            size = 0
        if length > LARGE:
            decoded.append(decode_tree(bytes(value), level + 1))
        else:
            small.append(value)
            size += length
    decode_small()
    return decoded


def _pieces(text: bytes, end: bytes) -> Iterator[bytes]:
    """Cut an object or a list into several, each after what is probably the end of a member.

    Whether it was, decoding tells. Cut inside a string, or not between two members of the outermost level, a piece is no JSON:
    its string is not closed, or its brackets do not match. If all pieces are valid, each comma that was cut at was one between
    members, and the members are those of the whole.

    Args:
        text: which begins and ends with its brackets; anything else makes pieces that are not valid.
        end: of a member, the comma, and the first byte of the next member.
    """
    opening, closing = (b"[", b"]") if text.startswith(b"[") else (b"{", b"}")
    start = 1
    while (found := text.find(end, start + LARGE)) >= 0:
        comma = found + len(end) - 2
        yield opening + text[start:comma] + closing
        start = comma + 1
    yield opening + text[start:]
