"""What the names of TensorFlow's files say."""

from __future__ import annotations

import re

_STEP = re.compile(r"-(-?[0-9]{1,18})$")
_SHARDS = re.compile(r"-(?:[0-9]{5}|\?{5})-of-([0-9]{5})$")
_PATTERN = re.compile(r"(.*)-\?{5}-of-([0-9]{5})", re.DOTALL)


def step_of(path: str) -> int | None:
    """The step that the name of a checkpoint ends in, before what tells of shards: ``m--1`` has -1; None where there is none."""
    step = _STEP.search(_SHARDS.sub("", path).rpartition("/")[2])
    return int(step[1]) if step else None


def shard_paths(pattern: str) -> list[str] | None:
    """The files of a sharded V1 checkpoint, from what saving it returned (``m-?????-of-00002``); None for another path."""
    found = _PATTERN.fullmatch(pattern)
    if found is None:
        return None
    return [f"{found[1]}-{shard:05d}-of-{found[2]}" for shard in range(int(found[2]))]
