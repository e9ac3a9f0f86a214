"""What the names of TensorFlow's files say."""

from __future__ import annotations

import re

RECORDS = ".asyncsaver"
"""The folder of our records, beside TensorFlow's files."""

_STEP = re.compile(r"-(-?[0-9]{1,18})$")
_SHARDS = re.compile(r"-(?:[0-9]{5}|\?{5})-of-([0-9]{5})$")
_PATTERN = re.compile(r"(.*)-\?{5}-of-([0-9]{5})", re.DOTALL)


def step_of(path: str) -> int | None:
    """The step that the name of a checkpoint ends in, before what tells of shards: ``m--1`` has -1; None where there is none."""
    step = _STEP.search(_SHARDS.sub("", path).rpartition("/")[2])
    return int(step[1]) if step else None


def sharded_filename(filename: str, shard: int, num_shards: int) -> str:
    """The name of one file of several, as TensorFlow's operation of that name gives it: ``m-00001-of-00004``."""
    return f"{filename}-{shard:05d}-of-{num_shards:05d}"


def sharded_filespec(filename: str, num_shards: int) -> str:
    """The pattern that stands for all of them, which is what saving a sharded V1 checkpoint returns: ``m-?????-of-00004``."""
    return f"{filename}-?????-of-{num_shards:05d}"


def shard_paths(pattern: str) -> list[str] | None:
    """The files of a sharded V1 checkpoint, from what saving it returned (``m-?????-of-00002``); None for another path."""
    found = _PATTERN.fullmatch(pattern)
    if found is None:
        return None
    return [f"{found[1]}-{shard:05d}-of-{found[2]}" for shard in range(int(found[2]))]


def prefix_of(pattern: str) -> str:
    """What the names of those files begin with; another path is given back as it is."""
    found = _PATTERN.fullmatch(pattern)
    return pattern if found is None else found[1]
