"""A bucket in another region than the configured one is found, with one question to S3."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from botocore.httpsession import get_cert_path

from asyncsaver_backends._obstore_region import aws_endpoint, region_of
from asyncsaver_backends.obstore import ObstoreS3Store

KEYS = {"key": "key", "secret": "secret"}


class _Finder:
    """Knows where every bucket is, and what was asked for."""

    def __init__(self, region: str | None) -> None:
        self.region = region
        self.asked: list[str] = []

    def __call__(self, url: str, certificates: Path | None) -> str | None:
        assert certificates == Path(get_cert_path(verify=True))
        self.asked.append(url)
        return self.region


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is configured but a region."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


async def _endpoint(finder: _Finder, **options: Any) -> str:
    async with ObstoreS3Store("s3://bucket/run", storage_options={**KEYS, **options}, find_region=finder) as store:
        await store._ready()
        return store._open_clients.endpoint


@pytest.mark.parametrize(
    ("found", "region"), [("ap-south-1", "ap-south-1"), (None, "eu-west-1")], ids=["found", "not found"]
)
async def test_the_buckets_own_region_goes_first(found: str | None, region: str) -> None:
    finder = _Finder(found)
    assert await _endpoint(finder) == f"https://bucket.s3.{region}.amazonaws.com"
    assert finder.asked == ["https://s3.eu-west-1.amazonaws.com/bucket"]


async def test_nobody_is_asked_where_the_user_says_it() -> None:
    finder = _Finder("ap-south-1")
    named = await _endpoint(finder, client_kwargs={"region_name": "us-west-2"})
    assert named == "https://bucket.s3.us-west-2.amazonaws.com"
    assert await _endpoint(finder, endpoint_url="https://storage.example") == "https://storage.example"
    assert finder.asked == []


def test_china_has_a_domain_of_its_own() -> None:
    assert aws_endpoint("cn-north-1") == "https://s3.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize("status", [200, 301, 403])
async def test_whatever_s3_answers_it_names_the_region(canned_server: Any, status: int) -> None:
    canned_server.answer = lambda _: web.Response(status=status, headers={"x-amz-bucket-region": "eu-central-1"})
    assert await _asked(canned_server.url) == "eu-central-1"
    assert canned_server.requests == ["HEAD /bucket"]


@pytest.mark.parametrize("said", [{}, {"x-amz-bucket-region": "example.org/x"}], ids=["nothing", "nonsense"])
async def test_an_answer_without_a_region_is_none(canned_server: Any, said: dict[str, str]) -> None:
    canned_server.answer = lambda _: web.Response(status=404, headers=said)
    assert await _asked(canned_server.url) is None


async def test_a_server_that_is_not_there_names_none(unused_port: int) -> None:
    assert await _asked(f"http://127.0.0.1:{unused_port}") is None


async def _asked(url: str) -> str | None:
    return await asyncio.to_thread(region_of, f"{url}/bucket", None)
