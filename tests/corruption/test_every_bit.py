"""No record, part or state file with one bit flipped, or a stretch of it changed, is ever decoded."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from asyncsaver import ManifestError
from asyncsaver.formats.native import decode_part, decode_record, decode_state, encode, seal

from .scene import DAMAGED, FENCED, GONE, Scene

DECODERS: dict[str, Callable[[bytes], object]] = {
    "manifest": lambda data: decode_record(data, name=f"ckpt-{DAMAGED:08d}", slot=0),
    "tombstone": lambda data: decode_record(data, name=f"ckpt-{GONE:08d}", slot=0),
    "fence": lambda data: decode_record(data, name=f"ckpt-{FENCED:08d}", slot=0),
    "part": lambda data: decode_part(data, "part"),
    "state file": lambda data: decode_state(data, "checkpoint.json"),
}
pytestmark = pytest.mark.torture


@pytest.mark.parametrize("kind", DECODERS)
def test_every_bit_of_every_byte(scene: Scene, kind: str, figures: Any) -> None:
    decode = DECODERS[kind]
    [path] = scene.of_kind(kind)
    whole = scene.files[path]
    assert encode(decode(whole)) == whole  # type: ignore[arg-type]  # what it is, the decoder knows
    data = bytearray(whole)
    for at in range(len(data)):
        for bit in range(8):
            data[at] ^= 1 << bit
            with pytest.raises(ManifestError):
                decode(bytes(data))
            data[at] ^= 1 << bit
    figures.add("bits flipped in records, parts and state files", 8 * len(data))


@pytest.mark.parametrize("kind", DECODERS)
def test_every_length_and_any_stretch(scene: Scene, kind: str, scale: Callable[[int, int], int], figures: Any) -> None:
    decode = DECODERS[kind]
    [path] = scene.of_kind(kind)
    whole = scene.files[path]
    for length in range(len(whole)):
        with pytest.raises(ManifestError):
            decode(whole[:length])
        with pytest.raises(ManifestError):
            decode(whole[:length] + bytes(len(whole) - length))
    rng = random.Random(kind)
    for _ in range(scale(500, 100_000)):
        start = rng.randrange(len(whole))
        stretch = whole[start : start + rng.randrange(1, 65)]
        other = rng.choice([rng.randbytes(len(stretch)), b"0" * len(stretch), b" " * len(stretch), stretch[::-1]])
        if other != stretch:
            with pytest.raises(ManifestError):
                decode(whole[:start] + other + whole[start + len(stretch) :])
            figures.add("stretches overwritten in records, parts and state files")


@pytest.mark.parametrize("kind", DECODERS)
def test_a_document_without_its_checksum_is_refused(scene: Scene, kind: str) -> None:
    whole = scene.files[scene.of_kind(kind)[0]]
    with pytest.raises(ManifestError, match="does not begin with its checksum"):
        DECODERS[kind](b"{" + whole[47:])
    with pytest.raises(ManifestError, match="its checksum differs"):
        DECODERS[kind](whole.replace(b":1", b":2"))
    with pytest.raises(ManifestError, match="does not begin with its checksum"):
        DECODERS[kind](b" " + whole)


def test_a_newer_version_is_told_from_damage() -> None:
    newer = b'{"format":"asyncsaver","version":3,"all":"new"}'
    for data in (newer, seal(newer)):
        with pytest.raises(ManifestError, match=r"version 3 is unknown.*a newer one may have written it"):
            decode_record(data, name="ckpt", slot=0)
