"""Whether a leaf of the checkpoint fits a leaf of the target, and what it becomes there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from asyncsaver.model.dtypes import DType, can_cast, cast, is_floating, storage_order
from asyncsaver.model.leaves import TensorSpec

DtypePolicy = DType | Literal["target"] | None
"""A dtype that floating tensors are cast to, that of each target, or as stored."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A plain value as it will stand in the result."""

    value: Any


def dtype_policy(dtype: object, *, has_target: bool) -> DtypePolicy:
    """Check the ``dtype`` that a caller of restore gave.

    Raises:
        TypeError: it is no dtype.
        ValueError: it is not a floating one, or ``"target"`` without a target.
    """
    if dtype is None:
        return None
    if isinstance(dtype, str) and dtype == "target":
        if not has_target:
            raise ValueError('dtype="target" needs a target')
        return "target"
    wanted: DType = np.dtype(dtype)  # type: ignore[call-overload]
    if not is_floating(wanted):
        raise ValueError(f'dtype must be a floating-point dtype or "target", not {wanted}')
    return storage_order(wanted)


def cast_dtype(stored: DType, policy: DtypePolicy) -> DType:
    """What a tensor that no target asks for is restored as."""
    return policy if isinstance(policy, np.dtype) and is_floating(stored) else stored


def array_problem(stored: TensorSpec, target: TensorSpec, policy: DtypePolicy, *, reshape: bool) -> str | None:
    """Why a tensor does not fit an array; None when it does."""
    if policy is None and stored == target:  # nearly always; the rest is slower
        return None
    wanted = storage_order(target.dtype)
    if policy == "target":
        fits = stored.dtype == wanted or can_cast(stored.dtype, wanted)
    else:
        fits = cast_dtype(stored.dtype, policy) == wanted
    same_shape = stored.shape == target.shape or (reshape and stored.count == target.count)
    if fits and same_shape:
        return None
    problem = f"{stored} in the checkpoint, {target} in the target"
    # A remedy that leaves the other half of the problem standing would only lead to the next error.
    if (not fits and not can_cast(stored.dtype, wanted)) or (not same_shape and stored.count != target.count):
        return problem
    remedies = ['dtype="target" would cast it'] * (not fits) + ["reshape=True would reshape it"] * (not same_shape)
    return f"{problem} ({', '.join(remedies)})"


def fit_value(target: object, value: object) -> Fitted | None:
    """A plain value of the checkpoint for a plain value of the target; None where they differ in kind.

    The checkpoint's value it is. None goes with everything, and numbers with numbers: where the target has a NumPy
    number, the result is one of its dtype, if that holds the value (up to rounding between floats).
    """
    if target is None or value is None:
        return Fitted(value)
    category = _category(target)
    if category is None or category != _category(value):
        return None
    if category == "number" and isinstance(target, np.generic):
        return _as_number(target.dtype, value)
    return Fitted(value)


def _as_number(dtype: DType, value: Any) -> Fitted | None:
    try:
        converted = cast(np.asarray(value), dtype)[()]
    except (OverflowError, TypeError):  # an integer beyond 64 bits
        return None
    if not is_floating(dtype) and converted != value:
        return None
    return Fitted(converted)


def is_plain(value: object) -> bool:
    """Whether a value of the target is one that stands in the tree, rather than an array or something unknown."""
    return value is None or _category(value) is not None


def _category(value: object) -> str | None:
    if isinstance(value, np.generic):
        if is_floating(value.dtype):
            return "number"
        name = value.dtype.name
        if value.dtype.kind in "iu" or name.startswith(("int", "uint")):
            return "number"
        return {"b": "bool", "U": "str", "S": "bytes"}.get(value.dtype.kind, value.dtype.kind)
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "str"
    return "bytes" if isinstance(value, bytes) else None
