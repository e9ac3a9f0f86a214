"""The arguments of a saver, checked. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asyncsaver.model.manifest import LARGEST, Json, ManifestFormat
from asyncsaver.model.names import Naming, check_prefix
from asyncsaver.model.retention import RetentionPolicy, policy_from_arguments
from asyncsaver.model.tensorflow_config import TensorFlowConfig, check_tensorflow_config

DEFAULT_SHARD_BYTES = 256 * 2**20
DEFAULT_MEMORY_BUDGET = 512 * 2**20
DEFAULT_COMMIT_TIMEOUT = 300.0

# What the design names and this version does not have yet: argument → the values it accepts.
_ONLY: dict[str, tuple[Any, ...]] = {
    "incremental": (False,),
    "rank": (0,),
    "world_size": (1,),
    "run_id": (None,),
    "coordinator": (None,),
}


@dataclass(frozen=True, slots=True)
class SaverConfig:
    """How a saver names, cuts, keeps and commits checkpoints.

    Attributes:
        naming: of checkpoints.
        policy: which checkpoints stay.
        shard_bytes: how large a shard may grow before the next one begins.
        memory_budget: bytes of tensors in memory at once.
        concurrency: requests at once; None for what the store gains from.
        commit_timeout: seconds for a commit that the store leaves unclear.
        retry_timeout: seconds in which a request that fails is sent again.
        as_json: what manifests keep of it.
        max_to_keep: as given.
        keep_checkpoint_every_n_hours: as given.
        manifest_format: see `Saver`.
        tensorflow: how TensorFlow's files are written; None where ours are.
    """

    naming: Naming
    policy: RetentionPolicy
    shard_bytes: int
    memory_budget: int
    concurrency: int | None
    commit_timeout: float
    retry_timeout: float
    as_json: dict[str, Json]
    max_to_keep: int | None = 5
    keep_checkpoint_every_n_hours: float | None = None
    manifest_format: ManifestFormat = "json"
    tensorflow: TensorFlowConfig | None = None


def check_config(
    *,
    prefix: str,
    pad_step_number: bool,
    max_to_keep: int | None,
    keep_checkpoint_every_n_hours: float | None,
    retention: RetentionPolicy | None,
    shard_bytes: int,
    memory_budget: int,
    concurrency: int | None,
    commit_timeout: float,
    retry_timeout: float,
    single_writer: bool,
    read_only: bool,
    progress: object,
    clock: object,
    on_stats: object = None,
    format: str = "native",  # noqa: A002 - as users call it
    manifest_format: str = "json",
    write_version: str = "v2",
    sharded: bool = False,
    latest_filename: str = "checkpoint",
    save_relative_paths: bool = False,
    name: object = None,
    **only: Any,
) -> SaverConfig:
    """Check the arguments of `Saver`, which describes them.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    for argument, value in only.items():
        accepted = _ONLY[argument]
        if not any(value is one or (type(value) is type(one) and value == one) for one in accepted):
            raise ValueError(
                f"{argument}={value!r} is not available in this version; {argument} can be "
                + " or ".join(repr(one) for one in accepted)
            )
    if format not in ("native", "tensorflow"):
        raise ValueError(f"format must be 'native' or 'tensorflow', not {format!r}")
    if manifest_format not in ("json", "proto"):
        raise ValueError(f"manifest_format must be 'json' or 'proto', not {manifest_format!r}")
    for argument, flag in (
        ("single_writer", single_writer),
        ("read_only", read_only),
        ("pad_step_number", pad_step_number),
    ):
        if not isinstance(flag, bool):
            raise TypeError(f"{argument} must be True or False, not {flag!r}")
    for argument, function in (("progress", progress), ("on_stats", on_stats), ("clock", clock)):
        if function is not None and not callable(function):
            raise TypeError(f"{argument} must be a function, not {type(function).__name__}")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    if retention is not None and not isinstance(retention, RetentionPolicy):
        raise TypeError(f"retention must be a RetentionPolicy, not {type(retention).__name__}")
    arguments = policy_from_arguments(max_to_keep, keep_checkpoint_every_n_hours)
    if concurrency is not None:
        check_positive("concurrency", concurrency)
    for argument, seconds in (("commit_timeout", commit_timeout), ("retry_timeout", retry_timeout)):
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError(f"{argument} must be a number of seconds, not {type(seconds).__name__}")
    if not commit_timeout > 0:
        raise ValueError(f"commit_timeout must be positive, not {commit_timeout}")
    if not retry_timeout >= 0:
        raise ValueError(f"retry_timeout must be 0 or more, not {retry_timeout}")
    tensorflow = check_tensorflow_config(
        format=format,
        prefix=check_prefix(prefix),
        write_version=write_version,
        sharded=sharded,
        latest_filename=latest_filename,
        save_relative_paths=save_relative_paths,
    )
    return SaverConfig(
        naming=Naming(prefix, pad_step_number),
        policy=retention or arguments,
        shard_bytes=check_positive("shard_bytes", shard_bytes),
        memory_budget=check_positive("memory_budget", memory_budget),
        concurrency=concurrency,
        commit_timeout=float(commit_timeout),
        retry_timeout=float(retry_timeout),
        max_to_keep=max_to_keep,
        keep_checkpoint_every_n_hours=keep_checkpoint_every_n_hours,
        manifest_format="proto" if manifest_format == "proto" else "json",
        tensorflow=tensorflow,
        as_json={
            "prefix": prefix,
            "pad_step_number": pad_step_number,
            "max_to_keep": max_to_keep,
            "keep_checkpoint_every_n_hours": keep_checkpoint_every_n_hours,
            "shard_bytes": shard_bytes,
            **({} if manifest_format == "json" else {"manifest_format": manifest_format}),
            **({} if tensorflow is None else {"format": format, **tensorflow.as_json}),
        },
    )


def check_positive(argument: str, value: object) -> int:
    """Return an argument that is a number from 1 to `LARGEST`; anything else raises `TypeError` or `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} must be an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{argument} must be at least 1, not {value}")
    if value > LARGEST:
        raise ValueError(f"{argument} must be below 2**63, not {value}")
    return value
