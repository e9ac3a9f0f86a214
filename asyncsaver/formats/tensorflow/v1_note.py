"""A note at the beginning of a V1 file, which tells whose it is. Pure.

It is a field that TensorFlow's message does not have, before those that it has: TensorFlow skips it.
"""

from __future__ import annotations

from asyncsaver.formats.tensorflow.varint import encode_varint

HEAD = 128
"""How many bytes of a file `note_in` has to see."""

_TAG = encode_varint(1999 << 3 | 2)
_LONGEST = 100  # so that its length is one byte
_FIRST_KEY = b"\0\0"  # the entry that lists tensors shares nothing with the one before, and its key is empty


def encode_note(note: str) -> bytes:
    """What stands before the listing of tensors: nothing for an empty note. It is ASCII, of 100 characters at most."""
    if len(note) > _LONGEST:
        raise ValueError(f"a note has {_LONGEST} characters at most, not {len(note)}")
    return _TAG + encode_varint(len(note)) + note.encode("ascii") if note else b""


def note_in(head: bytes) -> str | None:
    """The note of a file, of which these are the first bytes; None where there is none."""
    if not head.startswith(_FIRST_KEY):
        return None
    position = len(_FIRST_KEY)
    while position < len(head) and head[position] & 0x80:  # the size of the message
        position += 1
    rest = head[position + 1 :]
    start = len(_TAG) + 1
    if not rest.startswith(_TAG) or len(rest) < start:
        return None
    note = rest[start : start + rest[start - 1]]
    if len(note) < rest[start - 1]:
        return None
    try:
        return note.decode("ascii")
    except UnicodeDecodeError:
        return None
