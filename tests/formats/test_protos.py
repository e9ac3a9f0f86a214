"""The generated code of all messages is what protoc makes of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTOS = sorted((ROOT / "asyncsaver/proto").glob("*.proto"))


def test_there_are_messages() -> None:
    assert ROOT / "asyncsaver/proto/tensorflow_checkpoint.proto" in PROTOS


@pytest.mark.parametrize("proto", PROTOS, ids=lambda proto: proto.stem)
def test_the_generated_code_is_of_these_messages(proto: Path, tmp_path: Path) -> None:
    protoc = shutil.which("protoc", path=str(Path(sys.executable).parent))
    assert protoc is not None, "pip install -e '.[dev]'"
    path = proto.relative_to(ROOT)
    subprocess.run(
        [protoc, "--proto_path=.", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", str(path)], cwd=ROOT, check=True
    )
    for suffix in ("_pb2.py", "_pb2.pyi"):
        generated = path.with_name(path.stem + suffix)
        assert (ROOT / generated).read_text() == (tmp_path / generated).read_text(), "make proto"


@pytest.mark.parametrize("proto", PROTOS, ids=lambda proto: proto.stem)
def test_the_names_are_ours(proto: Path) -> None:
    """Two messages of one name in one process, such as TensorFlow's and these, are an error of protobuf's."""
    assert re.search(r"^package asyncsaver\.", proto.read_text(), re.MULTILINE)
