"""Paths in a state file and outside of it, without a store; and stores that are reached through a ready filesystem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.errors import UnsupportedStoreError
from asyncsaver.tensorflow import (
    State,
    checkpoint_exists,
    generate_checkpoint_state,
    get_checkpoint_mtimes,
    get_checkpoint_state,
    latest_checkpoint,
    remove_checkpoint,
    update_checkpoint_state,
)
from asyncsaver.tensorflow.paths import RemoteFolder, folder_at, split_prefix

RUN = "s3://bucket/runs/a"


@pytest.mark.parametrize(
    ("path", "stored"),
    [
        (f"{RUN}/m-1", "m-1"),
        (f"{RUN}/sub/m-1", "sub/m-1"),
        ("s3://bucket/runs/b/m-1", "../b/m-1"),
        ("s3://bucket/m-1", "../../m-1"),
        (f"{RUN}/../b//./m-1", "../b/m-1"),
        ("m-1", "m-1"),
        ("./m-1", "m-1"),
        ("../b/m-1", "../b/m-1"),
        (f"{RUN}/m-1/", "m-1/"),
        (f"{RUN}/m?#%20é", "m?#%20é"),
    ],
)
def test_item_064_on_object_stores_paths_are_relative(path: str, stored: str) -> None:
    assert generate_checkpoint_state(RUN, path) == State(stored, (stored,))
    assert generate_checkpoint_state(f"{RUN}/", path) == State(stored, (stored,))
    found = folder_at(RUN).found(stored)
    assert generate_checkpoint_state(RUN, found) == State(stored, (stored,))
    assert found.endswith("/") is path.endswith("/")


@pytest.mark.parametrize(
    "path", ["s3://other/m-1", "gs://bucket/m-1", "/train/m-1", "../../../m-1", f"{RUN}/../../../other/m-1", ""]
)
def test_item_092_no_path_leads_out_of_the_bucket(path: str) -> None:
    with pytest.raises(ValueError, match=r"different buckets|paths are relative|above the bucket|is empty"):
        generate_checkpoint_state(RUN, path)


def test_no_credential_is_in_a_message() -> None:
    for path in ("s3://key:secret@other/m-1", "/m-1", "../../../../m-1"):
        with pytest.raises(ValueError, match=r"bucket|relative") as caught:
            generate_checkpoint_state("s3://key:secret@bucket/runs/a", path)
        assert "secret" not in str(caught.value)


segments = st.text(st.characters(blacklist_characters="/", min_codepoint=33), min_size=1).filter(
    lambda text: text not in {".", ".."}
)


@given(st.lists(segments, max_size=3), st.lists(segments, min_size=1, max_size=4))
def test_what_is_stored_is_found_again(inside: list[str], path: list[str]) -> None:
    folder = RemoteFolder("/".join(["memory://bucket", *inside]))
    whole = "/".join(["memory://bucket", *path])
    assert folder.found(folder.stored(whole, relative=True)) == whole


@pytest.mark.parametrize(
    ("prefix", "parts"),
    [
        ("m", (".", "m")),
        ("/m", ("/", "m")),
        ("d/m", ("d", "m")),
        ("/d/", ("/d", "")),
        ("file:///d/m", ("/d", "m")),
        ("s3://bucket/m", ("s3://bucket", "m")),
        ("s3://bucket/d/m", ("s3://bucket/d", "m")),
    ],
)
def test_the_folder_and_the_name_of_a_checkpoint(prefix: str, parts: tuple[str, str]) -> None:
    assert split_prefix(prefix) == parts


def test_a_path_below_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    state = generate_checkpoint_state("~/run", "~/run/m", save_relative_paths=True)
    assert state.latest == "m"
    assert folder_at("~/run").found(state.latest) == f"{tmp_path}/run/m"


@pytest.mark.parametrize("relative", [True, False])
def test_a_relative_folder_with_absolute_paths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, relative: bool
) -> None:
    """TensorFlow rewrites them twice, and they lead nowhere."""
    monkeypatch.chdir(tmp_path)
    state = generate_checkpoint_state("run", f"{tmp_path}/run/m", save_relative_paths=relative)
    assert state.latest == ("m" if relative else f"{tmp_path}/run/m")


@pytest.mark.parametrize("folder", ["test-paths/run", "/test-paths/run", "memory://test-paths/run"])
async def test_item_092_in_a_ready_filesystem(folder: str) -> None:
    filesystem = fsspec.filesystem("memory")
    options: Any = {"filesystem": filesystem}
    try:
        filesystem.pipe("/test-paths/run/m-1.index", b"index")
        await update_checkpoint_state(folder, f"{folder}/m-1", [f"{folder}/../other/m-0"], **options)
        text = filesystem.cat("/test-paths/run/checkpoint").decode()
        assert text.splitlines()[:2] == ['model_checkpoint_path: "m-1"', 'all_model_checkpoint_paths: "../other/m-0"']
        state = await get_checkpoint_state(folder, **options)
        top = folder.removesuffix("/run")
        assert state == State(f"{folder}/m-1", (f"{top}/other/m-0", f"{folder}/m-1"))
        assert await latest_checkpoint(folder, **options) == f"{folder}/m-1"
        assert await checkpoint_exists(f"{folder}/m-1", **options)
        with pytest.raises(UnsupportedStoreError, match="does not say when"):
            await get_checkpoint_mtimes([f"{folder}/m-1"], **options)
        await remove_checkpoint(f"{folder}/m-1", **options)
        assert not await checkpoint_exists(f"{folder}/m-1", **options)
    finally:
        filesystem.rm("/test-paths", recursive=True)


async def test_a_ready_local_filesystem_is_a_disk(tmp_path: Path) -> None:
    options: Any = {"filesystem": LocalFileSystem()}
    await update_checkpoint_state(tmp_path, tmp_path / "m-1", **options)
    assert (tmp_path / "checkpoint").read_text().startswith(f'model_checkpoint_path: "{tmp_path}/m-1"')
    assert await get_checkpoint_state(tmp_path, **options) == State(f"{tmp_path}/m-1", (f"{tmp_path}/m-1",))
