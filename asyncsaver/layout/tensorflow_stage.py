"""From a caller's state to the tensors that TensorFlow's files hold. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from asyncsaver.errors import InvalidStateError
from asyncsaver.formats.tensorflow.dtypes import NUMBERS, STRING
from asyncsaver.formats.tensorflow.ordered_code import FULL
from asyncsaver.formats.tensorflow.strings import encode_strings
from asyncsaver.model.dtypes import Array, DType, dtype_name, storage_order
from asyncsaver.model.flatten import TensorLeaf, flatten
from asyncsaver.model.leaves import Adapters
from asyncsaver.model.partitioned import Partitioned
from asyncsaver.model.shard_keys import device_of
from asyncsaver.save.stage import Staged
from asyncsaver.save.tensorflow_data import Bundle, SliceOf

_SHOWN = 20
_OBJECTS: DType = np.dtype(object)
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class StagedStrings(Staged):
    """What is to be written, with strings as they stand in a file: their arrays hold those bytes.

    Attributes:
        strings: checksums of the tensors of strings, by name.
        devices: where each tensor was when it was staged, by name, if that decides about its shard.
    """

    strings: Mapping[str, int] = field(default_factory=dict)
    devices: Mapping[str, str] | None = None


def stage_sharded(state: object, adapters: Adapters) -> StagedStrings:
    """As `stage_tensorflow`, and note the devices, which a snapshot does not know any more."""
    staged = stage_tensorflow(state, adapters)
    return replace(staged, devices={leaf.name: device_of(leaf.value) for leaf in staged.tensors})


def stage_tensorflow(state: object, adapters: Adapters) -> StagedStrings:
    """Describe a state. Blocking.

    Arrays of `bytes` or `str`, and those of NumPy's string dtypes, become tensors of strings: they are copied here, and `str`
    as UTF-8, so that `bytes` are read back. Numbers, booleans, strings and bytes are scalars for TensorFlow, and stand in the
    tree as well, from which they are restored just as they were; what no scalar of TensorFlow can hold is in the tree only.

    Raises:
        InvalidStateError: as `flatten`, or TensorFlow has no such dtype or name; the message names the leaves.
    """
    flat = flatten(state, adapters, strings=True)
    strings: dict[str, int] = {}
    problems: list[str] = []
    tensors: list[TensorLeaf] = []
    for leaf in flat.tensors:
        if leaf.dtype.kind in "OSU":
            adapter = adapters.by_kind(leaf.kind)
            if adapter is None:
                raise RuntimeError(f"{leaf.name}: the adapter for {leaf.kind!r} that described it is gone")
            tensors.append(_encoded(leaf.name, adapter.to_numpy(leaf.value), strings, problems))
        else:
            if dtype_name(leaf.dtype) not in NUMBERS:
                problems.append(f"{leaf.name}: TensorFlow has no {dtype_name(leaf.dtype)}")
            tensors.append(leaf)
    for name, value in flat.values:
        array = _as_scalar(value)
        if array is None:
            continue
        if array.dtype.hasobject:
            tensors.append(_encoded(name, array, strings, problems))
        else:
            tensors.append(TensorLeaf(name, storage_order(array.dtype), (), array.nbytes, "numpy", array))
    problems += [
        f"{leaf.name!a}: TensorFlow's index has no place for this name"
        for leaf in tensors
        if leaf.name.startswith("\0")
    ]
    if problems:
        more = f"\n  … and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InvalidStateError(
            "TensorFlow's format cannot hold all of this state:\n  " + "\n  ".join(problems[:_SHOWN]) + more
        )
    return StagedStrings(flat.tree, tensors, sum([leaf.nbytes for leaf in tensors]), None, strings)


def bundle_of(staged: Staged, adapters: Adapters) -> Bundle:
    """What is to be written, with one entry for each slice of the tensors that are held in slices. Blocking.

    Args:
        staged: by `stage_tensorflow`, or a snapshot of that.
        adapters: for its arrays.
    """
    tensors: list[TensorLeaf] = []
    slices: dict[int, SliceOf] = {}
    numbers: dict[str, int] = {}
    for leaf in staged.tensors:
        numbers[leaf.name] = STRING if leaf.dtype.hasobject else NUMBERS[dtype_name(leaf.dtype)]
        value = leaf.value
        if not (isinstance(value, Partitioned) and len(value.slices) > 1):
            tensors.append(leaf)
            continue
        for part in value.slices:
            adapter = adapters.find(part.array)
            if adapter is None:
                raise RuntimeError(f"{leaf.name}: the adapter for the slice {part} is gone")
            size = leaf.dtype.itemsize
            for length in part.shape:
                size *= length
            extents = tuple(
                [
                    FULL if length == whole else (start, length)
                    for start, length, whole in zip(part.offset, part.shape, leaf.shape, strict=True)
                ]
            )
            slices[len(tensors)] = SliceOf(leaf.shape, extents)
            tensors.append(TensorLeaf(leaf.name, leaf.dtype, part.shape, size, adapter.kind, part.array))
    strings = staged.strings if isinstance(staged, StagedStrings) else {}
    whole = Staged(staged.tree, tensors, staged.nbytes, staged.contents)
    return Bundle(staged=whole, numbers=numbers, strings=strings, slices=slices)


def _encoded(name: str, array: Array, strings: dict[str, int], problems: list[str]) -> TensorLeaf:
    elements: list[bytes] = []
    for element in array.reshape(-1).tolist():
        if isinstance(element, str):
            elements.append(element.encode(errors="surrogatepass"))
        elif isinstance(element, bytes):
            elements.append(element)
        else:
            problems.append(
                f"{name}: an array of Python objects can hold bytes or str only, not {type(element).__name__}"
            )
            break
    data, strings[name] = encode_strings(elements)
    return TensorLeaf(name, _OBJECTS, array.shape, len(data), "numpy", np.frombuffer(data, np.uint8))


def _as_scalar(value: Any) -> Array | None:
    """A plain value as an array without axes; None for what TensorFlow's scalars cannot hold."""
    match value:
        case np.generic():
            array: Array = np.asarray(value)
            if array.dtype.kind in "SU":
                return _object(value.item())
            return array if dtype_name(array.dtype) in NUMBERS else None
        case bool():
            return np.array(value)
        case int():
            return np.array(value, np.int64) if value in _INT64 else None
        case float():
            return np.array(value, np.float64)
        case str() | bytes():
            return _object(value)
        case _:
            return None


def _object(value: str | bytes) -> Array:
    array: Array = np.empty((), object)
    array[()] = value
    return array
