"""A tree comes from a file: whatever is wrong with it is a `ManifestError`."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.errors import ManifestError
from asyncsaver.model.leaves import Adapters, TensorSpec
from asyncsaver.model.rebuild import plan_restore

SPECS = {"w": TensorSpec(np.dtype("<f4"), (2,)), "raw": TensorSpec(np.dtype("u1"), (4,))}
TAGS = [
    "int", "float", "str", "bytes", "blob", "scalar", "tensor", "kind", "type", "dict", "items", "list", "tuple",
    "namedtuple", "dataclass", "ordereddict", "defaultdict", "object", "dtype", "data",
]  # fmt: skip


def deep(levels: int) -> Any:
    node: Any = 1
    for _ in range(levels):
        node = {"list": [node]}
    return node


@pytest.mark.parametrize(
    "tree",
    [
        {}, [], [1], {"unknown": 1}, {"tensor": "gone"}, {"tensor": 1}, {"tensor": "w", "kind": 1},
        {"tensor": "w", "other": "x"}, {"blob": "w"}, {"blob": "gone"}, {"list": 1}, {"list": {"a": 1}}, {"dict": []},
        {"dict": {"a": {}}}, {"items": [["a"]]}, {"items": [[None, 1]]}, {"items": [[True, 1]]}, {"items": [[1.5, 1]]},
        {"items": [[{"int": "0x1" + "0" * 5000}, 1]]}, {"items": [[{"int": "x"}, 1]]},
        {"items": [[{"str": ""}, 1]]}, {"items": [["a", 1], ["a", 2]]},
        {"items": [[0, 1], ["0", 2]]}, {"int": "1_0"}, {"int": " 1"}, {"int": "9" * 5000}, {"int": 1}, {"float": "1"},
        {"str": "!!"}, {"str": "/w=="}, {"bytes": "x"}, {"scalar": {"dtype": "float32", "data": "AA=="}},
        {"scalar": {"dtype": "object", "data": ""}}, {"scalar": {"dtype": "<U2", "data": "AA=="}},
        {"scalar": {"dtype": "|S2", "data": "AA=="}}, {"scalar": {"dtype": "<U1", "data": "/////w=="}}, {"scalar": 1},
        {"scalar": {"dtype": "float32", "data": "AAAAAA==", "more": 1}},
        {"list": [{"tensor": "w"}, {"tensor": "w"}]}, {"dict": {"a.b": 1, "a": {"dict": {"b": 1}}}},
        {"list": [], "tuple": []}, {"object": 1, "type": 1}, {"object": 1, "more": 1}, {"namedtuple": []},
        {"dataclass": {"a": 1}, "type": None}, deep(300), deep(400), b"bytes",
    ],
)  # fmt: skip
def test_damage_is_named(tree: Any) -> None:
    with pytest.raises(ManifestError, match=r"^the tree is damaged at"):
        plan_restore(tree, SPECS, Adapters())


json_trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["w", "raw", "gone", "", "<U1", "AAAA"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(TAGS), inner, max_size=2)
        | st.dictionaries(st.sampled_from(TAGS), inner, min_size=1, max_size=1)
    ),
    max_leaves=12,
)


@given(json_trees)
def test_any_json_is_a_tree_or_a_manifest_error(tree: Any) -> None:
    with contextlib.suppress(ManifestError):
        plan = plan_restore(tree, SPECS, Adapters())
        assert {read.name for read in plan.reads} <= SPECS.keys()
        plan.build({name: np.zeros(spec.shape, spec.dtype) for name, spec in SPECS.items()})


def test_deep_json_text_is_no_recursion_error() -> None:
    tree = json.loads('{"list": [' * 250 + "1" + "]}" * 250)
    with pytest.raises(ManifestError, match="deep"):
        plan_restore(tree, {}, Adapters())


def test_a_shown_name_is_short() -> None:
    with pytest.raises(ManifestError) as caught:
        plan_restore({"tensor": "x" * 100_000}, {}, Adapters())
    assert len(str(caught.value)) < 1000
