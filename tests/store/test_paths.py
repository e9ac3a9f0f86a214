from __future__ import annotations

import pytest

from asyncsaver.errors import StoreError
from asyncsaver.store.paths import check_path, check_prefix, redact


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/run", "s3://bucket/run"),
        ("s3://key:secret@bucket/run", "s3://bucket/run"),
        ("s3://key:se/cret@bucket/run", "s3://bucket/run"),
        ("https://token@host:8080/run?sig=secret#part", "https://host:8080/run"),
        ("https://host?sig=secret", "https://host"),
        ("sftp://user:pass@word@host/run", "sftp://host/run"),
        ("abfs://container@account.dfs.core.windows.net/run?sv=1&sig=secret", None),
        ("abfs://user:secret@account/run", "abfs://account/run"),
        ("simplecache::s3://key:secret@bucket/run", "simplecache::s3://bucket/run"),
        ("zip://inner?a=1::s3://key:secret@bucket/run", "zip://inner::s3://bucket/run"),
        ("/plain/pa@th?with#signs", "/plain/pa@th?with#signs"),
        ("file:///pa@th?with#signs", "file:///pa@th?with#signs"),
        ("memory://name/a?b", "memory://name/a?b"),
    ],
)
def test_redact(url: str, shown: str | None) -> None:
    assert redact(url) == (shown or "abfs://container@account.dfs.core.windows.net/run")


@pytest.mark.parametrize("path", ["a", "a/b.bin", ".hidden", "a/...", "with space", "ü?#%"])
def test_paths_below_the_root(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize("path", ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a\0b"])
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(StoreError):
        check_path(path)


def test_prefixes() -> None:
    assert check_prefix("") == ""
    assert check_prefix("a/b/") == "a/b/"
    for prefix in ("a", "/", "../", "a/../"):
        with pytest.raises(StoreError):
            check_prefix(prefix)
