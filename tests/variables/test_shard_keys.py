"""One shard for each key."""

from __future__ import annotations

import re

import pytest

from asyncsaver.tensorflow import sharded_filename
from asyncsaver.variables import shards_by_key

DEVICES = {"b": "cpu:1", "a": "cpu:1", "c": "cpu:0", "s/x": "cpu:0", "s/y": "cpu:1"}


def test_item_028_the_name_of_a_shard() -> None:
    assert sharded_filename("/a/m", 3, 12) == "/a/m-00003-of-00012"
    assert sharded_filename("m", 123456, 7) == "m-123456-of-00007"


def test_item_029_one_shard_for_each_key_sorted_by_it() -> None:
    shards = shards_by_key(["b", "a", "c"], DEVICES.__getitem__)
    assert list(shards.items()) == [("cpu:0", ["c"]), ("cpu:1", ["b", "a"])]
    assert shards_by_key([], DEVICES.__getitem__) == {}


def test_item_030_a_saveable_stays_on_one_device() -> None:
    names = list(DEVICES)
    assert sum(map(len, shards_by_key(names, DEVICES.__getitem__, together={"t": ["a", "b"]}).values())) == len(names)
    message = "All tensors of a saveable object must be on the same device: s (its tensors have the shard keys 'cpu:0', 'cpu:1')"
    with pytest.raises(ValueError, match=re.escape(message)):
        shards_by_key(names, DEVICES.__getitem__, together={"s": ["s/x", "s/y"]})
