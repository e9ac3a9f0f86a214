"""Whatever can be saved comes back as it was, through JSON text and little-endian bytes."""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from asyncsaver.errors import InvalidStateError

dtypes = (
    npst.boolean_dtypes()
    | npst.integer_dtypes(endianness="?")
    | npst.floating_dtypes(endianness="?", sizes=(16, 32, 64))
    | npst.complex_number_dtypes(endianness="?", sizes=(64, 128))
    | npst.datetime64_dtypes(endianness="?")
    | npst.timedelta64_dtypes(endianness="?")
    | npst.byte_string_dtypes(min_len=1)
    | npst.unicode_string_dtypes(endianness="?", min_len=1)
)
extended = st.sampled_from([ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4])
shapes = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
arrays = npst.arrays(dtypes, shapes) | st.builds(
    lambda kind, array: array.astype(kind), extended, npst.arrays(np.int8, shapes, elements=st.integers(-8, 7))
)
transposed = arrays.map(np.transpose)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs"]), max_size=3)
    | st.binary()
    | st.binary(min_size=4097, max_size=4100)
    | arrays.filter(lambda array: array.size > 0).map(lambda array: array.ravel()[0])
    | st.text(st.characters()).map(np.str_)
    | st.binary().map(np.bytes_)
    | st.binary(min_size=1).map(np.void)
)
keys = st.text("abc", min_size=1, max_size=3) | st.integers() | st.integers(0, 2)
states = st.recursive(
    scalars | arrays | transposed,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4).map(OrderedDict)
        | st.dictionaries(keys, inner, max_size=4).map(lambda d: defaultdict(list, d))
    ),
    max_leaves=12,
)
fast = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def same(one: Any, two: Any) -> bool:
    """Equality that tells -0.0 from 0.0, knows nan, and compares dtypes but for their byte order."""
    if isinstance(one, np.ndarray | np.generic):
        little = one.dtype.newbyteorder("<")
        return (
            isinstance(two, type(one))
            and two.dtype.newbyteorder("<") == little
            and one.shape == two.shape
            and np.asarray(one).astype(little).tobytes() == np.asarray(two).astype(little).tobytes()
        )
    if isinstance(one, dict):
        return (
            isinstance(two, dict)
            and list(one) == list(two)
            and all(type(a) is type(b) for a, b in zip(one, two, strict=True))
            and all(same(one[k], two[k]) for k in one)
        )
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, float):
        if math.isnan(one):
            return type(two) is float and math.isnan(two)
        return type(two) is float and one == two and math.copysign(1, one) == math.copysign(1, two)
    return type(one) is type(two) and one == two


def blank(state: Any) -> Any:
    """A target for a state: the same structure, other content."""
    match state:
        case np.ndarray():
            return np.zeros_like(state)
        case OrderedDict():
            return OrderedDict((k, blank(v)) for k, v in state.items())
        case defaultdict():
            return defaultdict(list, {k: blank(v) for k, v in state.items()})
        case dict():
            return {k: blank(v) for k, v in state.items()}
        case list():
            return [blank(v) for v in state]
        case tuple():
            return tuple(blank(v) for v in state)
        case _:
            return None


@fast
@given(states)
def test_states_round_trip(save: Any, state: Any) -> None:
    try:
        saved = save(state)
    except InvalidStateError as error:
        assert "would both be named" in str(error)  # noqa: PT017 - random keys may collide
        return
    assert same(state, saved.restore())
    restored = saved.restore(target=blank(state))
    assert type(restored) is type(state)
    assert same(state, restored)


def test_a_scalar_loses_no_trailing_zeros(save: Any) -> None:
    state = [np.str_("a\0"), np.bytes_(b"a\0"), np.str_(""), np.bytes_(b""), np.void(b"")]
    restored = save(state).restore()
    assert [type(value) for value in restored] == [type(value) for value in state]
    assert restored[:4] == state[:4]
