"""Names of TensorFlow's files, and of what stands beside our records about them. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Literal, TypeVar

import google_crc32c
import msgspec

from asyncsaver.errors import ManifestError
from asyncsaver.formats.tensorflow.bundle import data_path
from asyncsaver.model.catalog import Listed
from asyncsaver.model.names import claim_filename, parse_claim, save_folder

T = TypeVar("T")

INDEX_COPY = "tensors.index"
"""In the folder of a save: the index that is to be published."""
SIDECAR_COPY = "sidecar"
"""Likewise the sidecar."""

_DATA = re.compile(r"(?:\.data)?-([0-9]{5})-of-([0-9]{5})")
_SHARD_SUFFIX = len("-00000-of-00001")
_HOLD = re.compile(r"publishing-[0-9a-f]{16}\.json")


class Claim(msgspec.Struct, frozen=True):
    """Who may write the data files that are called ``-of-N``.

    Attributes:
        save_id: of the attempt.
    """

    save_id: str
    format: Literal["asyncsaver-tensorflow-claim"] = "asyncsaver-tensorflow-claim"
    version: Literal[1] = 1


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt is going to write outside of its folder.

    Attributes:
        save_id: of the attempt.
        meta_suffix: what the name of its sidecar ends in; None where it has none.
        replaces: size in bytes and crc32c of the index that stood there when it began; None where there was none.
        superseded: the files of that, where somebody else had written it.
        state: crc32c of the text file that lists checkpoints, when it began; None where there was none.
    """

    format: Literal["asyncsaver-tensorflow-plan"] = "asyncsaver-tensorflow-plan"
    version: Literal[1] = 1
    save_id: str
    meta_suffix: str | None = None
    replaces: tuple[int, str] | None = None
    superseded: tuple[str, ...] = ()
    state: str | None = None


def crc_of(data: bytes) -> str:
    """The crc32c of some bytes, eight hex digits."""
    return f"{google_crc32c.value(data):08x}"


def claim_path(name: str, shards: int) -> str:
    """Where the claim to the data files ``-of-N`` of a checkpoint stands, among the records."""
    return f"{name}/{claim_filename(shards)}"


def plan_path(name: str, save_id: str, shards: int) -> str:
    """Where an attempt says that it wants to claim them, and what else it is going to do."""
    return save_folder(name, save_id) + claim_filename(shards)


def hold_path(name: str, save_id: str, token: int) -> str:
    """Where somebody who may be about to publish what a save has committed says so."""
    return f"{save_folder(name, save_id)}publishing-{token:016x}.json"


def is_hold(path: str) -> bool:
    """Whether a path is one of `hold_path`."""
    return _HOLD.fullmatch(path.rpartition("/")[2]) is not None


def shards_of(path: str) -> int | None:
    """The N of a path that `plan_path` has made; None for others."""
    return parse_claim(path.rpartition("/")[2])


def data_files(objects: Iterable[Listed], name: str) -> dict[int, list[str]]:
    """The data files of a checkpoint, or the files of a sharded one of V1, among what is listed, by the N of their names."""
    found: dict[int, list[str]] = {}
    for item in objects:
        if item.path.startswith(name) and (match := _DATA.fullmatch(item.path, len(name))):
            found.setdefault(int(match[2]), []).append(item.path)
    return found


def is_data(path: str) -> bool:
    """Whether one of `data_files` is of V2."""
    return path[:-_SHARD_SUFFIX].endswith(".data")


def free_shards(taken: Collection[int], needed: int, most: int) -> list[int]:
    """For which N to try to claim ``-of-N``, in this order.

    First those past all others, so that a name is long out of use before it comes up again.

    Args:
        taken: N that are claimed, or of which there are files.
        needed: how many data files there are at least.
        most: the largest N.
    """
    first = max([needed, *(number + 1 for number in taken)])
    later = range(first, most + 1)
    return [*later[:100], *(number for number in range(needed, min(first, most + 1)) if number not in taken)][:100]


def data_paths(name: str, files: int, shards: int) -> list[str]:
    """Where the first data files of ``-of-N`` go."""
    return [data_path(name, number, shards) for number in range(files)]


def decode_plan(data: bytes, where: str) -> Plan:
    """Read a plan; raises `ManifestError` for what is none."""
    return decode_as(data, where, Plan)


def decode_claim(data: bytes, where: str) -> Claim:
    """Read a claim; raises `ManifestError` for what is none."""
    return decode_as(data, where, Claim)


def decode_as(data: bytes, where: str, kind: type[T]) -> T:
    """Read what JSON of one of these kinds says; raises `ManifestError` for what is none."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ManifestError(f"{where}: damaged: {error}", path=where) from error
