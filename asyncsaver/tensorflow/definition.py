"""The definition of a saver: from its arguments, and back. Pure.

The names in it are those of the nodes that TensorFlow's saver adds to a graph. No saver here has any; they are kept so that a
definition comes out as it went in, and so that a new one is what TensorFlow would write.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import numpy as np

from asyncsaver.formats.tensorflow.saver_def import V1, V2, SaverDef, decode_saver_def, encode_saver_def
from asyncsaver.model.retention import policy_from_arguments

_LARGEST = 2**31 - 1
_SAVING = {
    (V2, False): "control_dependency:0",
    (V1, False): "control_dependency:0",
    (V2, True): "Identity:0",
    (V1, True): "ShardedFilespec:0",
}


class Serializable(Protocol):
    """A message of protobuf's, TensorFlow's own ``SaverDef`` for one."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Its bytes."""
        ...


class SaverArguments(NamedTuple):
    """Those arguments of `Saver` that a definition stands for; described there."""

    max_to_keep: int
    keep_checkpoint_every_n_hours: float
    write_version: Literal["v1", "v2"]
    sharded: bool


def make_saver_def(
    *,
    max_to_keep: int | None = 5,
    keep_checkpoint_every_n_hours: float | None = None,
    write_version: str = "v2",
    sharded: bool = False,
    name: str | None = None,
) -> SaverDef:
    """The definition of a saver with these arguments, as TensorFlow would give it.

    Args:
        max_to_keep: see `Saver`; None is written as 0.
        keep_checkpoint_every_n_hours: see `Saver`; None is written as 0, numbers have the precision of a float32.
        write_version: "v1" or "v2".
        sharded: whether each device writes a file of its own.
        name: what the names of its nodes begin with; "save" by default.

    Raises:
        TypeError, ValueError: an argument is wrong, or too large for a definition.
    """
    policy_from_arguments(max_to_keep, keep_checkpoint_every_n_hours)
    if write_version not in {"v1", "v2"}:
        raise ValueError(f"write_version={write_version!r} must be 'v1' or 'v2'")
    if (max_to_keep or 0) > _LARGEST:
        raise ValueError(
            f"max_to_keep={max_to_keep} is too large for the definition of a saver, whose largest is {_LARGEST}; "
            "None or 0 keeps everything"
        )
    version = V2 if write_version == "v2" else V1
    scope = name or "save"
    return SaverDef(
        filename_tensor_name=f"{scope}/Const:0",
        save_tensor_name=f"{scope}/{_SAVING[version, sharded]}",
        restore_op_name=f"{scope}/restore_all",
        max_to_keep=max_to_keep or 0,
        sharded=sharded,
        keep_checkpoint_every_n_hours=_float32(keep_checkpoint_every_n_hours or 0.0),
        version=version,
    )


def check_saver_def(saver_def: SaverDef | bytes | Serializable, import_scope: str | None = None) -> SaverDef:
    """A definition that was given, checked; what was given is copied, never changed.

    Args:
        saver_def: a definition, the bytes of one, or TensorFlow's own message.
        import_scope: what its names are to begin with besides; a slash at its end makes no difference.

    Raises:
        ValueError: it is no definition, or one that no saver can have.
    """
    definition = _copied(saver_def)
    for field in ("save_tensor_name", "restore_op_name"):
        if not getattr(definition, field):
            raise ValueError(f"saver_def must specify the {field}: {definition}")
    if definition.max_to_keep < 0:
        raise ValueError(f"saver_def must not have a negative max_to_keep: {definition}")
    hours = definition.keep_checkpoint_every_n_hours
    if math.isnan(hours) or hours < 0:
        raise ValueError(
            f"saver_def must not have a keep_checkpoint_every_n_hours that is negative or nan: {definition}"
        )
    return prepend_scope(definition, import_scope)


def saver_arguments(definition: SaverDef) -> SaverArguments:
    """The arguments that a definition overrides."""
    return SaverArguments(
        definition.max_to_keep,
        definition.keep_checkpoint_every_n_hours,
        "v2" if definition.version == V2 else "v1",  # what is older than V1 was written as V1
        definition.sharded,
    )


def to_proto(definition: SaverDef, export_scope: str | None = None) -> bytes | None:
    """A definition as bytes, those of TensorFlow's ``SaverDef``.

    Args:
        definition: of a saver.
        export_scope: what is to be taken off the beginning of its names; a slash at its end makes no difference.

    Returns:
        The message, or None where a name does not begin with that scope.
    """
    stripped = strip_scope(definition, export_scope)
    return None if stripped is None else encode_saver_def(stripped)


def strip_scope(definition: SaverDef, scope: str | None) -> SaverDef | None:
    """The definition without a scope in its names; None where one of them is not in it.

    Where TensorFlow only looks how a name begins, and takes "sc" for a scope of "scope/save", here a scope is one as a whole.
    """
    if not scope:
        return definition
    if not all(in_scope(name, scope) for name in _names(definition)):
        return None
    return _renamed(definition, lambda name: strip_name(name, scope))


def prepend_scope(definition: SaverDef, scope: str | None) -> SaverDef:
    """The definition with its names in a scope."""
    return _renamed(definition, lambda name: prepend_name(name, scope)) if scope else definition


def in_scope(name: str, scope: str) -> bool:
    """Whether a name is in a scope, which is not empty."""
    return name.startswith(scope.removesuffix("/") + "/")


def strip_name(name: str, scope: str) -> str:
    """A name that is in a scope, without it."""
    return name.removeprefix(scope.removesuffix("/")).lstrip("/")


def prepend_name(name: str, scope: str) -> str:
    """A name in a scope, which is not empty."""
    return f"{scope.removesuffix('/')}/{name}"


def _names(definition: SaverDef) -> tuple[str, str, str]:
    return definition.filename_tensor_name, definition.save_tensor_name, definition.restore_op_name


def _renamed(definition: SaverDef, rename: Callable[[str], str]) -> SaverDef:
    filename, save, restore = map(rename, _names(definition))
    return dataclasses.replace(
        definition, filename_tensor_name=filename, save_tensor_name=save, restore_op_name=restore
    )


def _copied(given: SaverDef | bytes | Serializable) -> SaverDef:
    if isinstance(given, SaverDef):
        return given  # frozen
    serialize = getattr(given, "SerializeToString", None)
    data = serialize() if callable(serialize) else given
    if not isinstance(data, (bytes, bytearray)):
        # ValueError, as TensorFlow's own check of it raises.
        raise ValueError(f"saver_def must be a saver_pb2.SaverDef, or the bytes of one: {given!r:.300}")  # noqa: TRY004
    return decode_saver_def(bytes(data), "saver_def")


def _float32(hours: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(hours))
