"""Names and paths: checkpoints, slots, save ids, parts, shards. All relative to the root, with ``/``."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from asyncsaver.errors import ManifestError

STATE_FILE = "checkpoint.json"
PROTO_STATE_FILE = "checkpoint.pb"
BODY_FILE = "manifest.pb"
INDEX_FILE = "model.safetensors.index.json"
PINNED_MARKER = "pinned.json"
PRESERVED_MARKER = "preserved.json"
MAX_STEP = 2**63 - 1

_STATE_FILES = {STATE_FILE, PROTO_STATE_FILE}
_SLOT = re.compile(r"manifest(?:-([0-9]{4,9}))?\.json")
_CLAIM = re.compile(r"files-([0-9]{5})\.json")
_SAVE_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{16}")
_PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+@-]{0,99}")


def check_prefix(prefix: object) -> str:
    """Return a prefix that can stand in a path of every store, or raise `TypeError` or `ValueError`."""
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str, not {type(prefix).__name__}")
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(
            f"prefix {prefix!r} must be 1 to 100 letters, digits or ._=+@- and start with a letter, a digit or _"
        )
    if prefix in _STATE_FILES:
        raise ValueError(f"prefix {prefix!r} is the name of the state file")
    return prefix


def is_prefix(text: str) -> bool:
    """Whether `check_prefix` lets it pass."""
    return _PREFIX.fullmatch(text) is not None and text not in _STATE_FILES


def check_step(step: object) -> int:
    """Return a step as an int: a Python or NumPy integer from 0 to 2**63-1. Anything else raises."""
    if isinstance(step, (bool, float, str)) or type(step).__name__ in {"bool_", "bool"}:
        raise TypeError(f"step must be an integer, not {type(step).__name__} ({step!r})")
    try:
        number = operator.index(step)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"step must be an integer, not {type(step).__name__}") from None
    if not 0 <= number <= MAX_STEP:
        raise ValueError(f"step must be between 0 and 2**63-1, not {number}")
    return number


@dataclass(frozen=True, slots=True)
class Naming:
    """How checkpoints are called.

    Attributes:
        prefix: the first part of every name.
        pad: whether the step is padded to eight digits.
    """

    prefix: str = "ckpt"
    pad: bool = True

    def name(self, step: int | None) -> str:
        """The name of the checkpoint of a step: ``ckpt-00001000``; without a step just ``ckpt``."""
        if step is None:
            return self.prefix
        return f"{self.prefix}-{step:08d}" if self.pad else f"{self.prefix}-{step}"

    def names(self, step: int | None) -> list[str]:
        """Every name under which that step may stand, ours first: the padding may have been changed between runs."""
        if step is None:
            return [self.prefix]
        both = [f"{self.prefix}-{step:08d}", f"{self.prefix}-{step}"]
        return list(dict.fromkeys(both if self.pad else reversed(both)))

    def parse(self, name: str) -> tuple[bool, int | None]:
        """Whether a folder name is one of ours, and its step."""
        if name == self.prefix:
            return True, None
        digits = name.removeprefix(f"{self.prefix}-")
        if digits == name or not (digits.isascii() and digits.isdecimal()):
            return False, None
        step = int(digits) if len(digits) <= 19 else MAX_STEP + 1
        ours = step <= MAX_STEP and digits in {str(step), f"{step:08d}"}
        return ours, step if ours else None


def slot_path(name: str, slot: int) -> str:
    """Where the manifest of a slot stands: ``<name>/manifest.json``, ``<name>/manifest-0001.json``, …."""
    return f"{name}/manifest.json" if slot == 0 else f"{name}/manifest-{slot:04d}.json"


def parse_slot(filename: str) -> int | None:
    """The slot that a file name within a checkpoint's folder stands for; None for other files."""
    match = _SLOT.fullmatch(filename)
    if match is None:
        return None
    if match[1] is None:
        return 0
    slot = int(match[1])
    return slot if slot > 0 and f"{slot:04d}" == match[1] else None


def claim_filename(number: int) -> str:
    """The name of a claim to names of files outside of a checkpoint's folder, of which there may be several sets."""
    return f"files-{number:05d}.json"


def parse_claim(filename: str) -> int | None:
    """The number of which a file name is `claim_filename`; None for other files."""
    match = _CLAIM.fullmatch(filename)
    return None if match is None else int(match[1])


def new_save_id(now: float, random_bits: int) -> str:
    """A save id: when the attempt began (UTC, for people to read) and 64 random bits, which make it unique."""
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}-{random_bits & (2**64 - 1):016x}"


def is_save_id(segment: str) -> bool:
    """Whether a folder name is a save id."""
    return _SAVE_ID.fullmatch(segment) is not None


def save_folder(name: str, save_id: str) -> str:
    """The folder, with a trailing slash, under which an attempt writes every byte."""
    return f"{name}/{save_id}/"


def part_path(name: str, save_id: str, rank: int) -> str:
    """Where a rank lists what it has written."""
    return f"{name}/{save_id}/part-{rank:05d}.json"


def body_path(name: str, save_id: str) -> str:
    """Where an attempt writes its manifest, if the record at the slot is only to be its summary."""
    return save_folder(name, save_id) + BODY_FILE


def shard_filename(number: int, count: int) -> str:
    """The name of a shard, counted from 1, as the Hugging Face convention has it."""
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def check_relative(path: str, where: str) -> str:
    """Return a path that stays under the root, or raise `ManifestError` naming the file it was read from."""
    segments = path.split("/")
    bad = (
        not path
        or len(path) > 1024
        or "\\" in path
        or any(segment in {"", ".", ".."} for segment in segments)
        or any(ord(character) < 32 or ord(character) == 127 for character in path)
    )
    if bad:
        raise ManifestError(f"{where}: the path {path[:200]!r} does not stay under the root", path=where)
    return path
