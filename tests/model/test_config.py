"""The arguments of a saver."""

from __future__ import annotations

import math
from typing import Any

import pytest

from asyncsaver.model.config import SaverConfig, check_config
from asyncsaver.model.names import Naming
from asyncsaver.model.retention import KeepAll, KeepBest, KeepEveryHours, KeepLast

DEFAULTS: dict[str, Any] = {
    "prefix": "ckpt", "pad_step_number": True, "max_to_keep": 5, "keep_checkpoint_every_n_hours": None, "retention": None,
    "shard_bytes": 100, "memory_budget": 200, "concurrency": None, "commit_timeout": 300, "retry_timeout": 60,
    "format": "native", "manifest_format": "json", "incremental": False, "rank": 0, "world_size": 1, "run_id": None,
    "coordinator": None, "single_writer": False, "read_only": False, "progress": None, "clock": None,
}  # fmt: skip


def check(**arguments: Any) -> SaverConfig:
    return check_config(**{**DEFAULTS, **arguments})


def test_defaults() -> None:
    assert check() == SaverConfig(
        Naming("ckpt", pad=True), KeepLast(5), 100, 200, None, 300.0, 60.0,
        {"prefix": "ckpt", "pad_step_number": True, "max_to_keep": 5, "keep_checkpoint_every_n_hours": None, "shard_bytes": 100},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        ({"prefix": "run.1"}, "naming", Naming("run.1")),
        ({"pad_step_number": False}, "naming", Naming("ckpt", pad=False)),
        ({"max_to_keep": None}, "policy", KeepAll()),
        ({"keep_checkpoint_every_n_hours": 2}, "policy", KeepLast(5) | KeepEveryHours(2)),
        ({"retention": KeepBest("loss")}, "policy", KeepBest("loss")),
        ({"concurrency": 3}, "concurrency", 3),
        ({"commit_timeout": math.inf}, "commit_timeout", math.inf),
        ({"retry_timeout": 0}, "retry_timeout", 0.0),
    ],
)
def test_arguments_that_differ(arguments: dict[str, Any], field: str, value: object) -> None:
    assert getattr(check(**arguments), field) == value


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("prefix", "", ValueError), ("prefix", "a/b", ValueError), ("prefix", None, TypeError),
        ("max_to_keep", -1, ValueError), ("max_to_keep", "5", TypeError), ("max_to_keep", True, TypeError),
        ("max_to_keep", 2**63, ValueError), ("shard_bytes", 2**63, ValueError),
        ("keep_checkpoint_every_n_hours", -1, ValueError), ("keep_checkpoint_every_n_hours", "1", TypeError),
        ("retention", 5, TypeError), ("retention", KeepLast, TypeError),
        ("shard_bytes", 0, ValueError), ("shard_bytes", 1.0, TypeError), ("shard_bytes", True, TypeError),
        ("memory_budget", 0, ValueError), ("memory_budget", "1GB", TypeError),
        ("concurrency", 0, ValueError), ("concurrency", 1.5, TypeError),
        ("commit_timeout", 0, ValueError), ("commit_timeout", -1, ValueError), ("commit_timeout", math.nan, ValueError),
        ("retry_timeout", -1, ValueError), ("retry_timeout", math.nan, ValueError), ("retry_timeout", "5", TypeError),
        ("commit_timeout", "5", TypeError), ("commit_timeout", None, TypeError), ("commit_timeout", True, TypeError),
        ("format", "zarr", ValueError), ("format", None, ValueError), ("manifest_format", "xml", ValueError),
        ("incremental", True, ValueError), ("incremental", 0, ValueError), ("rank", 1, ValueError),
        ("rank", False, ValueError), ("world_size", 2, ValueError), ("world_size", True, ValueError),
        ("run_id", "x", ValueError), ("coordinator", object(), ValueError),
        ("pad_step_number", 1, TypeError), ("pad_step_number", None, TypeError), ("single_writer", "yes", TypeError),
        ("read_only", 0, TypeError), ("progress", "print", TypeError), ("clock", 5.0, TypeError),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(argument: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=argument):
        check(**{argument: value})


def test_wrong_counts_are_refused_even_where_a_policy_is_given() -> None:
    with pytest.raises(ValueError, match="max_to_keep"):
        check(retention=KeepLast(1), max_to_keep=-1)
