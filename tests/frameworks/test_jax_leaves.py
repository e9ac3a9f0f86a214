"""JAX arrays in a state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest

from asyncsaver.errors import UnsupportedLeafError
from asyncsaver.model.leaves import Adapters

jax = pytest.importorskip("jax")


class Moments(NamedTuple):
    mu: Any
    nu: Any


@dataclass(frozen=True)
class TrainState:
    step: Any
    params: Any
    opt_state: Any
    apply_fn: Any = field(metadata={"pytree_node": False})


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint32", "int32", "float16", "bfloat16", "float32", "complex64"])
def test_dtypes_come_back(dtype: str, save: Any) -> None:
    array = jax.numpy.arange(6).reshape(2, 3).astype(dtype)
    saved = save({"x": array})
    assert saved.flat.tree == {"dict": {"x": {"tensor": "x", "kind": "jax"}}}
    assert saved.restore()["x"].dtype.name == dtype
    target = jax.numpy.zeros((2, 3), dtype)
    restored = saved.restore(target={"x": target})["x"]
    assert isinstance(restored, jax.Array)
    assert restored.dtype == array.dtype
    assert restored.sharding == target.sharding
    assert restored.committed == target.committed
    assert bool((restored == array).all())
    assert not bool(target.any())


def test_an_array_stays_committed_to_its_device(save: Any) -> None:
    target = jax.device_put(np.zeros(2, "f4"), jax.devices()[0])
    assert save({"x": np.ones(2, "f4")}).restore(target={"x": target})["x"].committed
    assert target.committed


def test_a_train_state_comes_back(save: Any) -> None:
    def make(value: float) -> TrainState:
        params = {"w": jax.numpy.full((2,), value)}
        return TrainState(jax.numpy.array(int(value)), params, (Moments(params, params), ()), print)

    restored = save(make(3)).restore(target=make(0))
    assert type(restored) is TrainState
    assert restored.apply_fn is print
    assert restored.params["w"].tolist() == [3, 3]
    assert type(restored.opt_state[0]) is Moments
    assert int(restored.step) == 3


def test_arrays_are_immutable_and_have_no_writable_memory() -> None:
    adapter = Adapters.discover().find(jax.numpy.zeros(1))
    assert adapter is not None
    assert adapter.kind == "jax"
    assert adapter.is_immutable(jax.numpy.zeros(1))
    assert adapter.writable_view(jax.numpy.zeros(1)) is None
    assert isinstance(adapter.from_numpy(np.zeros(1, "f4")), jax.Array)
    assert adapter.from_numpy(np.zeros(1, "f8")).dtype == np.float64


def test_casts_to_the_target(save: Any) -> None:
    restored = save({"x": np.ones(2, "f4")}).restore(target={"x": jax.numpy.zeros(2, "bfloat16")}, dtype="target")
    assert restored["x"].dtype == "bfloat16"
    assert restored["x"].tolist() == [1, 1]


def test_what_cannot_be_saved_says_what_to_do(save: Any) -> None:
    with pytest.raises(UnsupportedLeafError, match=r"^k: .*key_data"):
        save({"k": jax.random.key(0)})
    deleted = jax.numpy.zeros(1)
    deleted.delete()
    with pytest.raises(UnsupportedLeafError, match=r"^d: .*deleted"):
        save({"d": deleted})

    @jax.jit
    def traced(x: Any) -> Any:
        save({"t": x})
        return x

    with pytest.raises(UnsupportedLeafError, match=r"^t: .*outside of jit"):
        traced(jax.numpy.zeros(1))
