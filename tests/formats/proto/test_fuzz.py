"""Whatever messages stand on the store, readers raise our errors and no others, and what they accept can be worked with."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from asyncsaver.errors import ManifestError, RanksMissingError
from asyncsaver.formats import native
from asyncsaver.formats.proto import decode_manifest, decode_part, decode_state, encode
from asyncsaver.formats.proto.envelope import Kind, seal
from asyncsaver.proto import manifest_pb2 as pb

from ...fuzz.documents import MANIFEST, NAME, PART, STATE, STRANGE, USES  # noqa: TID252 - test folders are no packages

Scale = Callable[[int, int], int]
pytestmark = pytest.mark.torture
VALUES: dict[Kind, Any] = {Kind.MANIFEST: MANIFEST, Kind.PART: PART, Kind.STATE: STATE}
MESSAGES: dict[Kind, Any] = {Kind.MANIFEST: pb.Manifest, Kind.PART: pb.Part, Kind.STATE: pb.StateFile}
NUMBERS = [value for value in STRANGE if type(value) is int and abs(value) < 2**64] + [2**64 - 1, 2**32 - 1, -(2**31)]
TEXTS = [value for value in STRANGE if isinstance(value, str)]


def read(kind: Kind, data: bytes) -> Any:
    """Read a document of a kind."""
    match kind:
        case Kind.MANIFEST:
            return decode_manifest(data, "here", name=NAME, slot=0)
        case Kind.PART:
            return decode_part(data, "here")
        case Kind.STATE:
            return decode_state(data, "here")


def use(kind: Kind, value: Any) -> None:
    """What was accepted comes back from both encodings, and goes where the JSON of it goes."""
    assert read(kind, encode(value)) == value
    with contextlib.suppress(ManifestError, RanksMissingError):  # a part that is well by itself may not fit others
        USES[kind.name.lower()](native.encode(value))


def spoil(message: Any, choose: random.Random) -> None:
    """Change something in a message, or in what is inside."""
    field = choose.choice(list(message.DESCRIPTOR.fields))
    name, value = field.name, getattr(message, field.name)
    repeated = hasattr(value, "__len__") and not isinstance(value, (str, bytes))
    with contextlib.suppress(ValueError, TypeError, OverflowError, DecodeError):  # a value that no message can hold
        match choose.randrange(5):
            case 0:
                message.ClearField(name)
            case 1 if repeated and len(value):
                value.MergeFrom(choose.choice([list(value), [choose.choice(value)] * choose.choice([1, 2, 70])]))
            case 2 if repeated and len(value):
                del value[choose.randrange(len(value))]
            case _ if name == "tensors" and len(value):
                at = choose.randrange(len(value))
                batch = pb.TensorBatch.FromString(value[at])
                spoil(batch, choose)
                value[at] = batch.SerializeToString()
            case _ if field.message_type is not None:
                inner = value if not repeated else choose.choice(value) if len(value) else value.add()
                spoil(inner, choose)
            case _ if repeated:
                value.append(strange(value[0] if len(value) else "", choose))
                if choose.random() < 0.7 and len(value) > 1:
                    value[choose.randrange(len(value) - 1)] = value.pop()
            case _:
                setattr(message, name, strange(value, choose))


def strange(like: Any, choose: random.Random) -> Any:
    """A value of the same type that nobody would write."""
    if isinstance(like, bytes):
        text = choose.choice(TEXTS).encode()
        return choose.choice(
            [text, like[:-1], like * 2, like.replace(b"tensor", b"list"), b"[" * 50, b'{"tensor":"w"}']
        )
    return choose.choice(TEXTS) if isinstance(like, str) else choose.choice(NUMBERS)


@pytest.mark.parametrize("kind", Kind)
def test_whole_documents_are_read(kind: Kind) -> None:
    value = read(kind, encode(VALUES[kind]))
    assert value == VALUES[kind]
    use(kind, value)


@pytest.mark.parametrize("kind", Kind)
def test_spoiled_messages(kind: Kind, scale: Scale, figures: Any) -> None:
    accepted = longest = 0
    count = scale(800, 150_000)
    for seed in range(count):
        choose = random.Random(f"{kind} {seed}")
        message = MESSAGES[kind].FromString(encode(VALUES[kind])[24:])
        for _ in range(choose.choice([1, 1, 2, 5])):
            spoil(message, choose)
        data = seal(kind, message.SerializeToString())
        try:
            use(kind, read(kind, data))
            accepted += 1
        except ManifestError as error:
            longest = max(longest, len(str(error)))
        except BaseException as error:
            error.add_note(f"seed {seed}: {data[:3000]!r}")
            raise
    assert 0 < accepted < count
    assert longest < 10_000  # somebody has to read it
    figures.add("hostile documents read", count)


@pytest.mark.parametrize("kind", Kind)
def test_spoiled_bytes(kind: Kind, scale: Scale, figures: Any) -> None:
    """What no encoder writes: half fields, lengths that lie, other wire types."""
    count = scale(1_000, 100_000)
    whole = encode(VALUES[kind])[24:]
    for seed in range(count):
        choose = random.Random(f"{kind} {seed}")
        body = bytearray(whole)
        for _ in range(choose.choice([1, 2, 8])):
            start = choose.randrange(len(body))
            stop = start + choose.choice([0, 1, 1, 20])
            body[start:stop] = choose.choice(
                [b"\xff" * 9, b"\0", b"\x0b", body[stop : stop + 60] * 2, choose.randbytes(3)]
            )
        with contextlib.suppress(ManifestError):
            use(kind, read(kind, seal(kind, bytes(body))))
    figures.add("hostile documents read", count)
