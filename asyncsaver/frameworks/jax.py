"""JAX arrays as leaves."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# (jax is optional: without it pyright has only a few stubs to go by)

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from asyncsaver.errors import UnsupportedLeafError
from asyncsaver.model.dtypes import Array
from asyncsaver.model.leaves import Differences, LeafAdapter, TensorSpec


class JaxAdapter:
    """Arrays whose data this process can read as a whole. They never change, so background saves do not copy them."""

    kind = "jax"

    def matches(self, value: object) -> bool:
        """See `LeafAdapter`."""
        return isinstance(value, jax.Array)

    def describe(self, value: Any) -> TensorSpec:
        """See `LeafAdapter`."""
        if isinstance(value, jax.core.Tracer):
            raise UnsupportedLeafError("a traced value has no data: save outside of jit, grad and vmap")
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            raise UnsupportedLeafError(
                "a PRNG key array hides its data: save jax.random.key_data(it), "
                "and make it a key again with jax.random.wrap_key_data"
            )
        if value.is_deleted():
            raise UnsupportedLeafError("the array was deleted or donated: save it before the call that donates it")
        if not value.is_fully_addressable:
            raise UnsupportedLeafError(
                "the array is spread over processes: gather it with jax.experimental.multihost_utils.process_allgather"
            )
        return TensorSpec(np.dtype(value.dtype), tuple(value.shape))

    def to_numpy(self, value: Any) -> Array:
        """See `LeafAdapter`. Waits for the computation that gives the value."""
        return np.asarray(value)

    def is_immutable(self, value: Any) -> bool:
        """Always."""
        del value
        return True

    def writable_view(self, target: Any) -> Array | None:
        """There is none: JAX arrays never change."""
        del target
        return None

    def from_numpy(self, array: Array, like: Any | None = None) -> Any:
        """See `LeafAdapter`. Keeps the sharding of ``like``.

        Without it, a dtype of 64 bits stays a NumPy array where JAX would cut it to 32.
        """
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        if native.dtype.kind in "MmUSO":
            raise UnsupportedLeafError(f"JAX has no dtype {array.dtype}")
        # Naming the sharding would tie an array to its device that was free to go where others are.
        if like is not None and getattr(like, "committed", True):
            return jax.device_put(native, like.sharding)
        if like is None and jax.dtypes.canonicalize_dtype(native.dtype) != native.dtype:
            return native
        return jax.device_put(native)

    def fill(self, target: Any, array: Array) -> Any:
        """A new array in place of the target, with its sharding."""
        return self.from_numpy(array, target)

    def is_fillable(self, target: Any) -> bool:
        """Never."""
        del target
        return False

    def check_object(self, obj: object, state: object) -> Differences | None:
        """JAX has no objects with state."""
        del obj, state
        return None


adapter: LeafAdapter = JaxAdapter()
"""Found through the entry-point group ``asyncsaver.leaves``."""
