"""Which shard a tensor goes to where something decides it: a device, or a key. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from asyncsaver.model.partitioned import Partitioned

_CPU = "cpu"
_NOTHING: Mapping[str, Sequence[str]] = MappingProxyType({})


def shards_by_key(
    names: Iterable[str], key: Callable[[str], str], *, together: Mapping[str, Sequence[str]] = _NOTHING
) -> dict[str, list[str]]:
    """Group tensors into one shard for each key.

    Args:
        names: of the tensors.
        key: gives that of a tensor, by its name: a device, for instance.
        together: names of tensors that must not be spread over shards, by what they belong to.

    Returns:
        Key → names in the given order; sorted by key.

    Raises:
        ValueError: what belongs together has several keys.
    """
    for owner, owned in together.items():
        keys = sorted({key(name) for name in owned})
        if len(keys) > 1:
            raise ValueError(
                f"All tensors of a saveable object must be on the same device: {owner} (its tensors have the shard keys "
                f"{', '.join(map(repr, keys))})"
            )
    shards: dict[str, list[str]] = {}
    for name in names:
        shards.setdefault(key(name), []).append(name)
    return dict(sorted(shards.items()))


def device_of(value: Any) -> str:
    """Where an array is; of slices, the first one. What is no array of a framework's is in the memory of the CPU."""
    if isinstance(value, Partitioned):
        value = value.slices[0].array
    return str(getattr(value, "device", _CPU))
