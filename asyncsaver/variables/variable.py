"""A named holder of a value."""

from __future__ import annotations

from typing import Any


class Variable:
    """Something with a name and a value, which a restore fills in place or replaces.

    A ``var_list`` needs it for what can never change in place: arrays of JAX, NumPy scalars and Python's numbers. In a list it
    gives any array its name.

    Args:
        name: in checkpoints.
        value: an array of NumPy, PyTorch or JAX, a `Partitioned`, or a number, which is saved as an array without axes.
        shard_key: goes into a shard with others of the same key, where the saver is ``sharded``; that of its device by default.

    Raises:
        TypeError, ValueError: the name is no string, or empty.
    """

    __slots__ = ("_name", "shard_key", "value")

    def __init__(self, name: str, value: Any, *, shard_key: str = "") -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a variable must be a string, not {name!r}")
        if not name:
            raise ValueError("a variable needs a name that is not empty")
        self._name = name
        self.value = value
        self.shard_key = shard_key

    @property
    def name(self) -> str:
        """Its name in checkpoints."""
        return self._name

    def __repr__(self) -> str:
        return f"<Variable {self._name!r}: {type(self.value).__name__}>"
