"""gcsfs' options and environment through the obstore engine, against a server that only records and answers as told."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import gcsfs.core
import google.auth.credentials
import google.auth.exceptions
import google.oauth2.credentials
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from asyncsaver.errors import (
    AccessDeniedError,
    StoreError,
    StoreTimeoutError,
    UnsupportedStoreError,
)
from asyncsaver.store.registry import open_store
from asyncsaver_backends._obstore_gcs_options import _OPTIONS, gcs_options
from asyncsaver_backends.gcs import GcsStore
from asyncsaver_backends.obstore import ObstoreGcsStore

TOKEN = "ya29.secret-token"


@pytest.fixture
def headers(canned_server: Any) -> list[Any]:
    """Those of each request; objects are as the XML API answers, listings are empty, and tokens are handed out."""
    seen: list[Any] = []

    def answer(request: web.Request) -> web.Response:
        if request.path == "/token":
            return web.json_response({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})
        seen.append(request.headers)
        if request.path.startswith("/storage/"):
            return web.json_response({"kind": "storage#objects"})
        known = {"ETag": '"etag"', "x-goog-generation": "7", "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        return web.Response(headers=known)

    canned_server.answer = answer
    return seen


@pytest.fixture
def options(canned_server: Any) -> dict[str, Any]:
    return {"token": google.oauth2.credentials.Credentials(TOKEN), "endpoint_url": canned_server.url}


@pytest.fixture
async def canned_store(options: dict[str, Any]) -> AsyncIterator[ObstoreGcsStore]:
    async with ObstoreGcsStore("gs://bucket/run", storage_options=options) as store:
        yield store


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


# --- options -----------------------------------------------------------------------------------------


def test_it_is_used_when_asked_for() -> None:
    assert isinstance(open_store("gs://bucket/run", engine="obstore"), ObstoreGcsStore)
    assert isinstance(open_store("gcs://bucket/run", engine="obstore"), ObstoreGcsStore)
    assert isinstance(open_store("gs://bucket/run"), GcsStore)


def test_every_option_of_gcsfs_is_known_or_refused_by_name() -> None:
    names = set(inspect.signature(gcsfs.core.GCSFileSystem.__init__).parameters) - {"self", "kwargs"}
    assert names > _OPTIONS
    for name in [*sorted(names - _OPTIONS), "colour"]:
        with pytest.raises(UnsupportedStoreError, match=f"{name}.*storage_options") as caught:
            open_store("gs://bucket/run", storage_options={name: "hush"}, engine="obstore")
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize("options", [{"access": "hush"}, {"endpoint_url": "hush:443"}, {"requests_timeout": "hush"}])
def test_values_that_make_no_sense_are_not_repeated(options: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        gcs_options(options)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "connect", "read", "total"),
    [
        (None, 10, 60, None),
        (0, 10, 60, None),
        (7, 10, 60, 7),
        (aiohttp.ClientTimeout(total=None), 10, 60, None),
        (aiohttp.ClientTimeout(total=9, connect=3, sock_connect=2, sock_read=4), 2, 4, 9),
    ],
)
def test_timeouts(given: Any, connect: float, read: float, total: float | None) -> None:
    translated = gcs_options({"requests_timeout": given})
    assert (translated.connect_timeout, translated.read_timeout) == (connect, read)
    assert translated.total_timeout == total


@pytest.mark.parametrize("limit", [0.05, aiohttp.ClientTimeout(sock_read=0.05)], ids=["total", "reading"])
async def test_a_server_that_never_answers_is_given_up(canned_server: Any, options: Any, limit: Any) -> None:
    over = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    canned_server.answer = answer
    async with ObstoreGcsStore("gs://bucket/run", storage_options={**options, "requests_timeout": limit}) as store:
        for call in (store.get("object.bin"), store.put("object.bin", b"content"), store.list("folder/")):
            with pytest.raises(StoreTimeoutError, match=r"(object\.bin|folder/).*127\.0\.0\.1") as caught:
                await call
            assert caught.value.retryable
        over.set()


@pytest.mark.parametrize(
    "options", [{"requester_pays": "the-project"}, {"requester_pays": True, "project": "the-project"}]
)
async def test_who_pays_is_told_on_every_request(canned_server: Any, headers: Any, options: Mapping[str, Any]) -> None:
    given = {"token": "anon", "endpoint_url": canned_server.url, **options}
    async with ObstoreGcsStore("gs://bucket/run", storage_options=given) as store:
        await store.put("object.bin", b"content")
        await store.get("object.bin")
        assert [sent["x-goog-user-project"] for sent in headers] == ["the-project"] * 2
        await store.list()
        await store.delete(["object.bin"])
    assert all("userProject=the-project" in request for request in canned_server.requests[2:])


async def test_somebody_has_to_pay(canned_server: Any) -> None:
    given = {"token": "anon", "endpoint_url": canned_server.url, "requester_pays": True, "project": ""}
    async with ObstoreGcsStore("gs://bucket/run", storage_options=given) as store:
        with pytest.raises(StoreError, match="requester_pays"):
            await store.list()
    assert canned_server.requests == []


def test_without_gcsfs_the_message_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['gcsfs'] = None\n"  # what an import of a package that is not installed looks like
        "from asyncsaver.store.registry import open_store\n"
        "open_store('s3://bucket/run', storage_options={'anon': True}, engine='obstore')\n"
        "try:\n"
        "    open_store('gs://bucket/run', engine='obstore')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UnsupportedStoreError")
    assert 'pip install "asyncsaver[gcs,obstore]"' in done.stdout


# --- where requests go, and with which token ---------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_the_emulator_of_the_environment_is_used(
    canned_server: Any, headers: Any, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", scheme + canned_server.url.removeprefix("http://"))
    monkeypatch.setenv("GOOGLE_BASE_URL", "http://127.0.0.1:1")  # obstore's own, which gcsfs does not know
    async with ObstoreGcsStore("gs://bucket/run", storage_options={"token": "anon"}) as store:
        await store.get("object.bin")
        await store.list()
    assert canned_server.requests[0] == "GET /bucket/run%2Fobject%2Ebin"
    assert canned_server.requests[1].startswith("GET /storage/v1/b/bucket/o?")


async def test_anonymous_requests_carry_no_token(
    canned_server: Any, headers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", TOKEN)
    for token in ("anon", google.auth.credentials.AnonymousCredentials()):
        given = {"token": token, "endpoint_url": canned_server.url}
        async with ObstoreGcsStore("gs://bucket/run", storage_options=given) as store:
            await store.get("object.bin")
            await store.put("object.bin", b"content")
    assert len(headers) == 4
    assert all(sent.get("Authorization", "Bearer").strip() == "Bearer" for sent in headers)


@pytest.fixture
def account(canned_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: rsa.RSAPrivateKey) -> Path:
    """The key file of a service account, which the environment names too."""
    path = tmp_path / "account.json"
    told = {
        "type": "service_account",
        "project_id": "the-project",
        "private_key": _pem(key).decode(),
        "client_email": "saver@the-project.iam.gserviceaccount.com",
        "token_uri": f"{canned_server.url}/token",
    }
    path.write_text(json.dumps(told))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    return path


@pytest.mark.parametrize("how", ["path", "dict", "google_default"])
async def test_tokens_by_any_name(canned_server: Any, headers: Any, account: Path, how: str) -> None:
    told = json.loads(await asyncio.to_thread(account.read_text))
    token = {"path": str(account), "dict": told, "google_default": how}[how]
    given = {"token": token, "endpoint_url": canned_server.url, "access": "read_write"}
    async with ObstoreGcsStore("gs://bucket/run", storage_options=given) as store:
        await store.put("object.bin", b"content")
        await store.get("object.bin")
        await store.list()
    assert [sent["Authorization"] for sent in headers] == [f"Bearer {TOKEN}"] * 3
    asked = parse_qs(canned_server.bodies[canned_server.requests.index("POST /token")].decode())
    claims = asked["assertion"][0].split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(claims + "=="))["scope"].endswith("devstorage.read_write")


async def test_a_raw_token_is_used_as_it_is(canned_server: Any, headers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FETCH_RAW_TOKEN_EXPIRY", "false")  # else gcsfs asks Google about it
    given = {"token": TOKEN, "endpoint_url": canned_server.url}
    async with ObstoreGcsStore("gs://bucket/run", storage_options=given) as store:
        await store.put("object.bin", b"content")
    assert headers[0]["Authorization"] == f"Bearer {TOKEN}"


class Renewed(google.oauth2.credentials.Credentials):
    """Every token of it has run out as soon as it is there; the fourth cannot be had."""

    def __init__(self) -> None:
        super().__init__("token-0", expiry=datetime(2020, 1, 1))  # noqa: DTZ001 - google-auth's times have no zone
        self.count = 0

    def refresh(self, request: object) -> None:
        self.count += 1
        if self.count > 3:
            raise google.auth.exceptions.RefreshError(f"do not repeat {TOKEN}")
        self.token = f"token-{self.count}"


async def test_tokens_are_refreshed(canned_server: Any, headers: Any) -> None:
    renewed = Renewed()
    given = {"token": renewed, "endpoint_url": canned_server.url}
    async with ObstoreGcsStore("gs://bucket/run", storage_options=given) as store:
        for _ in range(3):
            await store.put("object.bin", b"content")
        with pytest.raises(AccessDeniedError) as caught:
            await store.put("object.bin", b"content")
    assert [sent["Authorization"] for sent in headers] == [f"Bearer token-{number}" for number in (1, 2, 3)]
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


async def test_a_key_file_that_only_obstore_looks_for_is_named(
    canned_store: ObstoreGcsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_ACCOUNT", "hush@the-project.iam.gserviceaccount.com")
    with pytest.raises(StoreError, match="SERVICE_ACCOUNT in the environment") as caught:
        await canned_store.list()
    assert "hush" not in "".join(traceback.format_exception(caught.value))


async def test_a_certificate_that_obstore_cannot_present_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: rsa.RSAPrivateKey
) -> None:
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "saver")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
    ).sign(key, hashes.SHA256())
    (tmp_path / "saver.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "saver.key").write_bytes(_pem(key))
    paths = {"cert_path": str(tmp_path / "saver.crt"), "key_path": str(tmp_path / "saver.key")}
    config = tmp_path / "certificate_config.json"
    config.write_text(json.dumps({"cert_configs": {"workload": paths}}))
    monkeypatch.setenv("GOOGLE_API_USE_CLIENT_CERTIFICATE", "true")
    monkeypatch.setenv("GOOGLE_API_CERTIFICATE_CONFIG", str(config))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    async with ObstoreGcsStore("gs://bucket/run", storage_options={"token": "anon"}) as store:
        with pytest.raises(UnsupportedStoreError, match="certificate"):
            await store.list()
