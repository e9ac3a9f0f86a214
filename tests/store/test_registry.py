from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from asyncsaver.errors import UnsupportedStoreError
from asyncsaver.store import Store
from asyncsaver.store.registry import open_store
from asyncsaver_backends.fsspec import FsspecStore
from asyncsaver_backends.local import LocalStore
from asyncsaver_backends.memory import MemoryStore


async def _round_trip(store: Store) -> None:
    async with store:
        await store.put("object.bin", b"content")
        assert (await store.get("object.bin")).data == b"content"


@pytest.mark.parametrize("form", ["{}", "file://{}", "local://{}", "FILE://{}"])
async def test_local_paths_in_every_form(tmp_path: Path, form: str) -> None:
    store = open_store(form.format(tmp_path))
    assert isinstance(store, LocalStore)
    await _round_trip(store)
    assert (tmp_path / "object.bin").read_bytes() == b"content"


async def test_path_objects(tmp_path: Path) -> None:
    await _round_trip(open_store(tmp_path / "run"))
    assert (tmp_path / "run" / "object.bin").read_bytes() == b"content"


async def test_relative_paths_keep_their_meaning_after_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("runs/first")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    await _round_trip(store)
    assert (tmp_path / "runs" / "first" / "object.bin").exists()


async def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    await _round_trip(open_store("~/run"))
    assert (tmp_path / "run" / "object.bin").exists()


async def test_memory() -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}/run")
    assert isinstance(store, MemoryStore)
    await _round_trip(store)


class AtticFileSystem(LocalFileSystem):
    protocol = "attic"
    made: ClassVar[list[dict[str, object]]] = []

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.made.append(options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("attic://")


async def test_schemes_without_a_backend_go_through_fsspec(tmp_path: Path) -> None:
    fsspec.register_implementation("attic", AtticFileSystem, clobber=True)
    store = open_store(f"attic://{tmp_path}/run", storage_options={"colour": "blue"})
    assert isinstance(store, FsspecStore)
    assert AtticFileSystem.made == []  # the first call connects
    await _round_trip(store)
    assert AtticFileSystem.made == [{"colour": "blue"}]
    assert (tmp_path / "run" / "object.bin").exists()


async def test_ready_filesystems_pick_the_backend_by_protocol(tmp_path: Path) -> None:
    memory = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    folder = DirFileSystem(path=str(tmp_path), fs=LocalFileSystem())
    for filesystem, path, kind in [
        (LocalFileSystem(), str(tmp_path / "a"), LocalStore),
        (LocalFileSystem(), f"file://{tmp_path}/b", LocalStore),
        (memory, "/run", FsspecStore),
        (memory, "memory://run", FsspecStore),
        (folder, "sub", FsspecStore),
    ]:
        store = open_store(path, filesystem=filesystem)
        assert type(store) is kind
        await _round_trip(store)
    assert memory.cat_file("/run/object.bin") == b"content"
    assert (tmp_path / "sub" / "object.bin").read_bytes() == b"content"


def test_unknown_schemes_list_the_known_ones_and_no_secret() -> None:
    with pytest.raises(UnsupportedStoreError, match=r"carrier-pigeon://.*known are .*file.*memory.*s3") as caught:
        open_store("carrier-pigeon://user:hunter2@coop/run?token=hunter3")
    assert "hunter" not in str(caught.value)


def test_a_missing_package_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['s3fs'] = sys.modules['obstore'] = None\n"  # how imports of missing packages look
        "from asyncsaver.store.registry import open_store\n"
        "try:\n"
        "    open_store('s3://bucket/run')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UnsupportedStoreError")
    assert 'pip install "asyncsaver[s3]"' in done.stdout


def test_a_missing_package_of_an_fsspec_scheme_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paramiko", None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.sftp", raising=False)
    with pytest.raises(UnsupportedStoreError, match="paramiko"):
        open_store("sftp://host/run")


@pytest.mark.parametrize("engine", ["auto", "fsspec", "obstore"])
def test_known_engines(tmp_path: Path, engine: str) -> None:
    assert isinstance(open_store(tmp_path, engine=engine), LocalStore)


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'auto', 'fsspec'"):
        open_store(tmp_path, engine="warp")
    with pytest.raises(ValueError, match="colour"):
        open_store(tmp_path, storage_options={"colour": "blue"})
    with pytest.raises(ValueError, match="colour"):
        open_store("memory://x", storage_options={"colour": "blue"})
    with pytest.raises(ValueError, match="empty"):
        open_store("")
    with pytest.raises(ValueError, match="not both"):
        open_store("/run", storage_options={"a": 1}, filesystem=fsspec.filesystem("memory"))


@pytest.mark.parametrize("url", [Path("s3://bucket/run"), "gs:/bucket/run", Path("memory://name")])
def test_a_url_that_went_through_pathlib_is_refused(url: Path | str) -> None:
    with pytest.raises(ValueError, match="pathlib"):
        open_store(url)
