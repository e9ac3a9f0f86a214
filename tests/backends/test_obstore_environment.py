"""Where the obstore engine takes profile, region, endpoint and keys from when none are given."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from botocore.credentials import SSOProvider

from asyncsaver.errors import AccessDeniedError, StoreError, UnsupportedStoreError
from asyncsaver.store.registry import open_store
from asyncsaver_backends._obstore_aws import surroundings
from asyncsaver_backends._obstore_s3_options import S3Options
from asyncsaver_backends.obstore import ObstoreS3Store
from asyncsaver_backends.s3 import S3Store


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
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
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


async def test_no_variable_of_obstore_turns_conditions_off(
    environment: Path, headers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    async with ObstoreS3Store("s3://bucket/run") as store:
        await store.put("object.bin", b"content", mode="create")
    assert headers[0]["If-None-Match"] == "*"


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


# --- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "variable"),
    [
        ("request_checksum_calculation = when_required", {}),
        ("", {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}),
    ],
    ids=["profile", "variable"],
)
async def test_a_server_that_knows_no_checksums_may_be_configured(
    environment: Path, headers: Any, monkeypatch: pytest.MonkeyPatch, setting: str, variable: dict[str, str]
) -> None:
    with (environment / "config").open("a") as config:
        config.write(f"[profile plain]\nregion = eu-west-3\n{setting}\n")
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    keys = {"key": "MYKEY", "secret": "my-secret", "profile": "plain"}
    endpoint = (environment / "config").read_text().partition("endpoint_url = ")[2].partition("\n")[0]
    async with ObstoreS3Store("s3://bucket/run", storage_options={**keys, "endpoint_url": endpoint}) as store:
        await store.put("object.bin", b"content")
    assert "x-amz-checksum-crc64nvme" not in headers[0]
    assert len(headers[0]["x-amz-content-sha256"]) == 64


@pytest.mark.parametrize(
    ("where", "sent"), [("nowhere", 2), ("request_checksum_calculation", 1), ("AWS_REQUEST_CHECKSUM_CALCULATION", 1)]
)
async def test_a_checksum_that_is_configured_is_not_given_up(
    environment: Path, canned_server: Any, monkeypatch: pytest.MonkeyPatch, where: str, sent: int
) -> None:
    """Neither by a profile nor by a variable."""
    with (environment / "config").open("a") as config:
        config.write(
            f"[profile plain]\nregion = eu-west-3\nendpoint_url = {canned_server.url}\n{where} = when_supported\n"
        )
    monkeypatch.setenv(where, "when_supported")
    refusal = "<Error><Code>InvalidArgument</Code><Message>Invalid checksum provided.</Message></Error>"
    canned_server.answer = lambda _: web.Response(status=400, text=refusal)
    given = {"key": "MYKEY", "secret": "my-secret", "profile": "plain"}
    async with ObstoreS3Store("s3://bucket/run", storage_options=given) as store:
        with pytest.raises(StoreError, match="InvalidArgument"):
            await store.put("object.bin", b"content")
    assert len(canned_server.requests) == sent


def _profile(environment: Path, *lines: str) -> None:
    text = "\n".join(["[default]", "region = eu-west-3", *lines, ""])
    (environment / "config").write_text(text)


async def _host(options: dict[str, Any]) -> str:
    keys = {"key": "key", "secret": "secret"}
    store = ObstoreS3Store("s3://bucket/run", storage_options={**keys, **options}, find_region=lambda _url, _file: None)
    async with store:
        await store._ready()
        return store._open_clients.endpoint


async def test_where_the_buckets_name_stands_may_be_configured(environment: Path) -> None:
    _profile(environment, "s3 =", "  addressing_style = path", "  max_concurrent_requests = 20")
    assert await _host({}) == "https://s3.eu-west-3.amazonaws.com"
    given = {"config_kwargs": {"s3": {"addressing_style": "virtual"}}}
    assert await _host(given) == "https://bucket.s3.eu-west-3.amazonaws.com"


@pytest.mark.parametrize(
    ("lines", "variable", "name"),
    [
        (["use_fips_endpoint = true"], "", "use_fips_endpoint"),
        ([], "AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint"),
        ([], "AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint"),
        (["s3 =", "  use_accelerate_endpoint = true"], "", "use_accelerate_endpoint"),
        (["s3 =", "  signature_version = s3"], "", "signature_version"),
    ],
)
def test_settings_that_obstore_has_nothing_for_select_fsspec(
    environment: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], variable: str, name: str
) -> None:
    _profile(environment, *lines)
    if variable:
        monkeypatch.setenv(variable, "true")
    with pytest.raises(UnsupportedStoreError, match=rf"'{name}' of the AWS configuration"):
        open_store("s3://bucket/run", engine="obstore")
    assert type(open_store("s3://bucket/run")) is S3Store


async def test_an_endpoint_that_is_given_goes_before_the_configured_kinds(environment: Path) -> None:
    _profile(environment, "use_fips_endpoint = true")
    assert await _host({"endpoint_url": "https://host:9000"}) == "https://host:9000"


async def test_configured_endpoints_may_be_ignored(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await _host({})).startswith("http://127.0.0.1")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert await _host({}) == "https://bucket.s3.eu-west-3.amazonaws.com"


# --- certificates ------------------------------------------------------------------------------------


async def test_certificates_may_be_configured(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = S3Options(key="key", secret="secret")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(environment / "ours.pem"))
    assert surroundings(keys, "root").certificates == environment / "ours.pem"
    async with ObstoreS3Store("s3://bucket/run", storage_options={"key": "key", "secret": "secret"}) as store:
        with pytest.raises(StoreError, match=r"ours\.pem"):
            await store.list()


def test_a_system_without_certificates_has_botocores() -> None:
    """obstore alone cannot even make a client there."""
    code = (
        "from asyncsaver_backends._obstore_aws import surroundings\n"
        "from asyncsaver_backends._obstore_s3 import clients_for\n"
        "from asyncsaver_backends._obstore_s3_options import s3_options\n"
        "options = s3_options({'key': 'key', 'secret': 'secret'})\n"
        "print(clients_for('bucket', options, surroundings(options, 'root')).endpoint)\n"
    )
    around = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}
    around |= {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=around)
    assert "amazonaws.com" in done.stdout, done.stderr


# --- every source of credentials that s3fs finds ------------------------------------------------------


EXPIRATION = "2099-01-01T00:00:00Z"
FOUND = {"AccessKeyId": "FOUNDKEY", "SecretAccessKey": "found-secret", "Expiration": EXPIRATION}


def _assumed(action: str) -> str:
    fields = "".join(f"<{name}>{value}</{name}>" for name, value in {**FOUND, "SessionToken": "found-token"}.items())
    return f"<{action}Response><{action}Result><Credentials>{fields}</Credentials></{action}Result></{action}Response>"


def _process(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    program = folder / "credentials.py"
    program.write_text(f"print({json.dumps(json.dumps({'Version': 1, 'SessionToken': 'found-token', **FOUND}))})")
    _profile(folder, f"endpoint_url = {url}", f"credential_process = {sys.executable} {program}")


def _web_identity(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    (folder / "token").write_text("the-identity")
    patch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(folder / "token"))
    patch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/trainer")
    patch.setenv("AWS_ENDPOINT_URL", url)


def _role(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    role = "role_arn = arn:aws:iam::123456789012:role/trainer"
    _profile(
        folder, role, "source_profile = base", "[profile base]", "aws_access_key_id = A", "aws_secret_access_key = B"
    )
    patch.setenv("AWS_ENDPOINT_URL", url)


def _container(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/container")
    patch.setenv("AWS_ENDPOINT_URL", url)


def _machine(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    patch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
    patch.setenv("AWS_ENDPOINT_URL", url)


def _single_sign_on(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    start = "https://company.awsapps.com/start"
    patch.setattr(SSOProvider, "_SSO_TOKEN_CACHE_DIR", str(folder))  # found out when botocore was imported
    name = hashlib.sha1(start.encode()).hexdigest()
    token = {"startUrl": start, "region": "eu-west-3", "accessToken": "the-token", "expiresAt": EXPIRATION}
    (folder / f"{name}.json").write_text(json.dumps(token))
    account = ["sso_account_id = 123456789012", "sso_role_name = trainer"]
    _profile(folder, f"sso_start_url = {start}", "sso_region = eu-west-3", *account)
    patch.setenv("AWS_ENDPOINT_URL", url)


@pytest.mark.parametrize("engine", ["auto", "fsspec"])
@pytest.mark.parametrize("source", [_process, _web_identity, _role, _container, _machine, _single_sign_on])
async def test_credentials_are_found_wherever_botocore_looks(
    environment: Path,
    canned_server: Any,
    monkeypatch: pytest.MonkeyPatch,
    source: Callable[[Path, str, pytest.MonkeyPatch], None],
    engine: str,
) -> None:
    signed: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        path = request.path
        if path.startswith("/bucket/"):
            signed.append(request.headers)
            return web.Response(headers={"ETag": '"etag"'})
        if path == "/latest/api/token":
            return web.Response(text="the-token")
        if path.endswith("/security-credentials/"):
            return web.Response(text="trainer")
        if path.startswith(("/latest/", "/container")):
            return web.json_response({"Code": "Success", "Token": "found-token", **FOUND})
        if path == "/federation/credentials":
            found = {"accessKeyId": "FOUNDKEY", "secretAccessKey": "found-secret", "sessionToken": "found-token"}
            return web.json_response({"roleCredentials": {**found, "expiration": 4070908800000}})
        body = canned_server.bodies[-1].decode()
        action = "AssumeRoleWithWebIdentity" if "AssumeRoleWithWebIdentity" in body else "AssumeRole"
        return web.Response(text=_assumed(action), content_type="text/xml")

    canned_server.answer = answer
    (environment / "credentials").write_text("")
    _profile(environment)
    source(environment, canned_server.url, monkeypatch)
    async with open_store("s3://bucket/run", engine=engine) as store:
        assert isinstance(store, S3Store if engine == "fsspec" else ObstoreS3Store)
        await store.put("object.bin", b"content")
    assert "Credential=FOUNDKEY/" in signed[0]["Authorization"]
    assert signed[0]["x-amz-security-token"] == "found-token"


@pytest.fixture
def without_botocore(environment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    monkeypatch.setitem(sys.modules, "botocore.configprovider", None)
    return environment


@pytest.mark.parametrize(
    ("options", "variable", "name"),
    [
        (S3Options(profile="other"), "", "profile"),
        (S3Options(), "AWS_PROFILE", "AWS_PROFILE"),
        (S3Options(), "", "the shared credentials file"),
    ],
)
def test_without_botocore_nobody_elses_credentials_are_used(
    without_botocore: Path, monkeypatch: pytest.MonkeyPatch, options: S3Options, variable: str, name: str
) -> None:
    if variable:
        monkeypatch.setenv(variable, "other")
    with pytest.raises(UnsupportedStoreError, match=rf'^{name} needs botocore: pip install "asyncsaver\[s3\]"'):
        surroundings(options, "root")


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"])
def test_without_botocore_obstore_looks_itself(
    without_botocore: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "there")
    assert surroundings(S3Options(), "root").provider is None
    given = surroundings(S3Options(key="key", secret="secret"), "root").provider
    assert given is not None
    assert given()["access_key_id"] == "key"
