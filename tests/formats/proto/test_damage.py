"""Any byte that is not what was written is found; and whatever else stands there, only our error is raised."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsaver.errors import ManifestError
from asyncsaver.formats import native
from asyncsaver.formats.proto import encode
from asyncsaver.formats.proto.envelope import MAGIC, VERSION, Kind, seal

from .messages import KINDS


@pytest.mark.parametrize("kind", Kind)
def test_each_bit_that_is_flipped_is_found(kind: Kind) -> None:
    _, value, decode = KINDS[kind]
    whole = encode(value)
    for position in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(ManifestError, match="damaged"):
            decode(bytes(damaged))


@pytest.mark.parametrize("kind", Kind)
def test_each_length_but_the_whole_is_found(kind: Kind) -> None:
    _, value, decode = KINDS[kind]
    whole = encode(value)
    for end in range(len(whole)):
        with pytest.raises(ManifestError, match="damaged"):
            decode(whole[:end])
    with pytest.raises(ManifestError, match="damaged"):
        decode(whole + b"\0")


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("other", Kind)
def test_another_kind_is_no_such_document(kind: Kind, other: Kind) -> None:
    data, decode = encode(KINDS[other][1]), KINDS[kind][2]
    if kind == other:
        assert decode(data) == KINDS[kind][1]
        return
    with pytest.raises(ManifestError, match=f"of kind {other:d}, not {kind:d}"):
        decode(data)


@pytest.mark.parametrize("kind", Kind)
def test_another_version_is_named(kind: Kind) -> None:
    _, value, decode = KINDS[kind]
    body = encode(value)[24:]
    head = MAGIC + bytes([kind, VERSION + 1])
    written = head + xxhash.xxh3_128_digest(head + body) + body
    with pytest.raises(ManifestError, match=r"version 2, which is unknown: .*a newer one may have written it"):
        decode(written)
    with pytest.raises(
        ManifestError, match=r"checksum differs.*it says that it is of format version 2, which is unknown"
    ):
        decode(head + encode(value)[8:])


def test_the_document_is_as_its_proto_file_says() -> None:
    for kind, (_, value, _) in KINDS.items():
        data = encode(value)
        assert data[:8] == bytes.fromhex("89617376 7062") + bytes([kind, 1])
        assert data[8:24] == xxhash.xxh3_128_digest(data[:8] + data[24:])


@pytest.mark.parametrize("kind", Kind)
def test_json_is_no_such_document(kind: Kind) -> None:
    _, value, decode = KINDS[kind]
    with pytest.raises(ManifestError, match="does not begin as"):
        decode(native.encode(value))


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    "body",
    [
        b"\xff" * 100,
        b"\x0b" * 100_000,  # groups within groups
        b"\x0a" + b"\xff" * 9 + b"\x01",  # a length of 2**64 - 1
        b"\x0a\xff\xff\xff\xff\x07",  # of 2 GiB
        b"\x0a\x05abc",  # more than there is
        b"\x0a\x02\xff\xfe",  # as text it is no UTF-8
        b"\x00\x00",  # field 0
        b"\x0f",  # a wire type that there is not
    ],
)
def test_what_is_no_message_is_refused(kind: Kind, body: bytes) -> None:
    decode = KINDS[kind][2]
    with pytest.raises(ManifestError) as caught:
        decode(seal(kind, body))
    assert len(str(caught.value)) < 10_000


@settings(max_examples=300)
@given(st.sampled_from(Kind), st.binary(max_size=200))
def test_any_bytes_are_refused_properly(kind: Kind, data: bytes) -> None:
    decode: Any = KINDS[kind][2]
    with pytest.raises(ManifestError):
        decode(data)
    with contextlib.suppress(ManifestError):
        decode(seal(kind, data))
