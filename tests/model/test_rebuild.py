"""Restoring with a target and without: what comes back, and what is refused before anything is touched."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

from asyncsaver.errors import InvalidStateError, StructureMismatchError


class Point(NamedTuple):
    x: Any
    y: Any


@dataclass(frozen=True, slots=True)
class Frozen:
    w: Any
    step: int = field(default=0, init=False)


@dataclass
class Open:
    w: Any
    note: str = ""


class Tagged(dict[str, Any]):
    tag = "none"


class Recorder:
    """An object with state, that records what it is given."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        if isinstance(state, dict) and state.get("bad"):
            raise KeyError("bad")
        self.state = state


def test_without_a_target_everything_is_plain(save: Any) -> None:
    state = {
        "od": OrderedDict(b=1, a=2), "dd": defaultdict(int, {3: 4}), "nt": Point(1, [2]), "dc": Frozen(np.arange(3.0)),
        "t": (1, 2), "obj": Recorder({"s": (1,)}), 5: None, "big": 10**5000, "long": b"x" * 5000,
        "scalar": np.int8(3), "e": [{}, [], ()],
    }  # fmt: skip
    restored = save(state).restore()
    weights = restored["dc"].pop("w")
    assert weights.tolist() == [0, 1, 2]
    assert restored == {
        "od": {"b": 1, "a": 2}, "dd": {3: 4}, "nt": (1, [2]), "dc": {"step": 0}, "t": (1, 2), "obj": {"s": (1,)},
        5: None, "big": 10**5000, "long": b"x" * 5000, "scalar": 3, "e": [{}, [], ()],
    }  # fmt: skip
    assert list(restored["od"]) == ["b", "a"]
    assert type(restored["scalar"]) is np.int8
    assert all(type(restored[key]) is dict for key in ("od", "dd", "dc"))
    assert type(restored["nt"]) is tuple


def test_a_bare_array(save: Any) -> None:
    array = np.arange(6.0).reshape(2, 3)
    assert save(array).restore().tolist() == array.tolist()
    target = np.zeros((2, 3))
    assert save(array).restore(target=target) is target
    assert target.tolist() == array.tolist()


def test_none_is_a_state_and_a_target(save: Any) -> None:
    assert save(None).restore() is None
    assert save(3).restore(target=None) == 3


def test_arrays_are_filled_in_place_and_containers_are_the_targets(save: Any) -> None:
    def make(value: float) -> dict[str, Any]:
        tagged = Tagged(k=np.full(2, value))
        tagged.tag = "mine"
        return {
            "od": OrderedDict(b=np.full(2, value), a=1), "dd": defaultdict(list, x=np.full(1, value)),
            "nt": Point(np.full(3, value), 1), "fz": Frozen(np.full(1, value)), "op": Open(np.full(1, value)),
            "tagged": tagged, "t": (np.full(1, value),),
        }  # fmt: skip

    target = make(0)
    before = copy.copy(target)
    restored = save(make(7)).restore(target=target)
    assert restored["od"]["b"] is target["od"]["b"]
    assert restored["od"]["b"].tolist() == [7, 7]
    assert list(restored["od"]) == ["b", "a"]
    assert restored["dd"].default_factory is list
    assert type(restored["nt"]) is Point
    assert restored["nt"].x.tolist() == [7, 7, 7]
    assert type(restored["fz"]) is Frozen
    assert restored["fz"].w.tolist() == [7]
    assert type(restored["op"]) is Open
    assert restored["op"] is not target["op"]
    assert (type(restored["tagged"]), restored["tagged"].tag) == (Tagged, "mine")
    assert type(restored["t"]) is tuple
    assert target == before


def test_plain_values_are_the_checkpoints(save: Any) -> None:
    saved = save(
        {"step": 3, "frozen": Frozen(1), "best": 0.5, "last": None, "lr": 1, "n": 2.0, "np": 3, "py": np.float32(1)}
    )
    target = {
        "step": 0,
        "frozen": Frozen(0),
        "best": None,
        "last": 4.0,
        "lr": 0.5,
        "n": 1,
        "np": np.int16(0),
        "py": 0.0,
    }
    restored = saved.restore(target=target)
    assert {k: restored[k] for k in ("step", "best", "last", "lr", "n", "np", "py")} == {
        "step": 3, "best": 0.5, "last": None, "lr": 1, "n": 2.0, "np": 3, "py": 1.0,
    }  # fmt: skip
    assert restored["frozen"] == Frozen(1)
    assert (type(restored["np"]), type(restored["n"]), type(restored["py"])) == (np.int16, float, np.float32)


@pytest.mark.parametrize(
    ("saved", "target"),
    [
        (True, 1), (1, True), ("a", 1), (b"a", "a"), (1, "a"), (2.5, np.int32(0)), (300, np.int8(0)), (1, np.zeros(1)),
        (np.zeros(1), 1), (np.zeros(1), None), (None, np.zeros(1)), (1, {1}), (b"x" * 5000, np.zeros(5000, "u1")),
        (np.zeros(1), b""), (10**30, np.int64(0)), (np.zeros(2), np.ma.zeros(2)), (np.datetime64(1, "s"), 1.0),
    ],
)  # fmt: skip
def test_leaves_of_different_kinds_are_mismatched(saved: object, target: object, save: Any) -> None:
    with pytest.raises(StructureMismatchError) as caught:
        save({"a": saved}).restore(target={"a": target})
    [line] = caught.value.mismatched
    assert line.startswith("a: ")
    assert caught.value.missing == caught.value.unexpected == ()


def test_matching_is_by_name_whatever_the_containers(save: Any) -> None:
    saved = save({"a": [1, (2,)], "b": {"c": np.ones(1)}, "d": {0: 5}})
    restored = saved.restore(target={"d": [0], "a": ((0), {0: 0}), "b.c": np.zeros(1)})
    assert list(restored) == ["d", "a", "b.c"]
    assert restored["a"] == (1, {0: 2})
    assert restored["d"] == [5]
    assert restored["b.c"].tolist() == [1]


def test_every_difference_is_reported_and_nothing_is_touched(save: Any) -> None:
    target = {"ok": np.zeros(2), "shape": np.zeros(3), "dtype": np.zeros(2, "i4"), "gone": 1, "obj": Recorder("old")}
    saved = save({"ok": np.ones(2), "shape": np.ones(2), "dtype": np.ones(2), "new": [1, 2], "obj": Recorder("new")})
    with pytest.raises(StructureMismatchError, match="2 unexpected") as caught:
        saved.plan(target=target)
    assert caught.value.missing == ("gone",)
    assert caught.value.unexpected == ("new.0", "new.1")
    assert [line.split(":")[0] for line in caught.value.mismatched] == ["shape", "dtype"]
    assert "float64[2] in the checkpoint, float64[3] in the target" in str(caught.value)
    assert target["ok"].tolist() == [0, 0]
    assert target["obj"].state == "old"


def test_a_long_report_is_cut(save: Any) -> None:
    with pytest.raises(StructureMismatchError, match=r"30 unexpected[^.]*\n  \.\.\. and 10 more") as caught:
        save({str(i): i for i in range(30)}).plan(target={})
    assert len(caught.value.unexpected) == 30


def test_not_strict_keeps_and_ignores(save: Any) -> None:
    fresh = np.full(2, 9.0)
    saved = save({"a": np.ones(2), "extra": 1})
    restored = saved.restore(target={"a": np.zeros(2), "b": fresh, "n": {1, 2}, "o": Recorder(5)}, strict=False)
    assert restored["a"].tolist() == [1, 1]
    assert restored["b"] is fresh
    assert restored["n"] == {1, 2}
    assert restored["o"].state == 5
    assert "extra" not in restored
    with pytest.raises(StructureMismatchError, match="reshape=True"):
        saved.restore(target={"a": np.zeros((2, 1))}, strict=False)


def test_reshape_needs_the_same_count(save: Any) -> None:
    saved = save({"a": np.arange(6.0)})
    target = {"a": np.zeros((2, 3))}
    plan = saved.plan(target=target, reshape=True)
    assert plan.reads[0].direct
    assert plan.reads[0].shape == (6,)
    assert saved.restore(target=target, reshape=True)["a"] is target["a"]
    assert target["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    fortran = np.asfortranarray(np.zeros((2, 3)))
    assert saved.restore(target={"a": fortran}, reshape=True)["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(StructureMismatchError):
        saved.plan(target={"a": np.zeros(5)}, reshape=True)


def test_dtype_casts_floating_tensors(save: Any) -> None:
    saved = save({"w": np.array([1.5, 2.0]), "n": np.arange(2), "h": np.ones(1, ml_dtypes.bfloat16)})
    restored = saved.restore(dtype="float32")
    assert [restored[key].dtype.name for key in "wnh"] == ["float32", "int64", "float32"]
    assert saved.restore(dtype=ml_dtypes.bfloat16)["w"].dtype.name == "bfloat16"
    target = {"w": np.zeros(2, "f2"), "n": np.zeros(2, "i8"), "h": np.zeros(1, "f2")}
    assert saved.restore(target=target, dtype=np.float16)["w"] is target["w"]
    assert target["w"].tolist() == [1.5, 2]
    with pytest.raises(StructureMismatchError):
        saved.plan(target=target, dtype=np.float32)


def test_dtype_target_casts_within_the_kind(save: Any) -> None:
    saved = save({"w": np.array([1.5, 2.0]), "n": np.arange(2)})
    target = {"w": np.zeros(2, ml_dtypes.bfloat16), "n": np.zeros(2, "f4")}
    saved.restore(target=target, dtype="target")
    assert target["w"].tolist() == [1.5, 2]
    assert target["n"].tolist() == [0, 1]
    with pytest.raises(StructureMismatchError, match="w: float64"):
        saved.plan(target={"w": np.zeros(2, "i4"), "n": np.zeros(2, "i4")}, dtype="target")


@pytest.mark.parametrize(("dtype", "error"), [("int32", ValueError), ("nonsense", TypeError), ("target", ValueError)])
def test_a_wrong_dtype_is_an_argument_error(dtype: str, error: type[Exception], save: Any) -> None:
    with pytest.raises(error):
        save({}).plan(dtype=dtype)


def test_only_ordinary_memory_is_read_into_directly(save: Any) -> None:
    state = {name: np.arange(4.0).reshape(2, 2) for name in ("c", "fortran", "big", "strided", "readonly", "f4")}
    base = np.zeros((2, 4))
    target = {
        "c": np.zeros((2, 2)), "fortran": np.zeros((2, 2), order="F"), "big": np.zeros((2, 2), ">f8"),
        "strided": base[:, ::2], "readonly": np.zeros((2, 2), order="F"), "f4": np.zeros((2, 2), "f4"),
    }  # fmt: skip
    target["readonly"].flags.writeable = False
    saved = save(state)
    plan = saved.plan(target=target, dtype="target")
    assert [read.name for read in plan.reads if read.direct] == ["c"]
    assert [read.name for read in plan.reads if read.destination is None] == ["readonly", "f4"]
    restored = plan.build(saved.read(plan))
    assert all(np.array_equal(restored[name], state[name]) for name in state)
    assert all(restored[name] is target[name] for name in target if name != "readonly")
    assert restored["big"].dtype.str == ">f8"
    assert restored["readonly"].flags.f_contiguous
    assert not target["readonly"].any()
    assert base[:, 1::2].tolist() == [[0, 0], [0, 0]]


def test_a_state_that_can_be_held_is_read_apart_from_the_target(save: Any) -> None:
    saved = save({"w": np.arange(4.0), "b": b"x" * 5000})
    target = {"w": np.zeros(4), "b": b""}
    held, straight = (saved.plan(target=target, held=held) for held in (5032, 5031))
    assert held.nbytes == straight.nbytes == 5032
    assert [read.name for read in straight.reads if read.direct] == ["w"]
    assert not any(read.direct for read in held.reads)
    arrays = saved.read(held)
    assert not target["w"].any()
    assert held.build(arrays) == {"w": target["w"], "b": b"x" * 5000}
    assert target["w"].tolist() == [0, 1, 2, 3]


def test_memory_that_two_leaves_share_is_read_into_once(save: Any) -> None:
    tied = np.zeros(4)
    target = {"a": tied, "b": tied, "half": tied[2:], "own": np.zeros(4)}
    saved = save({"a": np.ones(4), "b": np.ones(4), "half": np.ones(2), "own": np.ones(4)})
    plan = saved.plan(target=target)
    assert [read.name for read in plan.reads if read.direct] == ["a", "own"]
    restored = plan.build(saved.read(plan))
    assert restored["a"] is restored["b"] is tied
    assert tied.tolist() == [1, 1, 1, 1]


def test_broadcast_targets_get_new_arrays(save: Any) -> None:
    target = np.lib.stride_tricks.as_strided(np.zeros(1), (3,), (0,), writeable=True)
    restored = save({"a": np.arange(3.0)}).restore(target={"a": target})
    assert restored["a"].tolist() == [0, 1, 2]
    assert target.tolist() == [0, 0, 0]


def test_memory_maps_are_filled_in_place(save: Any, tmp_path: Path) -> None:
    target = np.memmap(tmp_path / "m", "f8", "w+", shape=(2,))
    restored = save({"a": np.ones(2)}).restore(target={"a": target})
    assert restored["a"] is target
    target.flush()
    assert np.fromfile(tmp_path / "m").tolist() == [1, 1]


def test_objects_load_their_state_and_stay(save: Any) -> None:
    target = {"opt": Recorder({}), "n": 0}
    saved = save({"opt": Recorder({"m": np.ones(2), "groups": [{"lr": 1, "betas": (0.9, 0.99)}], 0: 1}), "n": 1})
    restored = saved.restore(target=target)
    assert restored["opt"] is target["opt"]
    assert restored["opt"].state["m"].tolist() == [1, 1]
    assert restored["opt"].state["groups"] == [{"lr": 1, "betas": (0.9, 0.99)}]
    assert restored["opt"].state[0] == 1
    assert restored["n"] == 1


def test_an_object_as_the_whole_state_and_one_with_a_bare_state(save: Any) -> None:
    target = Recorder()
    assert save(Recorder({"a": 1})).restore(target=target) is target
    assert target.state == {"a": 1}
    save({"g": Recorder(np.ones(2))}).restore(target={"g": target})
    assert target.state.tolist() == [1, 1]


def test_an_object_takes_a_plain_dict_that_was_saved(save: Any) -> None:
    target = Recorder()
    save({"model": {"w": 1}}).restore(target={"model": target})
    assert target.state == {"w": 1}
    with pytest.raises(StructureMismatchError, match="a single leaf"):
        save({"model": 1}).restore(target={"model": target})
    with pytest.raises(StructureMismatchError) as caught:
        save({"other": 1}).restore(target={"model": target})
    assert caught.value.missing == ("model",)


def test_a_failing_object_stops_before_arrays_are_assigned(save: Any) -> None:
    target = {"w": np.zeros(2, ">f8"), "o": Recorder("old")}
    with pytest.raises(StructureMismatchError, match=r"o: Recorder\.load_state_dict failed") as caught:
        save({"w": np.ones(2), "o": Recorder({"bad": True})}).restore(target=target)
    assert isinstance(caught.value.__cause__, KeyError)
    assert target["w"].tolist() == [0, 0]
    assert target["o"].state == "old"


def test_a_failing_object_tells_which_were_loaded_before(save: Any) -> None:
    state = {"a": Recorder({"x": 1}), "b": [Recorder({"bad": True})], "c": Recorder({"x": 1})}
    target = {"a": Recorder(), "b": [Recorder()], "c": Recorder()}
    with pytest.raises(StructureMismatchError, match=r"b\.0: Recorder\.load_state_dict failed: .*; already loaded: a$"):
        save(state).restore(target=target)
    assert target["a"].state == {"x": 1}
    assert target["c"].state is None


def test_a_target_that_could_not_be_saved_is_refused(save: Any) -> None:
    cyclic: list[Any] = [1]
    cyclic.append(cyclic)
    with pytest.raises(InvalidStateError, match="contains itself"):
        save([1]).plan(target=cyclic)
    with pytest.raises(InvalidStateError, match="two leaves"):
        save({"a.b": 1}).plan(target={"a.b": 1, "a": {"b": 1}})
    with pytest.raises(InvalidStateError, match="key"):
        save({"a": 1}).plan(target={(1,): 1})
