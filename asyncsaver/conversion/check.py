"""Whether a format can hold what is to be converted: asked before anything is written. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asyncsaver.conversion.choose import Chosen
from asyncsaver.errors import InvalidStateError, ManifestError
from asyncsaver.model.dtypes import dtype_from_name, storage_dtype
from asyncsaver.restore.source import Source

_SHOWN = 20
_RESERVED = "__metadata__"


def check_native(source: Source, chosen: Chosen) -> None:
    """Raise `InvalidStateError` unless a checkpoint of ours can hold all that was chosen."""
    _refuse(source, "a native checkpoint", _safetensors_problems(source, chosen, None))


def check_huggingface(source: Source, chosen: Chosen) -> None:
    """Raise `InvalidStateError` unless safetensors files can hold all that was chosen."""

    def problem(dtype: str) -> str:
        _, width = storage_dtype(dtype_from_name(dtype))
        return f"safetensors has no {dtype}" if width else ""

    problems = _safetensors_problems(source, chosen, problem)
    if not chosen.tensors:
        problems.append("there is no tensor")
    _refuse(source, "a folder of safetensors files", [*problems, *_value_problems(chosen)])


def check_tensorflow(source: Source, chosen: Chosen, numbers: Callable[[str], int | None]) -> None:
    """Raise `InvalidStateError` unless TensorFlow's files can hold all that was chosen.

    Args:
        source: the checkpoint.
        chosen: of it.
        numbers: TensorFlow's number of a dtype, by its name in a manifest; None where it has none.
    """
    problems = []
    for name in chosen.tensors:
        dtype = source.tensors[name].dtype
        if numbers(dtype) is None:
            problems.append(f"{name}: TensorFlow has no {dtype}")
        elif not name or name.startswith("\0"):
            problems.append(f"{name!a}: TensorFlow's index has no place for this name")
    _refuse(source, "TensorFlow's format", [*problems, *_value_problems(chosen)])


def _safetensors_problems(source: Source, chosen: Chosen, problem: Callable[[str], str] | None) -> list[str]:
    problems = []
    for name in chosen.tensors:
        dtype = source.tensors[name].dtype
        if name in source.dtypes or not _is_ours(dtype):
            problems.append(f"{name}: has the dtype {dtype} of another library")
        elif problem is not None and (why := problem(dtype)):
            problems.append(f"{name}: {why}")
        if name in {"", _RESERVED}:
            problems.append(f"{name!r}: safetensors has no place for this name")
    return problems


def _value_problems(chosen: Chosen) -> list[str]:
    return [f"{name}: is no array" for name in chosen.values]


def _is_ours(dtype: str) -> bool:
    try:
        dtype_from_name(dtype)
    except ManifestError:
        return False
    return True


def _refuse(source: Source, target: str, problems: Sequence[str]) -> None:
    if problems:
        raise InvalidStateError(
            f"{source.checkpoint.url}: {target} cannot hold all of it; select= leaves out what it cannot:\n  "
            + _lines(problems)
        )


def _lines(problems: Sequence[str]) -> str:
    more = f"\n  … and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return "\n  ".join(problems[:_SHOWN]) + more
