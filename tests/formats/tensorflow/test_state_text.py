"""The state file, as TensorFlow reads and writes it: items 73, 88, 90 and 91 of its behaviours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asyncsaver.errors import ManifestError
from asyncsaver.formats.tensorflow.state_text import State, decode_state, encode_state

from .checkpoints import GOLDEN, relative

FILES = sorted(relative(path) for path in [*GOLDEN.rglob("checkpoint"), GOLDEN / "rotation/latest/my_state"])
PROBES: dict[str, Any] = json.loads((GOLDEN / "behaviours.json").read_text())["probes"]


@pytest.mark.parametrize("path", FILES)
def test_golden_files_are_rebuilt_byte_for_byte(path: str) -> None:
    data = Path(GOLDEN / path).read_bytes()
    state = decode_state(data, path)
    assert state.latest
    assert state.paths
    assert encode_state(state) == data


def test_all_that_tensorflow_writes_of_times() -> None:
    assert (
        encode_state(State("m", ("m",), (1700000000.1234567,), float("inf"))).decode()
        == (PROBES["state.update"]["float_text"]["ok"])
    )
    assert encode_state(State("m", ("a", "m"), (1.5, 1e9), 0.1)).decode() == PROBES["state.update"]["ts"]["ok"]


@pytest.mark.parametrize("name", PROBES["save.text_escapes_in_state"])
def test_escapes(name: str) -> None:
    text = encode_state(State(name)).decode()
    assert text.splitlines()[0] == PROBES["save.text_escapes_in_state"][name][1]
    assert decode_state(text.encode(), "checkpoint").latest == name


GRAMMAR = {
    "comments": (b'# one\nmodel_checkpoint_path: "m" # two\n', State("m")),
    "single quotes": (b"model_checkpoint_path: 'm'", State("m")),
    "concatenation": (b"model_checkpoint_path: 'm' \"n\"\n 'o'", State("mno")),
    "separators": (
        b'model_checkpoint_path: "m"; all_model_checkpoint_paths: "a", last_preserved_timestamp: 1', State("m", ("a",), (), 1.0)
    ),
    "a list": (
        b'all_model_checkpoint_paths: ["a", "b"] all_model_checkpoint_timestamps: [1, 2.5e3]',
        State("", ("a", "b"), (1.0, 2500.0)),
    ),
    "octal, hexadecimal and control escapes": (rb'model_checkpoint_path: "\303\251\x41\n\t\\"', State("éA\n\t\\")),
    "the last one counts": (b'model_checkpoint_path: "a" model_checkpoint_path: "b"', State("b")),
    "line ends of Windows": (b'model_checkpoint_path: "m"\r\nall_model_checkpoint_paths: "m"\r\n', State("m", ("m",))),
    "infinity": (
        b"all_model_checkpoint_timestamps: inf last_preserved_timestamp: -inf", State("", (), (float("inf"),), float("-inf"))
    ),
    "UTF-8": ('model_checkpoint_path: "ünï☃"'.encode(), State("ünï☃")),
    "nothing": (b"", State("")),
}  # fmt: skip


@pytest.mark.parametrize("case", GRAMMAR)
def test_grammar(case: str) -> None:
    text, state = GRAMMAR[case]
    assert decode_state(text, "checkpoint") == state


@pytest.mark.parametrize(
    "text",
    [b"garbage", b"unknown_field: 1", b'model_checkpoint_path: "m', b'model_checkpoint_path: "\xff"', b"model_checkpoint_path: 1",
     rb'model_checkpoint_path: "\377"', b"\x00", b"last_preserved_timestamp: x", b"{" * 5000, b"[" * 5000],
)  # fmt: skip
def test_what_is_no_state(text: bytes) -> None:
    with pytest.raises(ManifestError, match="run/checkpoint: ") as caught:
        decode_state(text, "run/checkpoint")
    assert caught.value.path == "run/checkpoint"
    assert len(str(caught.value)) < 1000


def test_an_unknown_escape_is_left_as_it_is_unless_warnings_are_errors() -> None:
    """As in TensorFlow, where Python warns of it; what that becomes is ours."""
    text = rb'model_checkpoint_path: "C:\d"'
    with pytest.raises(ManifestError, match="not a list of checkpoints"):
        decode_state(text, "checkpoint")
    with pytest.warns(DeprecationWarning, match="escape"):
        assert decode_state(text, "checkpoint") == State("C:\\d")


def test_a_huge_file_is_not_parsed() -> None:
    with pytest.raises(ManifestError, match="too many"):
        decode_state(bytes(64 * 2**20 + 1), "checkpoint")
