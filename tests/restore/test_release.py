"""What a restore has made for each tensor is let go of, however deep it lies."""

from __future__ import annotations

import weakref

from asyncsaver.restore.release import release


class Thing:
    """Something that can be watched."""


def test_lists_and_dicts_are_emptied_at_every_depth() -> None:
    things = [Thing() for _ in range(3)]
    watched = [weakref.ref(thing) for thing in things]
    inner = {"a": things[1], "b": [things[2]]}
    tree = {"x": [things[0], 1, None, "text"], "y": inner}
    del things
    release(tree, [])
    assert tree == inner == {}
    assert [ref() for ref in watched] == [None] * 3


def test_what_is_neither_is_left_alone() -> None:
    release(None, 1, "text", ("a", ["b"]))
    kept = ("a", ["b"])
    release([kept])
    assert kept == ("a", ["b"])
