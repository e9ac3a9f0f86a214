"""What a header and a part say of the tensors of a shard."""

from __future__ import annotations

import numpy as np
import pytest

from asyncsaver.model.flatten import flatten
from asyncsaver.model.leaves import Adapters
from asyncsaver.model.manifest import Chunk, TensorEntry
from asyncsaver.model.shards import plan_shards
from asyncsaver.model.written import header_rows, written_entries

STATE = {"bytes": np.zeros(3, "u1"), "wide": np.zeros((2, 1), "c16"), "one": np.ones(()), "none": np.ones(0)}


def test_header_and_entries_agree_about_where_the_tensors_are() -> None:
    tensors = flatten(STATE, Adapters()).tensors
    [plan] = plan_shards(tensors, 1000)
    assert list(header_rows(plan, tensors)) == [
        ("wide", "U8", (2, 1, 16), 0, 32),
        ("one", "F64", (), 32, 40),
        ("none", "F64", (0,), 40, 40),
        ("bytes", "U8", (3,), 40, 43),
    ]
    assert written_entries(plan, tensors, 7, 100, ["w", "o", "n", "b"]) == {
        "wide": TensorEntry("complex128", (2, 1), (Chunk((0, 0), (2, 1), 7, 100, 132, "w"),)),
        "one": TensorEntry("float64", (), (Chunk((), (), 7, 132, 140, "o"),)),
        "none": TensorEntry("float64", (0,), (Chunk((0,), (0,), 7, 140, 140, "n"),)),
        "bytes": TensorEntry("uint8", (3,), (Chunk((0,), (3,), 7, 140, 143, "b"),)),
    }


def test_every_tensor_needs_its_hash() -> None:
    tensors = flatten(STATE, Adapters()).tensors
    [plan] = plan_shards(tensors, 1000)
    with pytest.raises(ValueError, match="shorter"):
        written_entries(plan, tensors, 0, 0, ["one", "two"])
