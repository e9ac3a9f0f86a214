"""Where the obstore engine takes profile, region, endpoint and keys from when none are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from asyncsaver.errors import AccessDeniedError
from asyncsaver_backends.obstore import ObstoreS3Store


@pytest.fixture
def headers(canned_server: Any) -> list[Any]:
    """Those of each request; all are answered with 200."""
    seen: list[Any] = []

    def answer(request: web.Request) -> web.Response:
        seen.append(request.headers)
        return web.Response(headers={"ETag": '"etag"'})

    canned_server.answer = answer
    return seen


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, canned_server: Any) -> Path:
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = DEFAULTKEY\naws_secret_access_key = default-secret\n"
        "[other]\naws_access_key_id = OTHERKEY\naws_secret_access_key = other-secret\naws_session_token = other-token\n"
    )
    (tmp_path / "config").write_text(
        f"[default]\nregion = eu-west-3\nendpoint_url = {canned_server.url}\n"
        f"[profile other]\nregion = eu-north-1\nendpoint_url = {canned_server.url}\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "key", "region"),
    [({}, "DEFAULTKEY", "eu-west-3"), ({"profile": "other"}, "OTHERKEY", "eu-north-1")],
    ids=["default", "profile"],
)
async def test_profiles_are_read(environment: Path, headers: Any, given: Any, key: str, region: str) -> None:
    async with ObstoreS3Store("s3://bucket/run", storage_options=given) as store:
        await store.put("object.bin", b"content")
    assert f"Credential={key}/" in headers[0]["Authorization"]
    assert f"/{region}/s3/" in headers[0]["Authorization"]
    assert headers[0].get("x-amz-security-token") == ("other-token" if given else None)


async def test_keys_that_are_given_are_not_mixed_with_the_environments(
    environment: Path, headers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-other-keys")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    async with ObstoreS3Store("s3://bucket/run", storage_options={"key": "MYKEY", "secret": "my-secret"}) as store:
        await store.put("object.bin", b"content")
    assert "Credential=MYKEY/" in headers[0]["Authorization"]
    assert "x-amz-security-token" not in headers[0]


async def test_the_environment_may_name_the_endpoint(
    environment: Path, headers: Any, canned_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (environment / "config").write_text("")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", canned_server.url)
    async with ObstoreS3Store("s3://bucket/run") as store:
        await store.put("object.bin", b"content")
    assert "/us-east-1/s3/" in headers[0]["Authorization"]


@pytest.mark.parametrize("missing", ["credentials", "profile"])
async def test_without_credentials_nothing_is_sent(environment: Path, canned_server: Any, missing: str) -> None:
    (environment / "credentials").write_text("")
    given = {"profile": "nobody"} if missing == "profile" else {}
    async with ObstoreS3Store("s3://bucket/run", storage_options=given) as store:
        with pytest.raises(AccessDeniedError, match="bucket/run"):
            await store.list()
    assert canned_server.requests == []
