"""What a state becomes, and what is refused."""

from __future__ import annotations

import enum
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import ml_dtypes
import msgspec
import numpy as np
import pytest

from asyncsaver.errors import InvalidStateError, UnsupportedLeafError
from asyncsaver.model.flatten import flatten
from asyncsaver.model.leaves import Adapters
from asyncsaver.model.nodes import MAX_DEPTH

Point = namedtuple("Point", ["x", "y"])  # noqa: PYI024 - the plain kind is what users have


@dataclass(frozen=True, slots=True)
class Config:
    rate: float
    layers: int = field(default=2, init=False)
    registry: ClassVar[dict[str, int]] = {}
    seed: InitVar[int] = 0


class Colour(enum.Enum):
    RED = 1


class Rank(enum.IntEnum):
    ZERO = 0


class Counter:
    def __init__(self) -> None:
        self.seen = np.arange(2)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "inner": [1]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


@pytest.fixture
def adapters() -> Adapters:
    return Adapters()


def tree(state: object) -> Any:
    return flatten(state, Adapters()).tree


@pytest.mark.parametrize(
    ("state", "node"),
    [
        (None, None),
        (True, True),
        ("é", "é"),
        (-(2**53) + 1, -(2**53) + 1),
        (2**53, {"int": "9007199254740992"}),
        (1.5, 1.5),
        (float("-inf"), {"float": "-inf"}),
        ("\ud800", {"str": "7aCA"}),
        (b"\x00\xff", {"bytes": "AP8="}),
        (np.float32(1), {"scalar": {"dtype": "float32", "data": "AACAPw=="}}),
        (ml_dtypes.bfloat16(1), {"scalar": {"dtype": "bfloat16", "data": "gD8="}}),
        ({"a": 1}, {"dict": {"a": 1}}),
        ({}, {"dict": {}}),
        ({"a": 1, 0: 2}, {"items": [["a", 1], [0, 2]]}),
        ({2**60: 1}, {"items": [[{"int": "1152921504606846976"}, 1]]}),
        ([1, (2,)], {"list": [1, {"tuple": [2]}]}),
        (OrderedDict(b=1, a=2), {"ordereddict": [["b", 1], ["a", 2]]}),
        (defaultdict(int, {3: 1}), {"defaultdict": [[3, 1]]}),
        (np.zeros(2), {"tensor": "state"}),
        ({"w": np.zeros(2)}, {"dict": {"w": {"tensor": "w"}}}),
    ],
)
def test_nodes(state: object, node: object) -> None:
    assert tree(state) == node
    assert msgspec.json.decode(msgspec.json.encode(tree(state))) == node


def test_nodes_with_a_type() -> None:
    assert tree(Point(1, 2))["namedtuple"] == {"x": 1, "y": 2}
    assert tree(Point(1, 2))["type"].endswith(".Point")
    assert tree(Config(0.1))["dataclass"] == {"rate": 0.1, "layers": 2}
    counter = tree({"c": Counter()})["dict"]["c"]
    assert counter["object"] == {"dict": {"seen": {"tensor": "c.seen"}, "inner": {"list": [1]}}}
    assert counter["type"].endswith(".Counter")


def test_long_bytes_become_a_tensor(adapters: Adapters) -> None:
    flat = flatten({"short": bytes(4096), "long": bytes(4097)}, adapters)
    assert flat.tree["dict"]["long"] == {"blob": "long"}
    assert [(leaf.name, str(leaf.dtype), leaf.shape, leaf.nbytes) for leaf in flat.tensors] == [
        ("long", "uint8", (4097,), 4097)
    ]


def test_tensors_are_named_by_their_path_and_hold_the_users_array(adapters: Adapters) -> None:
    weight = np.zeros((2, 3), ">f4")
    flat = flatten({"model": [{"w": weight}], 7: np.array(1)}, adapters)
    first, second = flat.tensors
    assert (first.name, first.dtype, first.shape, first.kind, first.nbytes) == (
        "model.0.w", np.dtype("<f4"), (2, 3), "numpy", 24,
    )  # fmt: skip
    assert first.value is weight
    assert (second.name, second.shape) == ("7", ())


def test_memory_maps_are_saved(tmp_path: Path, adapters: Adapters) -> None:
    mapped = np.memmap(tmp_path / "m", "f4", "w+", shape=(3,))
    assert [leaf.shape for leaf in flatten(mapped, adapters).tensors] == [(3,)]


def test_shared_references_are_saved_twice(adapters: Adapters) -> None:
    shared = {"w": np.zeros(1)}
    assert [leaf.name for leaf in flatten([shared, shared], adapters).tensors] == ["0.w", "1.w"]


def test_static_fields_are_not_part_of_the_state() -> None:
    @dataclass
    class TrainState:
        step: int
        apply: Any = field(metadata={"pytree_node": False})
        size: Any = field(metadata={"static": True})

    assert tree(TrainState(1, print, object()))["dataclass"] == {"step": 1}


def test_a_field_that_was_never_set_is_left_out() -> None:
    @dataclass
    class Lazy:
        step: int = 1
        cache: int = field(init=False)

    assert tree(Lazy())["dataclass"] == {"step": 1}


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ({1, 2}, "sorted list"),
        (1j, "complex128"),
        (Colour.RED, r"\.name or \.value"),
        (Rank.ZERO, r"\.name or \.value"),
        (bytearray(b"x"), "as bytes"),
        (object(), "state_dict"),
        (int, "its name"),
        (type("Text", (str,), {})("x"), r"str\(it\)"),
        (np.array([object()]), "list"),
        (np.zeros(1, [("a", "f4")]), "a dict of arrays"),
        (np.rec.array([(1,)], dtype=[("a", "i4")]), "asarray"),
        (np.ma.masked_array([1], [True]), "mask"),
        (np.zeros(1, "g"), "float64"),
        (np.longdouble(1), "float64"),
        (np.zeros(1, [("a", "f4")])[0], "a dict of arrays"),
    ],
)
def test_refusals_name_the_leaf_and_what_to_do(value: object, advice: str, adapters: Adapters) -> None:
    with pytest.raises(UnsupportedLeafError, match=f"^a.0: .*{advice}"):
        flatten({"a": [value]}, adapters)


@pytest.mark.parametrize(
    "key", [(1, 2), None, True, 1.0, b"k", Rank.ZERO, np.int64(1), "\ud800", pytest.param(10**5000, id="long")]
)
def test_other_keys_are_refused(key: object, adapters: Adapters) -> None:
    with pytest.raises(UnsupportedLeafError, match=r"^a: the key"):
        flatten({"a": {key: 1}}, adapters)


@pytest.mark.parametrize(
    "state",
    [{"a.b": 1, "a": {"b": np.zeros(1)}}, {0: 1, "0": 2}, {"a": [1], "a.0": None}, {"a": {"b": {1: 1}}, "a.b.1": 1}],
)
def test_two_leaves_with_one_name_are_refused(state: object, adapters: Adapters) -> None:
    with pytest.raises(InvalidStateError, match=r"^state\[.*\] and state\[.*\] would both be named"):
        flatten(state, adapters)


@pytest.mark.parametrize(("state", "problem"), [({"__metadata__": 1}, "reserved"), ({"": 1}, "not empty")])
def test_names_that_cannot_be_used(state: object, problem: str, adapters: Adapters) -> None:
    with pytest.raises(InvalidStateError, match=problem):
        flatten(state, adapters)


def test_cycles_are_refused(adapters: Adapters) -> None:
    state: dict[str, Any] = {"a": [1]}
    state["a"].append(state)
    with pytest.raises(InvalidStateError, match=r"^a\.1: this dict contains itself"):
        flatten(state, adapters)


@pytest.mark.parametrize("wrap", [lambda s: [s], lambda s: {0: s}, lambda s: Point(s, 1)])
def test_depth_is_limited(wrap: Any, adapters: Adapters) -> None:
    state: Any = 1
    for _ in range(MAX_DEPTH):
        state = wrap(state)
    msgspec.json.decode(msgspec.json.encode(flatten(state, adapters).tree))
    with pytest.raises(InvalidStateError, match=f"more than {MAX_DEPTH} deep"):
        flatten(wrap(state), adapters)


def test_depth_far_beyond_the_limit_is_refused_the_same_way(adapters: Adapters) -> None:
    state: Any = 1
    for _ in range(100_000):
        state = [state]
    with pytest.raises(InvalidStateError, match="deep"):
        flatten(state, adapters)


def test_the_state_is_not_changed(adapters: Adapters) -> None:
    lazy: defaultdict[str, list[int]] = defaultdict(list, a=[1])
    array = np.arange(3)
    array.flags.writeable = False
    flatten({"d": lazy, "w": array}, adapters)
    assert lazy == {"a": [1]}
    assert array.tolist() == [0, 1, 2]
