"""What a saver may be bound to, and what is refused with TensorFlow's words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from asyncsaver import Partitioned, SaveSpec, SliceInfo, UnsupportedLeafError, Variable
from asyncsaver.model.dtypes import Array
from asyncsaver.model.leaves import Adapters
from asyncsaver.variables import Saveable, bind


class Pair:
    """A saveable of two tensors."""

    def __init__(self, name: str = "s", names: Sequence[str] = ("s/x", "s/y")) -> None:
        self.name = name
        self.names = names
        self.got: list[Any] = []

    def specs(self) -> Sequence[SaveSpec]:
        return [SaveSpec(name, np.full(2, number, "f4")) for number, name in enumerate(self.names)]

    def restore(self, values: Sequence[Array], shapes: Sequence[tuple[int, ...]] | None) -> None:
        self.got.append((values, shapes))


@pytest.mark.parametrize("var_list", [None, [], {}, (), set()])
def test_item_003_no_variables(var_list: Any, adapters: Adapters) -> None:
    with pytest.raises(ValueError, match=r"^No variables to save"):
        bind(var_list, adapters)


@pytest.mark.parametrize("var_list", [None, [], {}])
def test_item_004_no_variables_are_allowed_when_asked_for(var_list: Any, adapters: Adapters) -> None:
    bound = bind(var_list, adapters, allow_empty=True)
    assert bound.empty
    assert bound.state() == {}
    assert bound.names == ()
    assert not bind({"a": np.zeros(1)}, adapters, allow_empty=True).empty


def test_item_005_a_list_is_keyed_by_own_names(adapters: Adapters) -> None:
    b, a = Variable("b", np.ones(1)), Variable("a", np.zeros(2))
    for var_list in ([b, a], (b, a), {b, a}):
        bound = bind(var_list, adapters)
        assert not bound.empty
        assert bound.names == ("a", "b")
        assert list(bound.state()) == ["a", "b"]
        assert bound.state()["a"] is a.value
    assert repr(bound) == "<2 bound variables>"


def test_item_005_an_array_with_a_name_is_one_too(adapters: Adapters) -> None:
    torch = pytest.importorskip("torch")

    class Named(torch.Tensor):  # type: ignore[misc]
        name = "w"

    leaf = torch.ones(2).as_subclass(Named)
    assert list(bind([leaf], adapters).state()) == ["w"]


def test_item_006_a_dict_renames(adapters: Adapters) -> None:
    variable, array = Variable("own", np.ones(1)), np.zeros(2)
    state = bind({"z/other": variable, "m/array": array}, adapters).state()
    assert list(state) == ["m/array", "z/other"]
    assert state["m/array"] is array
    assert state["z/other"] is variable.value


def test_item_007_two_variables_of_one_name(adapters: Adapters) -> None:
    variable = Variable("a", np.ones(1))
    for var_list in ([variable, Variable("a", np.ones(1))], [variable, variable], [Pair("s", ["a"]), variable]):
        with pytest.raises(ValueError, match=r"^At least two variables have the same name: a$"):
            bind(var_list, adapters)
    with pytest.raises(ValueError, match=r"^At least two saveables have the same name: s$"):
        bind([Pair(), Pair(names=["t/x"])], adapters)
    with pytest.raises(ValueError, match=r"^At least two variables have the same name: s/x$"):
        bind([Pair(), Pair("t")], adapters)
    with pytest.raises(ValueError, match=r"^At least two variables have the same name: s/x$"):
        bind({"s/x": np.zeros(1), "s": Pair()}, adapters)


def test_item_008_one_object_under_two_names(adapters: Adapters) -> None:
    array, pair = np.ones(2), Pair()
    variable = Variable("v", array)
    for var_list in (
        {"x": array, "y": array},
        {"x": variable, "y": variable},
        {"x": variable, "y": array},
        {"x": array, "y": Partitioned.joined([np.ones(2), array])},
    ):
        with pytest.raises(ValueError, match=r"^The same saveable will be restored with two names: x and y$"):
            bind(var_list, adapters)
    with pytest.raises(ValueError, match=r"^At least two saveables have the same name: s$"):
        bind({"x": pair, "y": pair}, adapters)


def test_item_008_equal_values_are_not_the_same_object(adapters: Adapters) -> None:
    assert len(bind({"x": np.ones(2), "y": np.ones(2)}, adapters).names) == 2
    assert len(bind([Variable("x", 3), Variable("y", 3)], adapters).names) == 2  # numbers have no identity


@pytest.mark.parametrize("name", [1, None, b"a", ("a",)])
def test_item_009_a_name_is_a_string(name: Any, adapters: Adapters) -> None:
    with pytest.raises(TypeError, match=re.escape(f"Name is not a string: {name!r}")):
        bind({name: np.zeros(1)}, adapters)
    with pytest.raises(TypeError, match="must be a string"):
        Variable(name, np.zeros(1))


def test_item_009_a_name_is_not_empty(adapters: Adapters) -> None:
    with pytest.raises(ValueError, match="empty"):
        bind({"": np.zeros(1)}, adapters)
    with pytest.raises(ValueError, match="empty"):
        Variable("", np.zeros(1))
    with pytest.raises(TypeError, match="a tensor of the saveable 's' needs a name, not ''"):
        bind([Pair(names=["s/x", ""])], adapters)


@pytest.mark.parametrize(
    "value", ["abc", None, [1.0], {"a": 1}, object(), b"bytes", np.str_("x"), np.array([object()])[0]]
)
def test_item_009_what_is_no_variable(value: Any, adapters: Adapters) -> None:
    for var_list in ({"a": value}, {"a": Variable("b", value)}):
        with pytest.raises(TypeError, match="Not a variable: 'a' is a value of type"):
            bind(var_list, adapters)


def test_item_009_an_array_that_no_checkpoint_can_hold_is_named(adapters: Adapters) -> None:
    with pytest.raises(UnsupportedLeafError, match=r"^a: the mask of a masked array"):
        bind({"a": np.ma.zeros(2)}, adapters)
    with pytest.raises(TypeError, match=r"^a: 36893488147419103232 needs more than 64 bits"):
        bind([Variable("a", 2**65)], adapters)


@pytest.mark.parametrize("value", [1, 2.5, True, np.float32(1), np.int64(3), np.bool_(1)])
def test_item_009_a_number_needs_a_variable_to_stand_in(value: Any, adapters: Adapters) -> None:
    with pytest.raises(TypeError, match=r"^a: .* cannot be changed in place: give a Variable\('a', it\)"):
        bind({"a": value}, adapters)
    state = bind([Variable("a", value)], adapters).state()
    assert state["a"].shape == ()
    assert state["a"].dtype == np.asarray(value).dtype
    assert state["a"] == value


def test_item_009_a_type_of_ml_dtypes_is_a_number_too(adapters: Adapters) -> None:
    import ml_dtypes  # noqa: PLC0415

    state = bind([Variable("a", ml_dtypes.bfloat16(1.5))], adapters).state()
    assert state["a"].dtype == ml_dtypes.bfloat16


def test_item_009_what_cannot_be_filled_needs_a_variable(adapters: Adapters) -> None:
    fixed = np.zeros(2)
    fixed.flags.writeable = False
    for value in (fixed, np.broadcast_to(np.zeros(()), (3,)), Partitioned.joined([np.zeros(2), fixed])):
        with pytest.raises(TypeError, match=r"^a: .* cannot be changed in place"):
            bind({"a": value}, adapters)
        assert bind({"a": Variable("v", value)}, adapters).state()["a"] is value


def test_item_009_tensors_of_pytorch(adapters: Adapters) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"^a: .* cannot be changed in place"):
        bind({"a": torch.zeros(1).expand(3)}, adapters)
    with pytest.raises(UnsupportedLeafError, match=r"^a: .*sparse"):
        bind({"a": torch.zeros(2).to_sparse()}, adapters)
    model = torch.nn.Linear(3, 2)
    assert bind(model.state_dict(), adapters).names == ("bias", "weight")


def test_item_009_arrays_of_jax_need_a_variable(adapters: Adapters) -> None:
    jax = pytest.importorskip("jax")
    array = jax.numpy.zeros(2)
    with pytest.raises(TypeError, match=r"^a: .* cannot be changed in place"):
        bind({"a": array}, adapters)
    bound = bind([Variable("a", array), Variable("b", array)], adapters)  # it never changes: two may share it
    assert bound.state()["b"] is array


@pytest.mark.parametrize("value", [1, "abc", None, np.zeros(2), Partitioned((1,), [((0,), np.zeros(1))])])
def test_item_010_a_bad_item_of_a_list_is_a_type_error(value: Any, adapters: Adapters) -> None:
    with pytest.raises(
        TypeError, match=r"has no name of its own: give a dict of name → array, or Variable\(name, it\)"
    ):
        bind([value], adapters)


def test_item_010_a_tensor_of_pytorch_has_no_name(adapters: Adapters) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="has no name of its own"):
        bind([torch.zeros(1)], adapters)


def test_item_010_a_name_that_is_no_string_is_none(adapters: Adapters) -> None:
    class Odd:
        name = 7

    with pytest.raises(TypeError, match="has no name of its own"):
        bind([Odd()], adapters)


@pytest.mark.parametrize("var_list", ["abc", 7, np.zeros(2), Variable("a", np.zeros(1)), iter([])])
def test_item_009_neither_dict_nor_list(var_list: Any, adapters: Adapters) -> None:
    with pytest.raises(TypeError, match=r"^Variables to save should be passed in a dict or a list. Got"):
        bind(var_list, adapters)


def test_items_011_and_012_names_are_frozen_when_bound(adapters: Adapters) -> None:
    variables: dict[str, Any] = {"a": np.zeros(1)}
    bound = bind(variables, adapters)
    variables["b"] = np.zeros(1)
    variables["a"] = np.ones(1)
    assert bound.names == ("a",)
    assert bound.state()["a"] == 0
    items = [Variable("a", 1)]
    bound = bind(items, adapters)
    items.append(Variable("b", 2))
    items[0].value = 5
    assert list(bound.state()) == ["a"]
    assert bound.state()["a"] == 5


def test_items_011_and_012_a_saveable_that_changes_its_names_is_refused(adapters: Adapters) -> None:
    pair = Pair()
    bound = bind([pair], adapters)
    pair.names = ["s/x", "s/z"]
    message = "the saveable 's' had the tensors s/x, s/y when the saver was bound to it, and has s/x, s/z now"
    with pytest.raises(ValueError, match=message):
        bound.state()


def test_items_011_and_012_a_variable_that_holds_no_array_any_more_is_named(adapters: Adapters) -> None:
    variable = Variable("a", np.zeros(1))
    bound = bind([variable], adapters)
    variable.value = "text"
    with pytest.raises(TypeError, match=r"Not a variable: 'a' is a value of type builtins\.str"):
        bound.state()
    assert repr(variable) == "<Variable 'a': str>"


def test_item_037_a_saveable_has_several_tensors(adapters: Adapters) -> None:
    pair = Pair()
    assert isinstance(pair, Saveable)
    bound = bind({"whatever": pair, "a": np.zeros(1), "t": np.zeros(1)}, adapters)
    assert bound.names == ("a", "s/x", "s/y", "t")
    assert {name: value.tolist() for name, value in bound.state().items()} == {
        "a": [0],
        "s/x": [0, 0],
        "s/y": [1, 1],
        "t": [0],
    }
    assert dict(bound.saveables) == {"s": ("s/x", "s/y")}


class Rows:
    """A saveable of some rows of a larger tensor."""

    def __init__(self, name: str, start: int, array: Any, full_shape: tuple[int, ...] = (4, 2)) -> None:
        self.name, self.start, self.array, self.full_shape = name, start, array, full_shape

    def specs(self) -> Sequence[SaveSpec]:
        return [SaveSpec("table", self.array, SliceInfo(self.full_shape, (self.start, 0)))]

    def restore(self, values: Sequence[Array], shapes: Sequence[tuple[int, ...]] | None) -> None:
        [value] = values
        self.array[...] = value


def test_item_038_slices_of_several_saveables_make_one_tensor(adapters: Adapters) -> None:
    bound = bind([Rows("r1", 3, np.ones((1, 2))), Rows("r0", 0, np.zeros((3, 2)))], adapters)
    assert bound.names == ("table",)
    table = bound.state()["table"]
    assert isinstance(table, Partitioned)
    assert table.shape == (4, 2)
    assert [part.offset for part in table.slices] == [(0, 0), (3, 0)]


def test_item_038_slices_must_cover_their_tensor(adapters: Adapters) -> None:
    first = Rows("r0", 0, np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"^table: .* no slice holds \[3:4, 0:2\]"):
        bind([first], adapters)
    with pytest.raises(ValueError, match=r"^table: .* overlap"):
        bind([first, Rows("r1", 2, np.zeros((2, 2)))], adapters)
    with pytest.raises(ValueError, match=r"^table: its slices differ about its shape: \(4, 2\), \(5, 2\)"):
        bind([first, Rows("r1", 3, np.zeros((1, 2)), (5, 2))], adapters)
    for whole in ({"a": first, "table": np.zeros((4, 2))}, {"table": np.zeros((4, 2)), "z": first}):
        with pytest.raises(ValueError, match="At least two variables have the same name: table"):
            bind(whole, adapters)


def test_items_029_and_030_the_shard_of_a_variable_is_its_device_or_its_key(adapters: Adapters) -> None:
    torch = pytest.importorskip("torch")

    class Keyed(Pair):
        def specs(self) -> Sequence[SaveSpec]:
            return [SaveSpec(spec.name, spec.value, shard_key=spec.name[-1]) for spec in super().specs()]

    bound = bind(
        {
            "torch": torch.zeros(1),
            "key": Variable("v", 1, shard_key="ps:1"),
            "number": Variable("n", 1),
            "parts": Partitioned.joined([torch.zeros(1), torch.zeros(1)]),
            "s": Keyed(),
        },
        adapters,
    )
    assert bound.shard_keys() == {
        "key": "ps:1",
        "number": "cpu",
        "parts": "cpu",
        "s/x": "x",
        "s/y": "y",
        "torch": "cpu",
    }
