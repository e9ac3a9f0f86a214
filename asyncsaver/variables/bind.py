"""From a ``var_list`` to the variables that a saver is bound to. Wrong ones are refused here, with TensorFlow's words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from asyncsaver.model.leaves import Adapters
from asyncsaver.model.partitioned import Partitioned
from asyncsaver.variables.bound import Bound, gather
from asyncsaver.variables.items import Custom, Held, Item, Plain
from asyncsaver.variables.leaf import check_fillable, spec_of
from asyncsaver.variables.saveable import Saveable, SaveSpec
from asyncsaver.variables.variable import Variable


def bind(var_list: Any, adapters: Adapters, *, allow_empty: bool = False) -> Bound:
    """Bind a saver to its variables.

    Args:
        var_list: a dict of name → array, `Partitioned`, `Variable` or `Saveable`; a variable is then saved under that name rather
            than its own, a saveable always names its tensors itself. Or a list of variables and saveables, and of arrays that
            have a ``name``. What is added to it later is not saved.
        adapters: for the arrays.
        allow_empty: accept that there are none.

    Raises:
        ValueError: there are none; two have one name; one has two names; slices do not cover their tensor exactly once.
        TypeError: it is neither dict nor list, a name is no string, or a value is nothing that could be saved and restored in
            place; an array or a dtype that no checkpoint can hold is an `UnsupportedLeafError`.
    """
    items = sorted(_items(var_list), key=lambda item: item.name)
    if not items and not allow_empty:
        raise ValueError("No variables to save: var_list has none")
    specs = [item.specs() for item in items]
    _check_names(items, specs)
    _check_identities(items, adapters)
    state = gather(chain.from_iterable(specs), adapters)
    for name, leaf in state.items():
        spec_of(name, leaf, adapters)
    for item in items:
        if isinstance(item, Plain):
            check_fillable(item.name, item.leaf, adapters)
    return Bound(items, adapters)


def _items(var_list: Any) -> Iterator[Item]:
    if isinstance(var_list, Mapping):
        for name, value in var_list.items():
            if not isinstance(name, str):
                raise TypeError(
                    f"var_list must be a dict mapping string names to variables. Name is not a string: {name!r}"
                )
            if not name:
                raise ValueError("a name in var_list is empty: every variable needs one")
            yield _item(name, value)
    elif isinstance(var_list, list | tuple | set | frozenset):
        for value in var_list:
            yield _item(_own_name(value), value)
    elif var_list is not None:
        raise TypeError(
            f"Variables to save should be passed in a dict or a list. Got a value of type {type(var_list).__name__}"
        )


def _own_name(value: Any) -> str:
    name = getattr(value, "name", None)
    if isinstance(name, str) and name:
        return name
    raise TypeError(
        f"a value of type {type(value).__module__}.{type(value).__qualname__} in var_list has no name of its own: give a dict of "
        "name → array, or Variable(name, it)"
    )


def _item(name: str, value: Any) -> Item:
    if isinstance(value, Variable):
        return Held(name, value)
    if isinstance(value, Saveable):
        return Custom(value, value.name, tuple((spec.name, spec.slice) for spec in value.specs()))
    return Plain(name, value)


def _check_names(items: Sequence[Item], specs: Iterable[Sequence[SaveSpec]]) -> None:
    """Raise `ValueError` unless every name stands for one tensor, or for slices of one."""
    whole: set[str] = set()
    sliced: set[str] = set()
    owners: set[str] = set()
    for item, own in zip(items, specs, strict=True):
        if isinstance(item, Custom):
            if item.name in owners:
                raise ValueError(f"At least two saveables have the same name: {item.name}")
            owners.add(item.name)
        for spec in own:
            if not isinstance(spec.name, str) or not spec.name:
                raise TypeError(f"a tensor of the saveable {item.name!r} needs a name, not {spec.name!r}")
            if spec.name in whole or (spec.slice is None and spec.name in sliced):
                raise ValueError(f"At least two variables have the same name: {spec.name}")
            (whole if spec.slice is None else sliced).add(spec.name)


def _check_identities(items: Iterable[Item], adapters: Adapters) -> None:
    """Raise `ValueError` for one object under two names: the one restored last would count."""
    seen: dict[int, str] = {}
    for item in items:
        for thing in _things(item, adapters):
            name = seen.setdefault(id(thing), item.name)
            if name != item.name:
                raise ValueError(f"The same saveable will be restored with two names: {name} and {item.name}")


def _things(item: Item, adapters: Adapters) -> Iterator[object]:
    """What must not be there twice: the thing itself, and the arrays in it that can change."""
    if isinstance(item, Custom):
        yield item.saveable
        return
    if isinstance(item, Held):
        yield item.variable
    [spec] = item.specs()
    arrays = [part.array for part in spec.value.slices] if isinstance(spec.value, Partitioned) else [spec.value]
    for array in arrays:
        adapter = adapters.find(array)
        if adapter is not None and not adapter.is_immutable(array):
            yield array
