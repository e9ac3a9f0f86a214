"""The state file: items 50 to 53, 63 to 67, 71, 73 and 87 to 97, with TensorFlow's own answers where it was asked."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from asyncsaver.errors import ManifestError, StoreError
from asyncsaver.store.registry import open_store
from asyncsaver.tensorflow import (
    State,
    generate_checkpoint_state,
    get_checkpoint_state,
    latest_checkpoint,
    update_checkpoint_state,
)

from .golden import GOLDEN, PROBES, ROTATION, names_in, with_folder

PARSED = PROBES["state.parse"]
UPDATED = PROBES["state.update"]
LATEST = b'model_checkpoint_path: "m"\n'
TEXTS = {
    "minimal": LATEST,
    "absolute": b'model_checkpoint_path: "/x/m" all_model_checkpoint_paths: "/x/a" all_model_checkpoint_paths: "rel"',
    "abs_outside": b'model_checkpoint_path: "../up/m"',
    "concat_strings": b"model_checkpoint_path: 'm' \"n\"",
    "crlf": b'model_checkpoint_path: "m"\r\nall_model_checkpoint_paths: "m"\r\n',
    "dup_singular": b'model_checkpoint_path: "a" model_checkpoint_path: "b"',
    "empty": b"",
    "escapes": rb'model_checkpoint_path: "\303\251\x41\n"',
    "garbage": b"\x00\x01 garbage",
    "inf_ts": LATEST + b"all_model_checkpoint_timestamps: inf last_preserved_timestamp: -inf",
    "list_syntax": LATEST + b'all_model_checkpoint_paths: ["a", "b"] all_model_checkpoint_timestamps: [1, 2.5e3]',
    "nan": LATEST + b"last_preserved_timestamp: nan",
    "no_colon_err": b'model_checkpoint_path "m"',
    "only_all": b'all_model_checkpoint_paths: "a"',
    "semicolons": b'model_checkpoint_path: "m"; all_model_checkpoint_paths: "a",',
    "single_quotes_comment": b"# one\nmodel_checkpoint_path: 'm' # two\nall_model_checkpoint_paths: 'a'",
    "unknown_field": LATEST + b"unknown: 1",
    "utf8_bom": b"\xef\xbb\xbf" + LATEST,
}


def as_tensorflow_has_it(state: State) -> dict[str, Any]:
    return {
        "model_checkpoint_path": state.latest,
        "all_model_checkpoint_paths": list(state.paths),
        "all_model_checkpoint_timestamps": list(state.timestamps),
        "last_preserved_timestamp": state.last_preserved,
    }


def text_of(folder: Path, name: str = "checkpoint") -> str:
    return (folder / name).read_text()


async def test_item_087_no_state_file(tmp_path: Path) -> None:
    assert PARSED["missing"] is None
    assert await get_checkpoint_state(tmp_path) is None
    assert await get_checkpoint_state(tmp_path / "no" / "folder") is None
    assert await latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("case", TEXTS)
async def test_items_088_to_092_every_text_as_tensorflow_reads_it(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoint").write_bytes(TEXTS[case])
    if PARSED[case].get("raises"):
        with pytest.raises(ManifestError, match="Invalid checkpoint state loaded from") as caught:
            await get_checkpoint_state(tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert isinstance(caught.value, ValueError)
        return
    with caplog.at_level(logging.WARNING, "asyncsaver"):
        state = await get_checkpoint_state(tmp_path)
    expected = with_folder(PARSED[case]["ok"], tmp_path)
    if expected is None:
        assert state is None
        assert f"{tmp_path}/checkpoint" in caplog.text
        assert "Checkpoint ignored" in caplog.text
    else:
        assert state is not None
        assert as_text(as_tensorflow_has_it(state)) == as_text(expected)
        assert not caplog.records


def as_text(state: dict[str, Any]) -> str:
    """Comparable: nan differs from itself."""
    return json.dumps(state, sort_keys=True)


async def test_item_089_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").touch()
    for call in (get_checkpoint_state, latest_checkpoint):
        with pytest.raises(ValueError, match="names no latest checkpoint"):
            await call(tmp_path)


async def test_item_090_invalid_utf8_is_ignored_like_other_garbage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """TensorFlow raises a UnicodeDecodeError."""
    assert PARSED["invalid_utf8"]["raises"] == "UnicodeDecodeError"
    (tmp_path / "checkpoint").write_bytes(b'model_checkpoint_path: "\xff"')
    with caplog.at_level(logging.WARNING, "asyncsaver"):
        assert await get_checkpoint_state(tmp_path) is None
    assert "Checkpoint ignored" in caplog.text


async def test_item_092_relative_paths_are_joined_to_the_folder_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoint").write_bytes(LATEST)
    (tmp_path / "m.index").touch()
    monkeypatch.chdir(tmp_path)
    assert await latest_checkpoint("") == PARSED["empty_dir"]
    assert await latest_checkpoint(".") == PARSED["relative_dir"]
    state = await get_checkpoint_state(tmp_path.as_uri())
    assert state == State(str(tmp_path / "m"))
    assert as_tensorflow_has_it(state) == with_folder(PARSED["pathlike"]["ok"], tmp_path), "item 71"


@pytest.mark.parametrize(
    "path", ["../../../m", "../other/../../../m", "/train/m", "s3://elsewhere/run/m", "memory://elsewhere/m"]
)
async def test_item_092_nothing_leads_out_of_an_object_store(
    memory_root: Any, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(f"{memory_root.url}/runs/a") as store:
        await store.put("checkpoint", f'model_checkpoint_path: "{path}"'.encode())
        with pytest.raises(ManifestError, match=r"above the bucket|paths are relative|different buckets"):
            await get_checkpoint_state(f"{memory_root.url}/runs/a")
        text = f'model_checkpoint_path: "m" all_model_checkpoint_paths: ["a", "{path}", "../b/m"]'
        await store.put("checkpoint", text.encode())
        state = await get_checkpoint_state(f"{memory_root.url}/runs/a")
        top = f"{memory_root.url}/runs"
        assert state == State(f"{top}/a/m", (f"{top}/a/a", f"{top}/b/m"))
        assert "is ignored" in caplog.text
        await store.put("checkpoint", text.encode() + b"all_model_checkpoint_timestamps: [1, 2, 3]")
        timed = await get_checkpoint_state(f"{memory_root.url}/runs/a")
        assert timed == dataclasses.replace(state, timestamps=(1.0, 3.0)), "no path takes the time of another"


async def test_item_094_the_latest_must_have_an_index(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "checkpoint").write_bytes(LATEST)
    with caplog.at_level(logging.ERROR, "asyncsaver"):
        assert await latest_checkpoint(tmp_path) is PARSED["latest_files_missing"] is None
    assert [record.getMessage() for record in caplog.records] == [f"Couldn't match files for checkpoint {tmp_path}/m"]
    (tmp_path / "m.data-00000-of-00001").touch()
    assert await latest_checkpoint(tmp_path) is None
    (tmp_path / "m").touch()
    assert await latest_checkpoint(tmp_path) == with_folder(PARSED["latest_v1_file"], tmp_path)
    (tmp_path / "m").unlink()
    (tmp_path / "m.index").touch()
    assert await latest_checkpoint(tmp_path) == with_folder(PARSED["latest_v2_file"], tmp_path)


@pytest.mark.parametrize(
    ("probe", "folder", "arguments", "options"),
    [
        ("none", "/d", ("m",), {}),
        ("not_last", "/d", ("/x/m", ["/x/a"]), {}),
        ("abs_dir_rel_path_kept", "/d", ("m",), {}),
        ("empty_save_dir", "", ("m",), {}),
        ("rel_dir_rewrites", "d", ("d/m", ["d/a", "/abs/b", "d/m"]), {}),
        ("rel_dir_outside", "d/e", ("m",), {}),
        ("float_text", "/d", ("m",), {"times": [1700000000.1234567], "preserved": float("inf")}),
        ("ts", "/d", ("m", ["a", "m"]), {"times": [1.5, 1e9], "preserved": 0.1}),
    ],
)
async def test_items_095_and_097_what_is_written(  # noqa: PLR0917 - the parameters of a table
    probe: str, folder: str, arguments: Any, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = UPDATED[probe]["ok"] if "ok" in UPDATED[probe] else UPDATED[probe]
    (tmp_path / "d" / "e").mkdir(parents=True)
    here = folder.replace("/d", str(tmp_path / "d"))
    await update_checkpoint_state(
        here,
        *arguments,
        all_model_checkpoint_timestamps=options.get("times"),
        last_preserved_timestamp=options.get("preserved"),
    )
    assert text_of(Path(here)) == expected


async def test_item_095_the_state_is_replaced_and_may_have_another_name(tmp_path: Path) -> None:
    await update_checkpoint_state(tmp_path, "m-1", ["m-0"], "my_state")
    await update_checkpoint_state(tmp_path, "m-2", latest_filename="my_state")
    assert names_in(tmp_path) == ["my_state"]
    assert await get_checkpoint_state(tmp_path, "my_state") == State(f"{tmp_path}/m-2", (f"{tmp_path}/m-2",))


@pytest.mark.parametrize("paths", [["a", "m"], ["a"]])
async def test_item_096_one_time_for_each_path(tmp_path: Path, paths: list[str]) -> None:
    with pytest.raises(ValueError, match="must match checkpoint paths") as caught:
        await update_checkpoint_state(tmp_path, "m", paths, all_model_checkpoint_timestamps=[1.5])
    assert str(caught.value) == UPDATED["ts_mismatch"]["message"] == UPDATED["ts_mismatch_because_appended"]["message"]
    assert names_in(tmp_path) == []


def test_item_097_the_callers_list_stays_as_it_is() -> None:
    """TensorFlow appends to it, and rewrites it."""
    paths = ["/x/a"]
    assert UPDATED["callers_list_mutated"] == [*paths, "/x/m"]
    state = generate_checkpoint_state("/d", "/x/m", paths, [1.0, 2.0], 0.5)
    assert state == State("/x/m", ("/x/a", "/x/m"), (1.0, 2.0), 0.5)
    assert paths == ["/x/a"]


@pytest.mark.parametrize("name", ["a/b", "/abs", "checkpoint/", "../checkpoint"])
async def test_item_050_the_file_is_in_the_folder(tmp_path: Path, name: str) -> None:
    expected = PROBES["save.latest_filename_errors"]["path_component"]["message"]
    for call in (get_checkpoint_state(tmp_path, name), update_checkpoint_state(tmp_path, "m", latest_filename=name)):
        with pytest.raises(ValueError, match=expected):
            await call


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_item_051_an_empty_name_is_refused_first(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must be the name of a file"):
        await update_checkpoint_state(tmp_path, "m", latest_filename=name)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["checkpoint", "st"])
async def test_items_052_and_053_a_checkpoint_of_the_same_name(tmp_path: Path, name: str) -> None:
    for path in (str(tmp_path / name), f"{tmp_path}/./{name}", name):
        with pytest.raises(ValueError, match=f"collides with the checkpoint: '{name}' and '.*{name}'"):
            await update_checkpoint_state(tmp_path, path, latest_filename=name)
    with pytest.raises(ValueError, match="collides"):
        await update_checkpoint_state("memory://bucket/run", f"memory://bucket/run/{name}", latest_filename=name)
    assert names_in(tmp_path) == []


async def test_items_063_to_065_relative_paths_survive_a_move(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    probe = with_folder(PROBES["save.save_relative_paths_two_dirs"], tmp_path)
    a, b = tmp_path / "a", tmp_path / "b"
    for folder, paths in ((a, [f"{a}/m-1"]), (b, [f"{a}/m-1", f"{b}/m-2"])):
        folder.mkdir()
        (folder / f"{paths[-1]}.index").touch()
        await update_checkpoint_state(folder, paths[-1], paths, save_relative_paths=True)
    assert text_of(a) == probe["a"]
    assert text_of(b) == probe["b"]
    assert await latest_checkpoint(b) == probe["latest_b"]
    b.rename(tmp_path / "c")
    assert await latest_checkpoint(tmp_path / "c") == probe["after_move"]
    state = await get_checkpoint_state(tmp_path / "c")
    assert state is not None
    assert as_tensorflow_has_it(state) == probe["all"]

    await update_checkpoint_state(a, f"{a}/m-1")
    a.rename(tmp_path / "d")
    assert await latest_checkpoint(tmp_path / "d") is PROBES["save.absolute_paths_break_on_move"]["latest"]
    assert f"Couldn't match files for checkpoint {a}/m-1" in caplog.text


async def test_item_063_a_relative_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    probe = PROBES["save.relative_prefix_state_text"]
    await update_checkpoint_state("", "m-1")
    assert text_of(tmp_path) == probe["bare_state"]
    await update_checkpoint_state("sub", "sub/m-2", probe["last"][:2])
    assert text_of(tmp_path / "sub") == probe["sub_state"]
    await update_checkpoint_state("./sub", "./sub/n-3", probe["last"])
    assert text_of(tmp_path / "sub") == probe["dot_state"]


@pytest.mark.parametrize("name", PROBES["save.text_escapes_in_state"])
async def test_item_073_odd_characters_come_back(tmp_path: Path, memory_root: Any, name: str) -> None:
    """A backslash too, for which TensorFlow looks among patterns and finds nothing."""
    for url in (str(tmp_path), memory_root.url):
        async with open_store(url) as store:
            await store.put(f"{name}.index", b"")
        await update_checkpoint_state(url, f"{url}/{name}", save_relative_paths=True)
        assert await latest_checkpoint(url) == f"{url}/{name}"
    assert text_of(tmp_path).splitlines()[0] == PROBES["save.text_escapes_in_state"][name][1]


async def test_a_store_that_fails_is_not_a_folder_without_checkpoints(tmp_path: Path) -> None:
    """To TensorFlow it is, and training begins anew."""
    (tmp_path / "run").touch()
    with pytest.raises(StoreError):
        await get_checkpoint_state(tmp_path / "run")


@pytest.mark.parametrize("name", sorted({name.rpartition("/")[0] for name in ROTATION["state_texts"]}))
async def test_items_087_to_094_every_golden_folder(name: str, tmp_path: Path) -> None:
    filename = "my_state" if name == "latest" else "checkpoint"
    folder = tmp_path / "moved"
    shutil.copytree(GOLDEN / "rotation" / name, folder)
    text = text_of(folder, filename)
    if "/train/golden" in text:
        assert await latest_checkpoint(folder, filename) is None
        (folder / filename).write_text(text.replace(f"/train/golden/rotation/{name}", str(folder)))
    state = await get_checkpoint_state(folder, filename)
    assert state is not None
    assert await latest_checkpoint(folder, filename) == state.latest == state.paths[-1]
    assert {Path(path).parent for path in state.paths} == {folder}
    if name == "manager":
        times = ROTATION["runs"][name]["state"]
        assert str(list(state.timestamps)) == times["all_model_checkpoint_timestamps"]
        assert state.last_preserved == times["last_preserved_timestamp"]


async def test_items_087_to_097_on_every_store(any_root: Any) -> None:
    options: Any = {"storage_options": any_root.storage_options}
    url = any_root.url
    assert await get_checkpoint_state(url, **options) is None
    async with open_store(url, **options) as store:
        await store.put("m-2.index", b"")
        await update_checkpoint_state(url, f"{url}/m-2", [f"{url}/m-1"], save_relative_paths=True, **options)
        text = (await store.get("checkpoint")).data
    assert (
        text == b'model_checkpoint_path: "m-2"\nall_model_checkpoint_paths: "m-1"\nall_model_checkpoint_paths: "m-2"\n'
    )
    assert await get_checkpoint_state(url, **options) == State(f"{url}/m-2", (f"{url}/m-1", f"{url}/m-2"))
    assert await latest_checkpoint(url, **options) == f"{url}/m-2"
