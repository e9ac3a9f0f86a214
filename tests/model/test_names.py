"""Names and paths: what is ours, what only looks like it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.errors import ManifestError
from asyncsaver.model.names import (
    MAX_STEP,
    Naming,
    check_prefix,
    check_relative,
    check_step,
    is_save_id,
    new_save_id,
    parse_slot,
    part_path,
    save_folder,
    shard_filename,
    slot_path,
)

steps = st.integers(0, MAX_STEP)


@given(steps | st.none(), st.booleans(), st.sampled_from(["ckpt", "a.b=c+d@e-f", "ckpt-5", "9", "_"]))
def test_a_name_leads_back_to_its_step(step: int | None, pad: bool, prefix: str) -> None:
    naming = Naming(prefix, pad)
    name = naming.name(step)
    assert naming.parse(name) == (True, step)
    assert Naming(prefix, not pad).parse(name) == (True, step)
    assert naming.names(step)[0] == name
    assert {*naming.names(step)} == {naming.name(step), Naming(prefix, not pad).name(step)}
    assert len(naming.names(step)) == len({*naming.names(step)})


def test_names_are_as_documented() -> None:
    assert Naming().name(1000) == "ckpt-00001000"
    assert Naming(pad=False).name(1000) == "ckpt-1000"
    assert Naming().name(None) == "ckpt"
    assert Naming().name(123456789) == "ckpt-123456789"
    assert Naming().names(5) == ["ckpt-00000005", "ckpt-5"]
    assert Naming(pad=False).names(5) == ["ckpt-5", "ckpt-00000005"]


@pytest.mark.parametrize(
    "name",
    ["", "ckpt-", "ckpt-0005", "ckpt-005", "ckpt-000000005", "ckpt--5", "ckpt-+5", "ckpt- 5", "ckpt-5 ", "ckpt-5\n",
     "ckpt-1_000", "ckpt-\u0661", "ckpt-0000000\u0661", "ckpt-\u00b2", "ckpt-5.0", "ckpt-5e3", "ckpt-0x5", "CKPT-5", "xckpt-5",
     "ckpt5", "ckpt_5", "ckpt-5-1", "ckpt-ckpt-5", "other-5", "other", f"ckpt-{MAX_STEP + 1}", "ckpt-" + "9" * 5000,
     "ckpt-" + "0" * 5000],
)  # fmt: skip
def test_what_only_looks_like_a_name_is_not_ours(name: str) -> None:
    assert Naming().parse(name) == (False, None)
    assert Naming(pad=False).parse(name) == (False, None)


@given(st.text(max_size=30) | st.from_regex(r"\Ackpt-?\d{0,20}\Z"))
def test_only_names_that_we_would_give_are_ours(name: str) -> None:
    ours, step = Naming().parse(name)
    assert ours == (name == "ckpt" or (step is not None and name in Naming().names(step)))


@given(st.integers(0, 10**9 - 1))
def test_a_slot_leads_back_from_its_path(slot: int) -> None:
    folder, _, filename = slot_path("ckpt-00000001", slot).partition("/")
    assert folder == "ckpt-00000001"
    assert parse_slot(filename) == slot


@pytest.mark.parametrize(
    "filename",
    ["", "manifest", "manifest.json.tmp", "Manifest.json", "manifest-.json", "manifest-1.json", "manifest-001.json",
     "manifest-0000.json", "manifest-00001.json", "manifest-\u0660\u0660\u0660\u0661.json", "manifest-1000000000.json",
     "manifest-0001.json\n", "manifest.json\n", "manifest-0001.JSON", "xmanifest.json", "manifest--001.json",
     "manifest-+001.json", "manifestXjson", "manifest-0001Xjson"],
)  # fmt: skip
def test_other_files_are_no_slots(filename: str) -> None:
    assert parse_slot(filename) is None


def test_slots_are_as_documented() -> None:
    assert [slot_path("c", slot) for slot in (0, 1, 9999, 10000)] == [
        "c/manifest.json", "c/manifest-0001.json", "c/manifest-9999.json", "c/manifest-10000.json",
    ]  # fmt: skip


@given(st.floats(0, 4e9), st.integers(-(2**70), 2**70))
def test_a_save_id_is_one(now: float, bits: int) -> None:
    save_id = new_save_id(now, bits)
    assert is_save_id(save_id)
    assert save_id.endswith(f"{bits % 2**64:016x}")
    assert check_relative(save_folder("ckpt", save_id) + shard_filename(1, 1), "x")


def test_a_save_id_begins_with_the_time() -> None:
    assert new_save_id(0.9, 255) == "19700101T000000Z-00000000000000ff"


@pytest.mark.parametrize(
    "segment",
    ["", "19700101T000000Z", "19700101T000000Z-00000000000000fF", "19700101T000000Z-00000000000000f",
     "19700101T000000Z-00000000000000fff", "1\u0669700101T000000Z-00000000000000ff", "19700101t000000z-00000000000000ff",
     "19700101T000000Z-00000000000000ff\n", "x19700101T000000Z-00000000000000ff", "tmp", "manifest.json"],
)  # fmt: skip
def test_other_folders_are_no_saves(segment: str) -> None:
    assert not is_save_id(segment)


def test_paths_within_a_save() -> None:
    assert save_folder("c", "id") == "c/id/"
    assert part_path("c", "id", 3) == "c/id/part-00003.json"
    assert shard_filename(1, 4) == "model-00001-of-00004.safetensors"
    assert shard_filename(100_000, 100_000) == "model-100000-of-100000.safetensors"


@pytest.mark.parametrize("step", [0, 1, MAX_STEP, np.int32(5), np.uint64(7), np.array(9)])
def test_integers_of_any_kind_are_steps(step: Any) -> None:
    checked = check_step(step)
    assert type(checked) is int
    assert checked == step


@pytest.mark.parametrize("step", [1.0, "1", True, np.bool_(True), np.float64(1), None, [1], np.array([1, 2]), b"1"])
def test_other_types_are_no_steps(step: Any) -> None:
    with pytest.raises(TypeError, match="step must be an integer"):
        check_step(step)


@pytest.mark.parametrize("step", [-1, MAX_STEP + 1, 10**400, np.int64(-3)])
def test_steps_out_of_range_are_refused(step: Any) -> None:
    with pytest.raises(ValueError, match="between 0 and"):
        check_step(step)


@pytest.mark.parametrize("prefix", ["ckpt", "a", "_", "0", "Run.1=a+b@c-d", "x" * 100])
def test_prefixes(prefix: str) -> None:
    assert check_prefix(prefix) == prefix


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        ".",
        "..",
        ".x",
        "-x",
        "a/b",
        "a\\b",
        "a b",
        "a\n",
        "é",
        "a*",
        "x" * 101,
        "a:b",
        "%2e",
        "a?",
        "checkpoint.json",
    ],
)
def test_prefixes_that_would_not_stand_in_every_store(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        check_prefix(prefix)


@pytest.mark.parametrize("prefix", [None, 5, b"ckpt"])
def test_a_prefix_is_a_str(prefix: object) -> None:
    with pytest.raises(TypeError, match="prefix must be a str"):
        check_prefix(prefix)


@pytest.mark.parametrize("path", ["a", "a/b", "a/..b", "a/b..", ".a", "ä/é ü", "a" * 1024, "..."])
def test_paths_under_the_root(path: str) -> None:
    assert check_relative(path, "here") == path


@pytest.mark.parametrize(
    "path",
    ["", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/../b", "a/./b", "./a", "a\\..\\b", "a\0", "a\nb", "a\x7f",
     "a" * 1025],
)  # fmt: skip
def test_paths_that_leave_the_root(path: str) -> None:
    with pytest.raises(ManifestError, match="does not stay under the root") as caught:
        check_relative(path, "here")
    assert caught.value.path == "here"
    assert len(str(caught.value)) < 2000
