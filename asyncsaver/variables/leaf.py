"""Values of variables as leaves of a state."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from asyncsaver.errors import UnsupportedLeafError
from asyncsaver.model.dtypes import Array
from asyncsaver.model.leaves import Adapters, LeafAdapter, TensorSpec

_NUMBERS = (np.number, np.bool_, bool, int, float)


def as_leaf(name: str, value: Any, adapters: Adapters) -> Any:
    """An array as it is, and a number as a new array without axes.

    Raises:
        TypeError: it is neither.
    """
    if adapters.find(value) is not None:
        return value
    if is_number(value):
        array: Array = np.asarray(value)
        if array.dtype.hasobject:
            raise TypeError(f"{name}: {value!r} needs more than 64 bits")
        return array
    raise TypeError(
        f"var_list must map names to arrays, numbers in a Variable, or Saveables. Not a variable: {name!r} is a value of type "
        f"{type(value).__module__}.{type(value).__qualname__}"
    )


def is_number(value: object) -> bool:
    """Whether a value is one that `as_leaf` makes an array of."""
    return isinstance(value, _NUMBERS) or (isinstance(value, np.generic) and value.dtype.isbuiltin == 2)


def like_number(value: Any, array: Array) -> Any:
    """A number of the kind of ``value`` from an array without axes."""
    return array[()] if isinstance(value, np.generic) else type(value)(array[()])


def spec_of(name: str, leaf: Any, adapters: Adapters) -> TensorSpec:
    """Dtype and shape of a leaf that `as_leaf` gave.

    Raises:
        UnsupportedLeafError: no checkpoint can hold it.
    """
    adapter = cast("LeafAdapter", adapters.find(leaf))
    try:
        return adapter.describe(leaf)
    except UnsupportedLeafError as exc:
        raise UnsupportedLeafError(f"{name}: {exc}") from exc


def check_fillable(name: str, value: Any, adapters: Adapters) -> None:
    """Raise `TypeError` for what a restore could not fill in place."""
    adapter = adapters.find(value)
    if (adapter is None and is_number(value)) or (adapter is not None and not adapter.is_fillable(value)):
        raise TypeError(
            f"{name}: a value of type {type(value).__module__}.{type(value).__qualname__} that cannot be changed in place: give "
            f"a Variable({name!r}, it), which holds what was restored"
        )
