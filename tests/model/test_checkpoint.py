"""Metrics and metadata as JSON holds them, and what users get back."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.model.checkpoint import check_metadata, checkpoint_of, decode_metrics, encode_metrics
from asyncsaver.model.statefile import Entry

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(text, st.floats() | st.integers()))
def test_metrics_come_back(metrics: dict[str, float]) -> None:
    encoded = msgspec.json.decode(msgspec.json.encode(encode_metrics(metrics)), type=dict[str, int | float | str])
    decoded = decode_metrics(encoded)
    assert decoded.keys() == metrics.keys()
    for name, value in metrics.items():
        if type(value) is int and abs(value) < 2**53:
            assert type(decoded[name]) is int
        np.testing.assert_equal(float(decoded[name]), float(value))


def test_metrics_of_other_numbers() -> None:
    encoded = encode_metrics({"a": np.float32(0.5), "b": np.int64(3), "c": np.array(2.5), "d": True, "e": 2**60})
    assert encoded == {"a": 0.5, "b": 3.0, "c": 2.5, "d": 1.0, "e": float(2**60)}
    assert encode_metrics({"a": math.nan, "b": math.inf, "c": -math.inf, "d": np.float16("inf")}) == {
        "a": "nan", "b": "inf", "c": "-inf", "d": "inf",
    }  # fmt: skip
    assert encode_metrics(None) == {}


@pytest.mark.parametrize(
    "metrics", [{"a": "1"}, {"a": None}, {"a": b"1"}, {"a": [1]}, {1: 1.0}, {"a": 1j}, {"a": np.ones(2)}]
)
def test_what_is_no_number_by_name_is_refused(metrics: Any) -> None:
    with pytest.raises(TypeError):
        encode_metrics(metrics)


@pytest.mark.parametrize("metrics", [{"a": 10**400}, {"a": -(10**400)}, {"\ud800": 1.0}])
def test_numbers_and_names_that_json_cannot_hold_are_refused(metrics: Any) -> None:
    with pytest.raises(ValueError, match="metrics"):
        encode_metrics(metrics)


@given(json_values)
def test_metadata_comes_back(value: Any) -> None:
    checked = check_metadata(value)
    assert checked == value
    assert msgspec.json.decode(msgspec.json.encode(checked)) == value
    assert json.loads(msgspec.json.encode(checked)) == value


def test_metadata_is_copied_and_plain() -> None:
    inner = [1]
    given_metadata = OrderedDict(a=inner, b=(1, (2,)))
    checked = check_metadata(given_metadata)
    assert checked == {"a": [1], "b": [1, [2]]}
    assert type(checked) is dict
    inner.append(2)
    assert checked["a"] == [1]


@pytest.mark.parametrize(
    ("value", "error", "place"),
    [
        ({"a": [1, {"b": object()}]}, TypeError, r"metadata\.a\[1\]\.b: object"),
        ({1: 2}, TypeError, "metadata: keys must be str"),
        ({"a": math.nan}, ValueError, r"metadata\.a"),
        ([math.inf], ValueError, r"metadata\[0\]"),
        (2**64, ValueError, "64 bits"),
        (-(2**63) - 1, ValueError, "64 bits"),
        (np.float32(1), TypeError, "float32 is not JSON"),
        (b"x", TypeError, "bytes is not JSON"),
        ({1, 2}, TypeError, "set is not JSON"),
        ({"a": "\ud800"}, ValueError, r"metadata\.a.*surrogates"),
        ({"a": {"\ud800": 1}}, ValueError, r"metadata\.a.*surrogates"),
    ],
)
def test_what_json_cannot_hold_is_refused_and_named(value: Any, error: type[Exception], place: str) -> None:
    with pytest.raises(error, match=place):
        check_metadata(value)


def test_metadata_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueError, match="nested deeper"):
        check_metadata(value)


def test_a_checkpoint_from_an_entry() -> None:
    entry = Entry(
        state="committed", name="ckpt-00000005", step=5, slot=1, etag="e", created=datetime(2026, 1, 1, tzinfo=UTC),
        save_id="s", sequence=9, total_bytes=7, world_size=2, metrics={"loss": "nan", "steps": 3}, metadata={"a": 1},
    )  # fmt: skip
    checkpoint = checkpoint_of(entry, "s3://bucket/run/", pinned=True)
    assert checkpoint.url == "s3://bucket/run/ckpt-00000005"
    assert (checkpoint.step, checkpoint.slot, checkpoint.save_id, checkpoint.created) == (5, 1, "s", entry.created)
    assert (checkpoint.total_bytes, checkpoint.world_size, checkpoint.pinned, checkpoint.stats) == (7, 2, True, None)
    assert checkpoint.metadata == {"a": 1}
    assert checkpoint.metrics["steps"] == 3
    assert math.isnan(checkpoint.metrics["loss"])
