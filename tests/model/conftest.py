"""What the tests of states share: the way out to JSON and back, without a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from asyncsaver.model.flatten import FlatState, flatten
from asyncsaver.model.leaves import Adapters, TensorSpec
from asyncsaver.model.rebuild import RestorePlan, plan_restore


class Saved:
    """A state as it would be on storage: JSON text, and each tensor's bytes."""

    def __init__(self, state: object, adapters: Adapters) -> None:
        self.adapters = adapters
        self.flat: FlatState = flatten(state, adapters)
        self.text = msgspec.json.encode(self.flat.tree)
        self.specs = {leaf.name: TensorSpec(leaf.dtype, leaf.shape) for leaf in self.flat.tensors}
        self.data = {}
        for leaf in self.flat.tensors:
            adapter = adapters.by_kind(leaf.kind)
            assert adapter is not None
            array = adapter.to_numpy(leaf.value)
            assert array.shape == leaf.shape
            self.data[leaf.name] = array.astype(leaf.dtype, order="C").tobytes()
            assert len(self.data[leaf.name]) == leaf.nbytes

    def plan(self, **options: Any) -> RestorePlan:
        return plan_restore(msgspec.json.decode(self.text), self.specs, self.adapters, **options)

    def restore(self, **options: Any) -> Any:
        plan = self.plan(**options)
        return plan.build(self.read(plan))

    def read(self, plan: RestorePlan) -> dict[str, Any]:
        """Read as a restore would: straight into the target where that is allowed."""
        arrays = {}
        for read in plan.reads:
            data = bytearray(self.data[read.name])
            if read.direct:
                memoryview(read.destination.reshape(-1).view("u1"))[:] = data
                arrays[read.name] = read.destination
            else:
                arrays[read.name] = _array(data, read.dtype, read.shape)
        return arrays


def _array(data: bytearray, dtype: Any, shape: tuple[int, ...]) -> Any:
    return np.frombuffer(data, dtype).reshape(shape) if data else np.empty(shape, dtype)


@pytest.fixture
def save() -> Callable[[object], Saved]:
    """Save a state to where it can be restored from."""
    adapters = Adapters.discover()
    return lambda state: Saved(state, adapters)
