from __future__ import annotations

import pytest

from asyncsaver.errors import InvalidRootError
from asyncsaver_backends._cloud import Root, parse_root


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("s3://bucket", Root("bucket", "")),
        ("s3://bucket/", Root("bucket", "")),
        ("s3://bucket/run", Root("bucket", "run/")),
        ("gs://bucket/a/b//", Root("bucket", "a/b/")),
        ("gcs://Bucket.with.dots/a b", Root("Bucket.with.dots", "a b/")),
    ],
)
def test_a_root_is_a_bucket_and_a_prefix(url: str, root: Root) -> None:
    assert parse_root(url) == root


def test_azure_may_name_the_account() -> None:
    root = parse_root("abfs://container@account.dfs.core.windows.net/run/1", account_allowed=True)
    assert root == Root("container", "run/1/", "account.dfs.core.windows.net")


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///run",
        "no-scheme",
        "s3://AKIAKEY:hush@bucket/run",
        "s3://hush@bucket/run",
        "az://container/run?sig=hush",
        "s3://bucket/run#hush",
        "s3://bucket/a/../b",
        "s3://bucket/a//b",
    ],
)
def test_other_urls_are_refused_without_repeating_what_may_be_secret(url: str) -> None:
    with pytest.raises(InvalidRootError) as caught:
        parse_root(url)
    assert "hush" not in str(caught.value)
