"""Definitions of savers: items 14 to 22 and 128 to 131, with TensorFlow's own answers where it was asked."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.errors import ManifestError
from asyncsaver.formats.tensorflow.saver_def import LEGACY, V1, V2, SaverDef, decode_saver_def, encode_saver_def
from asyncsaver.proto.tensorflow_checkpoint_pb2 import SaverDef as Message
from asyncsaver.tensorflow.definition import SaverArguments, check_saver_def, make_saver_def, saver_arguments, to_proto

from .golden import GOLDEN, PROBES

FIELDS = PROBES["ctor.saver_def_fields"]
OVERRIDES = PROBES["ctor.saver_def_overrides_kwargs"]
SCOPES = PROBES["graph.to_proto_scopes"]
IMPORTED = PROBES["graph.from_proto_import_scope_mutates"]
SIDECARS = json.loads((GOLDEN / "sidecars/golden.json").read_text())

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
named = texts.filter(bool)
definitions = st.builds(
    SaverDef,
    filename_tensor_name=texts,
    save_tensor_name=named,
    restore_op_name=named,
    max_to_keep=st.integers(0, 2**31 - 1),
    sharded=st.booleans(),
    keep_checkpoint_every_n_hours=st.floats(0, width=32, allow_nan=False),
    version=st.sampled_from([LEGACY, V1, V2]),
)


def of_text(text: str) -> bytes:
    """The message that TensorFlow has printed."""
    return text_format.Parse(text, Message()).SerializeToString()


# What TensorFlow 2.21 made of these arguments, as bytes.
MADE: list[tuple[dict[str, Any], bytes]] = [
    ({}, b"\n\x0csave/Const:0\x12\x19save/control_dependency:0\x1a\x10save/restore_all \x055\x00@\x1cF8\x02"),
    ({"sharded": True}, b"\n\x0csave/Const:0\x12\x0fsave/Identity:0\x1a\x10save/restore_all \x05(\x015\x00@\x1cF8\x02"),
    (
        {"write_version": "v1"},
        b"\n\x0csave/Const:0\x12\x19save/control_dependency:0\x1a\x10save/restore_all \x055\x00@\x1cF8\x01",
    ),
    (
        {"write_version": "v1", "sharded": True},
        b"\n\x0csave/Const:0\x12\x16save/ShardedFilespec:0\x1a\x10save/restore_all \x05(\x015\x00@\x1cF8\x01",
    ),
    ({"name": "a/b"}, b"\n\x0ba/b/Const:0\x12\x18a/b/control_dependency:0\x1a\x0fa/b/restore_all \x055\x00@\x1cF8\x02"),
    (
        {
            "max_to_keep": None,
            "keep_checkpoint_every_n_hours": 0.1,
            "name": "model/mine",
            "sharded": True,
            "write_version": "v1",
        },
        of_text(SIDECARS["collections"]["saver_def"]),
    ),
    (
        {
            "max_to_keep": 0,
            "keep_checkpoint_every_n_hours": 2,
            "name": "mine",
            "sharded": True,
            "write_version": "v1",
        },
        of_text(FIELDS["named_sharded_v1"]),
    ),
    ({}, of_text(FIELDS["plain"])),
    ({"name": "save_1"}, of_text(FIELDS["third"])),
]


@pytest.mark.parametrize(("arguments", "expected"), MADE)
def test_item_128_a_definition_is_byte_for_byte_that_of_tensorflow(arguments: dict[str, Any], expected: bytes) -> None:
    arguments = {"keep_checkpoint_every_n_hours": 10_000.0} | arguments
    definition = make_saver_def(**arguments)
    assert to_proto(definition) == expected
    assert decode_saver_def(expected, "x") == definition


@pytest.mark.parametrize(("value", "expected"), PROBES["ctor.max_to_keep_values"].items())
def test_items_014_to_016_how_many_stay(value: str, expected: dict[str, Any]) -> None:
    given = {"None": None, "2.5": 2.5, "'3'": "3"}[value] if not value.lstrip("-").isdecimal() else int(value)
    if expected.get("raises") == "TypeError":
        with pytest.raises(TypeError, match="max_to_keep must be an int or None"):
            make_saver_def(max_to_keep=given)  # type: ignore[arg-type]
    elif expected["ok"] < 0:  # fixed: TensorFlow deletes what it has just saved
        with pytest.raises(ValueError, match="max_to_keep must not be negative"):
            make_saver_def(max_to_keep=given)  # type: ignore[arg-type]
    else:
        assert make_saver_def(max_to_keep=given).max_to_keep == expected["ok"]  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "expected"), PROBES["ctor.keep_every_values"].items())
def test_item_017_hours(value: str, expected: dict[str, Any]) -> None:
    given = None if value == "None" else float(value)
    if expected["ok"] is not None and not expected["ok"] >= 0:  # fixed: negative, nan
        with pytest.raises(ValueError, match="must not be negative or nan"):
            make_saver_def(keep_checkpoint_every_n_hours=given)
    else:
        assert make_saver_def(keep_checkpoint_every_n_hours=given).keep_checkpoint_every_n_hours == expected["ok"]


@pytest.mark.parametrize("hours", [0.1, 1 / 3, 10_000.1, 1e39, 1e-50])
def test_item_017_hours_are_rounded_to_a_float32(hours: float) -> None:
    definition = make_saver_def(keep_checkpoint_every_n_hours=hours)
    with np.errstate(over="ignore"):
        assert definition.keep_checkpoint_every_n_hours == float(np.float32(hours)) != hours
    assert decode_saver_def(encode_saver_def(definition), "x") == definition


def test_item_018_an_unknown_version() -> None:
    with pytest.raises(ValueError, match="write_version='v3' must be 'v1' or 'v2'"):
        make_saver_def(write_version="v3")
    with pytest.raises(ManifestError, match="saver_def: a saver of the unknown version 7"):
        check_saver_def(b"\x12\x01x\x1a\x01y\x38\x07")


def test_item_019_a_definition_overrides_the_arguments() -> None:
    definition = make_saver_def(max_to_keep=2, keep_checkpoint_every_n_hours=0.5, write_version="v1", sharded=True)
    arguments = saver_arguments(check_saver_def(encode_saver_def(definition)))
    assert arguments == SaverArguments(2, 0.5, "v1", sharded=True)
    assert arguments.max_to_keep == OVERRIDES["max_to_keep"]
    assert definition.version == OVERRIDES["write_version"]
    assert make_saver_def(**arguments._asdict()) == definition


def test_item_019_what_is_older_than_v1_is_written_as_v1() -> None:
    definition = SaverDef(save_tensor_name="s", restore_op_name="r", version=LEGACY)
    assert saver_arguments(check_saver_def(definition)) == SaverArguments(0, 0.0, "v1", sharded=False)


@pytest.mark.parametrize("wrong", ["x", 3, object, ["x"], {}])
def test_item_020_what_is_no_definition(wrong: Any) -> None:
    message = OVERRIDES["bad"]["message"].removesuffix(": x")
    with pytest.raises(ValueError, match=message):
        check_saver_def(wrong)


def test_item_020_an_incomplete_definition() -> None:
    message = OVERRIDES["incomplete"]["message"]
    with pytest.raises(ValueError, match=message):
        check_saver_def(b"")
    with pytest.raises(ValueError, match=r"saver_def must specify the restore_op_name: .*here"):
        check_saver_def(SaverDef(save_tensor_name="here"))


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff", b"\x0b", b"\x0a\x01\xff"])
def test_item_020_damaged_bytes_of_a_definition(data: bytes) -> None:
    with pytest.raises(ManifestError, match="saver_def: not a SaverDef"):
        check_saver_def(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_to_keep": -1}, "negative max_to_keep"),
        ({"keep_checkpoint_every_n_hours": -0.5}, "negative or nan"),
        ({"keep_checkpoint_every_n_hours": math.nan}, "negative or nan"),
    ],
)
def test_items_016_and_017_in_a_definition(change: dict[str, Any], message: str) -> None:
    definition = dataclasses.replace(make_saver_def(), **change)
    with pytest.raises(ValueError, match=message):
        check_saver_def(encode_saver_def(definition))


def test_item_020_a_definition_that_is_given_is_copied() -> None:
    """Fixed: TensorFlow's saver and its caller share one."""
    assert OVERRIDES["same_object"]
    message = Message.FromString(of_text(FIELDS["plain"]))
    definition = check_saver_def(message)
    message.max_to_keep, message.save_tensor_name = 1, "other"
    assert to_proto(definition) == of_text(FIELDS["plain"])
    data = bytearray(of_text(FIELDS["plain"]))
    definition = check_saver_def(data)  # type: ignore[arg-type]
    data[2:6] = b"XXXX"
    assert definition.filename_tensor_name == "save/Const:0"


def test_item_128_more_than_a_definition_can_say() -> None:
    assert make_saver_def(max_to_keep=2**31 - 1).max_to_keep == 2**31 - 1
    with pytest.raises(ValueError, match="max_to_keep=2147483648 is too large for the definition"):
        make_saver_def(max_to_keep=2**31)


def test_item_129_export_strips_a_scope() -> None:
    definition = check_saver_def(of_text(SCOPES["def"]))
    for scope in ("sc", "sc/"):
        assert to_proto(definition, scope) == of_text(SCOPES["scope_match"])
    for scope in (None, ""):
        assert to_proto(definition, scope) == of_text(SCOPES["def"])


def test_item_130_none_where_the_scope_does_not_match() -> None:
    assert SCOPES["scope_nomatch"] is None
    definition = check_saver_def(of_text(SCOPES["def"]))
    # "s": fixed; TensorFlow takes the beginning of a name for its scope, and gives the definition as it was. ".c": literal.
    for scope in ("other", "scx", "sc//", "s", ".c", "sc/mine/Const:0"):
        assert to_proto(definition, scope) is None
    elsewhere = dataclasses.replace(definition, restore_op_name="other/restore_all")
    assert to_proto(elsewhere, "sc") is None


def test_item_131_import_prepends_a_scope_and_changes_no_argument() -> None:
    message = Message.FromString(of_text(FIELDS["plain"]))
    for scope in ("imp", "imp/"):
        definition = check_saver_def(message, scope)
        assert to_proto(definition) == of_text(IMPORTED["names"])
    assert definition.save_tensor_name == IMPORTED["argument_mutated"]  # in TensorFlow that of the argument, too
    assert message.SerializeToString() == of_text(FIELDS["plain"])


def test_item_131_a_scope_is_literal() -> None:
    assert check_saver_def(make_saver_def(), r"i\1").restore_op_name == r"i\1/save/restore_all"  # a regex in TensorFlow


@given(definitions, st.sampled_from(["s", "a/b", "x/"]))
def test_items_128_to_131_there_and_back(definition: SaverDef, scope: str) -> None:
    data = to_proto(definition)
    assert data is not None
    assert check_saver_def(data) == definition
    scoped = check_saver_def(data, scope)
    assert len({scoped.filename_tensor_name, definition.filename_tensor_name}) == 2
    if not any(name.startswith("/") for name in dataclasses.astuple(definition)[:3]):
        assert to_proto(scoped, scope) == data


@pytest.mark.parametrize("read", [check_saver_def, lambda data: decode_saver_def(data, "x")])
@given(data=st.binary(max_size=80) | st.tuples(definitions, st.binary(max_size=4), st.integers(0, 60)))
def test_any_bytes(read: Callable[[bytes], SaverDef], data: Any) -> None:
    """Whatever stands there is a definition, or our error."""
    if not isinstance(data, bytes):
        whole, strange, at = encode_saver_def(data[0]), data[1], data[2]
        data = whole[:at] + strange + whole[at + 1 :]
    try:
        definition = read(data)
    except ValueError as error:
        assert str(error).startswith(("x: ", "saver_def"))  # noqa: PT017 - either outcome is fine
    else:
        assert decode_saver_def(encode_saver_def(definition), "x") == definition or "nan" in repr(definition)
