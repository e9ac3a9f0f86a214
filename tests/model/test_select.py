"""Restoring a part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncsaver.errors import StructureMismatchError
from asyncsaver.model.select import selector

NAMES = ["model.w", "model.layers.0", "modelling", "opt.m", "step"]


@pytest.mark.parametrize(
    ("select", "chosen"),
    [
        (None, NAMES),
        ("*", NAMES),
        ("model", ["model.w", "model.layers.0"]),
        ("model.*", ["model.w", "model.layers.0"]),
        ("model.layers", ["model.layers.0"]),
        ("model*", ["model.w", "model.layers.0", "modelling"]),
        (["step", "opt.?"], ["opt.m", "step"]),
        ("m[o]del.w", ["model.w"]),
        (lambda name: name.endswith("m"), ["opt.m"]),
    ],
)
def test_patterns(select: Any, chosen: list[str]) -> None:
    assert [name for name in NAMES if selector(select, NAMES)(name)] == chosen


@pytest.mark.parametrize("select", ["Model", ["step", "head.*"], [], lambda name: False, "model.w.x"])
def test_what_selects_nothing_is_an_error_that_shows_names(select: Any) -> None:
    with pytest.raises(StructureMismatchError, match=r"none of the 5 names in the checkpoint \(model.w, "):
        selector(select, NAMES)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="pattern"):
        selector([1], NAMES)  # type: ignore[list-item]


def test_without_a_target_only_what_is_selected_comes_back(save: Any) -> None:
    saved = save({"a": {"x": np.ones(1), "y": 1}, "l": [1, {"x": 2}, (3,)], "e": {}, "s": 5})
    plan = saved.plan(select="*x")
    assert [read.name for read in plan.reads] == ["a.x"]
    restored = saved.restore(select="*x")
    assert restored["a"]["x"].tolist() == [1]
    assert list(restored["a"]) == ["x"]
    assert restored["l"] == [None, {"x": 2}, None]
    assert set(restored) == {"a", "l"}
    assert saved.restore(select=["e*", "s"]) == {"e": {}, "s": 5}


def test_what_is_not_selected_of_a_target_keeps_its_value(save: Any) -> None:
    saved = save({"a": np.ones(2), "b": np.ones(2), "n": 1, "only_saved": 1})
    target = {"a": np.zeros(2), "b": np.zeros(3), "n": 0, "only_here": {1, 2}}
    restored = saved.restore(target=target, select=["a", "n"])
    assert restored["a"] is target["a"]
    assert target["a"].tolist() == [1, 1]
    assert restored["b"] is target["b"]
    assert restored["b"].tolist() == [0, 0, 0]
    assert restored["n"] == 1
    assert restored["only_here"] == {1, 2}


class Thing:
    def __init__(self, **state: Any) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


def test_an_object_is_loaded_whole_or_not_at_all(save: Any) -> None:
    saved = save({"o": Thing(a=1, b=2), "n": 1})
    target = {"o": Thing(a=0, b=0), "n": 0}
    assert saved.restore(target=target, select="n")["o"].state == {"a": 0, "b": 0}
    with pytest.raises(StructureMismatchError, match="loaded as a whole"):
        saved.restore(target=target, select="o.a")
    saved.restore(target=target, select="o")
    assert target["o"].state == {"a": 1, "b": 2}
    assert saved.restore(select="o.a") == {"o": {"a": 1}}
