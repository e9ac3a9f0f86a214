"""Crafted checkpoints in TensorFlow's formats, through the public functions: our errors, little memory, little time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torture
SCRIPT = Path(__file__).with_name("hostile_tensorflow.py")
WHOLE = {"ManifestError"}
"""The list of tensors itself cannot be trusted."""
ONE = {"UnreadableTensorError", "CheckpointCorruptError"}
"""One tensor is damaged, and the others are read."""
FINE = ["dict", "ndarray", "VerifyReport", "Checkpoint"]


def test_item_117_crafted_checkpoints_take_little_memory_and_time(tmp_path: Path, figures: Any) -> None:
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}  # each arena reserves addresses that nobody uses
    command = [sys.executable, "-W", "error", str(SCRIPT), str(tmp_path / "folder")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    found = json.loads(done.stdout)
    assert [found.pop(f"{version}: nothing wrong") for version in ("V2", "V1")] == [FINE, FINE]
    assert len(found) > 35
    for case, (restored, good, verified, converted) in found.items():
        if restored in WHOLE:
            assert {good, verified, converted} == WHOLE, case
        else:
            assert {restored, converted} <= ONE, case
            assert (good, verified) == ("ndarray", "CheckpointCorruptError"), case
    for version in ("V2", "V1"):  # both kinds are there in both formats
        outcomes = {restored in WHOLE for case, (restored, *_) in found.items() if case.startswith(version)}
        assert outcomes == {True, False}
    figures.add("hostile documents read, TensorFlow's formats", len(found))
