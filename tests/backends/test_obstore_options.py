from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from asyncsaver.errors import StoreError, UnsupportedStoreError
from asyncsaver.store.registry import open_store
from asyncsaver_backends._obstore_aws import Surroundings, _from_botocore
from asyncsaver_backends._obstore_azure_options import azure_options
from asyncsaver_backends._obstore_s3 import clients_for
from asyncsaver_backends._obstore_s3_options import S3Options, s3_options
from asyncsaver_backends.local import LocalStore
from asyncsaver_backends.memory import MemoryStore
from asyncsaver_backends.obstore import ObstoreAzureStore, ObstoreS3Store

HTTPS = "https://host:9000"

# --- which store -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("s3://bucket/run", ObstoreS3Store),
        ("s3a://bucket/run", ObstoreS3Store),
        ("abfs://container@account.dfs.core.windows.net/run", ObstoreAzureStore),
        ("memory://run", MemoryStore),
    ],
)
def test_the_engine_serves_what_it_can(url: str, kind: type) -> None:
    assert type(open_store(url, engine="obstore")) is kind


def test_local_paths_stay_with_our_own_store(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path, engine="obstore"), LocalStore)


@pytest.mark.parametrize("scheme", ["ftp", "carrier-pigeon"])
def test_what_it_cannot_serve_is_refused(scheme: str) -> None:
    with pytest.raises(UnsupportedStoreError, match=rf"serves s3://, az:// and gs://, not {scheme}://"):
        open_store(f"{scheme}://bucket/run", engine="obstore")


def test_a_ready_filesystem_is_refused() -> None:
    with pytest.raises(ValueError, match="ready filesystem"):
        open_store("/run", filesystem=MemoryFileSystem(), engine="obstore")


def test_it_is_no_scheme() -> None:
    with pytest.raises(UnsupportedStoreError) as caught:
        open_store("carrier-pigeon://coop")
    assert "obstore" not in str(caught.value)


def test_without_the_package_the_message_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['obstore'] = None\n"  # what an import of a package that is not installed looks like
        "from asyncsaver.store.registry import open_store\n"
        "try:\n"
        "    open_store('s3://bucket/run', engine='obstore')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UnsupportedStoreError")
    assert 'pip install "asyncsaver[obstore]"' in done.stdout


async def test_without_s3fs_unfinished_uploads_stay_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "asyncsaver_backends.s3", None)
    async with ObstoreS3Store("s3://bucket/run", storage_options={"anon": True, "endpoint_url": HTTPS}) as store:
        assert [await store.purge(timedelta(0)) for _ in range(2)] == [0, 0]
        await store._discard("object.bin", "run/object.bin")
    assert caplog.text.count("lifecycle rules") == 1


# --- s3fs' options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"key": "k", "secret": "s", "token": "t"},
        {"username": "k", "password": "s", "token": "t"},
        {"client_kwargs": {"aws_access_key_id": "k", "aws_secret_access_key": "s", "aws_session_token": "t"}},
    ],
)
def test_credentials_by_any_name(options: Mapping[str, Any]) -> None:
    translated = s3_options(options)
    assert (translated.key, translated.secret, translated.token) == ("k", "s", "t")


def test_nothing_given_leaves_all_to_the_environment() -> None:
    config = {"unsigned_payload": True, "checksum_algorithm": "CRC64NVME"}
    assert s3_options({}) == S3Options(config=config, plain_config={"unsigned_payload": False})


@pytest.mark.parametrize(
    ("signing", "checksums", "plain"),
    [
        (None, None, {"unsigned_payload": False}),
        (False, None, {"unsigned_payload": True}),
        (None, "when_supported", None),
        (None, "when_required", None),
    ],
)
def test_the_checksum_is_given_up_unless_the_user_decides(signing: Any, checksums: Any, plain: Any) -> None:
    config = {"s3": {"payload_signing_enabled": signing}, "request_checksum_calculation": checksums}
    options = s3_options({"config_kwargs": config, "requester_pays": True})
    assert options.plain_config == (None if plain is None else {**plain, "request_payer": True})
    assert ("checksum_algorithm" in options.config) is (checksums != "when_required")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"colour": "blue"}, "colour"),
        ({"session": object()}, "session"),
        ({"client_kwargs": {"config": object()}}, "config"),
        ({"config_kwargs": {"retries": {"max_attempts": 3}}}, "retries"),
        ({"config_kwargs": {"s3": {"use_accelerate_endpoint": True}}}, "use_accelerate_endpoint"),
        ({"config_kwargs": {"signature_version": "s3"}}, "signature_version"),
        ({"s3_additional_kwargs": {"ACL": "private"}}, "ACL"),
        ({"use_ssl": False}, "use_ssl"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(options: Mapping[str, Any], name: str) -> None:
    with pytest.raises(UnsupportedStoreError, match=name):
        open_store("s3://bucket/run", storage_options=options, engine="obstore")


@pytest.mark.parametrize(
    "options",
    [
        {"key": "hush"},
        {"secret": "hush"},
        {"endpoint_url": "hush:9000"},
        {"client_kwargs": "hush"},
        {"config_kwargs": {"s3": {"addressing_style": "hush"}}},
    ],
)
def test_values_that_make_no_sense_are_not_repeated(options: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        s3_options(options)
    assert "hush" not in str(caught.value)


def test_certificates() -> None:
    unverified = clients_for("bucket", s3_options({"client_kwargs": {"verify": False}}), Surroundings())
    assert "allow_invalid_certificates" in (unverified.reader.client_options or {})
    assert "allow_invalid_certificates" not in (
        clients_for("b", s3_options({}), Surroundings()).reader.client_options or {}
    )


async def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    missing = {"anon": True, "client_kwargs": {"verify": str(tmp_path / "missing.pem")}}
    async with ObstoreS3Store("s3://bucket/run", storage_options=missing) as store:
        with pytest.raises(StoreError, match=r"missing\.pem"):
            await store.list()


@pytest.mark.parametrize(
    ("bucket", "options", "endpoint"),
    [
        ("bucket", {}, "https://bucket.s3.eu-west-3.amazonaws.com"),
        ("dotted.bucket", {}, "https://s3.eu-west-3.amazonaws.com"),
        ("bucket", {"endpoint_url": HTTPS}, HTTPS),
        ("bucket", {"client_kwargs": {"endpoint_url": f"{HTTPS}/"}}, HTTPS),
        (
            "bucket",
            {"endpoint_url": HTTPS, "config_kwargs": {"s3": {"addressing_style": "virtual"}}},
            "https://bucket.host:9000",
        ),
        ("Old_Bucket", {}, "https://s3.eu-west-3.amazonaws.com"),
        (
            "bucket",
            {"config_kwargs": {"region_name": "us-east-2", "s3": {"addressing_style": "path"}}},
            "https://s3.us-east-2.amazonaws.com",
        ),
    ],
)
def test_where_requests_go(bucket: str, options: Mapping[str, Any], endpoint: str) -> None:
    assert clients_for(bucket, s3_options(options), Surroundings(region="eu-west-3")).endpoint == endpoint


def test_credentials_that_change_are_asked_for_again() -> None:
    keys = iter(["first", "second"])
    credentials = SimpleNamespace(
        get_frozen_credentials=lambda: SimpleNamespace(access_key=next(keys), secret_key="s", token="t")
    )
    provide = _from_botocore(credentials)
    first, second = provide(), provide()
    assert (first["access_key_id"], second["access_key_id"]) == ("first", "second")
    assert first["expires_at"] is not None
    assert datetime.now(UTC) < first["expires_at"] < datetime.now(UTC) + timedelta(hours=1)


def test_credentials_that_cannot_be_fetched_tell_nothing() -> None:
    def broken() -> None:
        raise KeyError("hush")

    with pytest.raises(RuntimeError, match=r"^KeyError$"):
        _from_botocore(SimpleNamespace(get_frozen_credentials=broken))()


# --- adlfs' options ----------------------------------------------------------------------------------

CONNECTION = "DefaultEndpointsProtocol=https;AccountName=account;AccountKey=key==;EndpointSuffix=core.chinacloudapi.cn"
KEY_CONFIG = {"credential_type": "access_key", "account_key": "key=="}
SAS_CONFIG = {"credential_type": "sas_token", "sas_key": "sv=1&sig=2"}
CLIENT = {"client_id": "the-client", "client_secret": "the-secret", "tenant_id": "the-tenant"}


@pytest.mark.parametrize(
    ("options", "environment", "config"),
    [
        ({"account_key": "key=="}, {}, KEY_CONFIG),
        ({"credential": "key=="}, {}, KEY_CONFIG),
        ({"sas_token": "?sv=1&sig=2"}, {}, SAS_CONFIG),
        ({"credential": "sv=1&sig=2"}, {}, SAS_CONFIG),
        (CLIENT, {}, {"credential_type": "client_secret", **CLIENT}),
        ({"anon": True}, {"AZURE_STORAGE_ACCOUNT_KEY": "of the environment"}, {"skip_signature": True}),
        ({"anon": True, "account_key": "key=="}, {}, KEY_CONFIG),
        ({}, {"AZURE_STORAGE_ANON": "1"}, {"skip_signature": True}),
        ({}, {"AZURE_STORAGE_ANON": "False"}, {}),
        ({"anon": False}, {"AZURE_STORAGE_ANON": "1"}, {}),
        ({}, {"AZURE_STORAGE_ANON": "1", "AZURE_STORAGE_ACCOUNT_KEY": "key=="}, KEY_CONFIG),
        (
            {"client_secret": "the-secret"},
            {"AZURE_STORAGE_CLIENT_ID": "the-client", "AZURE_STORAGE_TENANT_ID": "the-tenant"},
            {"credential_type": "client_secret", **CLIENT},
        ),
        ({}, {"AZURE_STORAGE_ACCOUNT_KEY": "key=="}, KEY_CONFIG),
        ({}, {}, {}),
    ],
)
def test_how_azure_is_told_who_we_are(options: Any, environment: Any, config: Any) -> None:
    translated = azure_options({"account_name": "account", **options}, environment)
    assert dict(translated.config) == config
    assert (translated.account, translated.endpoint) == ("account", "https://account.blob.core.windows.net")
    assert not any(str(value) in repr(translated) for value in config.values() if value is not True)


def test_a_secret_that_is_given_goes_before_those_of_the_environment() -> None:
    translated = azure_options(
        {"account_name": "account", "sas_token": "sv=1&sig=2"},
        {"AZURE_STORAGE_ACCOUNT_KEY": "another", "AZURE_STORAGE_CONNECTION_STRING": CONNECTION},
    )
    assert dict(translated.config) == SAS_CONFIG


def test_secrets_of_another_account_are_not_used() -> None:
    translated = azure_options({"account_name": "mine"}, {"AZURE_STORAGE_CONNECTION_STRING": CONNECTION})
    assert (translated.account, dict(translated.config)) == ("mine", {})


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ({"connection_string": CONNECTION}, {}),
        ({"connection_string": CONNECTION.replace("AccountKey", "accountkey")}, {}),
        ({}, {"AZURE_STORAGE_CONNECTION_STRING": CONNECTION}),
        ({"account_name": "account"}, {"AZURE_STORAGE_CONNECTION_STRING": CONNECTION}),
    ],
)
def test_connection_strings(options: Any, environment: Any) -> None:
    translated = azure_options(options, environment)
    assert translated.endpoint == "https://account.blob.core.chinacloudapi.cn"
    assert translated.config["account_key"] == "key=="


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [
        ("account.dfs.core.windows.net", "https://account.blob.core.windows.net"),
        ("account.dfs.core.chinacloudapi.cn", "https://account.blob.core.chinacloudapi.cn"),
    ],
)
def test_the_url_may_name_the_account(host: str, endpoint: str) -> None:
    translated = azure_options({"account_key": "key"}, {}, host=host)
    assert (translated.account, translated.endpoint) == ("account", endpoint)


@pytest.mark.parametrize(
    ("name", "value"), [("colour", "blue"), ("credential", object()), ("location_mode", "secondary")]
)
def test_azure_options_that_cannot_be_honoured_are_refused(name: str, value: object) -> None:
    with pytest.raises(UnsupportedStoreError, match=name):
        azure_options({"account_name": "account", name: value}, {})


@pytest.mark.parametrize("text", ["hush", "AccountKey=hush", "AccountName=a;Hush=hush", "AccountName=;AccountKey=hush"])
def test_connection_strings_that_are_none_are_not_repeated(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        azure_options({"connection_string": text}, {})
    assert "hush" not in str(caught.value).lower()


def test_without_an_account_there_is_no_store() -> None:
    with pytest.raises(ValueError, match="account_name"):
        azure_options({}, {})
