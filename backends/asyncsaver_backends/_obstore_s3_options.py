"""From s3fs' vocabulary of storage options to obstore's configuration: every option is translated, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from asyncsaver.errors import UnsupportedStoreError

CONNECT_TIMEOUT = READ_TIMEOUT = 60.0  # botocore's

AddressingStyle = Literal["auto", "path", "virtual"]

# By s3fs: what comes later is another name for it, in storage_options or in client_kwargs.
_CREDENTIALS = {
    "key": ("key", "username", "aws_access_key_id"),
    "secret": ("secret", "password", "aws_secret_access_key"),
    "token": ("token", "aws_session_token"),
}
_OPTIONS = frozenset(
    {
        *("anon", "endpoint_url", "use_ssl", "client_kwargs", "config_kwargs", "requester_pays", "profile"),
        *("s3_additional_kwargs", "key", "secret", "token", "username", "password"),
    }
)
# They concern the files and caches of s3fs, which neither engine uses.
_WITHOUT_EFFECT = frozenset(
    {
        *("default_block_size", "default_cache_type", "default_fill_cache", "max_concurrency"),
        *("listings_expiry_time", "max_paths", "skip_instance_cache", "use_listings_cache"),
    }
)
_CLIENT = frozenset(
    {
        *("endpoint_url", "region_name", "use_ssl", "verify"),
        *("aws_access_key_id", "aws_secret_access_key", "aws_session_token"),
    }
)
_CONFIG = frozenset(
    {"connect_timeout", "read_timeout", "region_name", "signature_version", "request_checksum_calculation", "s3"}
)
_STYLES: Mapping[object, AddressingStyle] = {"auto": "auto", "path": "path", "virtual": "virtual"}
_S3_CONFIG = frozenset({"addressing_style", "payload_signing_enabled"})
# What requests carry, by its name in S3 and in obstore.
_ADDITIONAL = {
    "ServerSideEncryption": "server_side_encryption",
    "SSEKMSKeyId": "sse_kms_key_id",
    "BucketKeyEnabled": "sse_bucket_key_enabled",
}


# Directory buckets and Outposts have hosts and signatures of their own.
_OTHER_BUCKETS = ("--x-s3", "--xa-s3", "--op-s3")


@dataclass(frozen=True, slots=True)
class S3Options:
    """What the user asked for; the environment fills in what is not here.

    Attributes:
        key: of the user, as are ``secret`` and ``token``; None where the environment has them.
        anonymous: send requests unsigned.
        profile: of the AWS configuration.
        endpoint: a URL with its scheme; None for that of the environment.
        region: None for that of the environment.
        addressing_style: where the bucket's name stands, as botocore has it.
        connect_timeout: in seconds.
        read_timeout: in seconds.
        config: the rest, ready for `obstore.store.S3Store`.
        plain_config: the same for a server that does not know the checksum; None where the user decides on checksums.
        verify: whether servers' certificates are checked.
        certificates: a file with more that are trusted.
    """

    key: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    anonymous: bool = False
    profile: str | None = None
    endpoint: str | None = field(default=None, repr=False)
    region: str | None = None
    addressing_style: AddressingStyle = "auto"
    connect_timeout: float = CONNECT_TIMEOUT
    read_timeout: float = READ_TIMEOUT
    config: Mapping[str, Any] = field(default_factory=dict)
    plain_config: Mapping[str, Any] | None = None
    verify: bool = True
    certificates: Path | None = None


def s3_options(options: Mapping[str, Any]) -> S3Options:
    """Translate what `s3fs.S3FileSystem` takes.

    Raises:
        UnsupportedStoreError: an option that obstore has nothing for; ``engine="fsspec"`` knows it.
        ValueError: a key without its secret, or a value that makes no sense.
    """
    _refuse_others(options, _OPTIONS | _WITHOUT_EFFECT, "storage_options")
    client = _mapping(options, "client_kwargs", _CLIENT)
    config = _mapping(options, "config_kwargs", _CONFIG)
    s3 = _mapping(config, "s3", _S3_CONFIG, within="config_kwargs")
    additional = _mapping(options, "s3_additional_kwargs", frozenset(_ADDITIONAL))
    if config.get("signature_version", "s3v4") != "s3v4":
        raise _unsupported("signature_version", "config_kwargs")
    secrets = {name: _first({**client, **options}, names) for name, names in _CREDENTIALS.items()}
    if bool(secrets["key"]) != bool(secrets["secret"]):
        raise ValueError("storage_options need key and secret, both or neither")
    verify = client.get("verify")
    style = s3.get("addressing_style") or "auto"
    if style not in _STYLES:
        raise ValueError("addressing_style must be 'auto', 'path' or 'virtual'")
    carried = {
        **({"request_payer": True} if options.get("requester_pays") else {}),
        **{_ADDITIONAL[name]: value for name, value in additional.items()},
    }
    checksums = config.get("request_checksum_calculation")
    return S3Options(
        **secrets,
        anonymous=bool(options.get("anon")),
        profile=options.get("profile"),
        endpoint=_endpoint(options, client),
        region=client.get("region_name") or config.get("region_name"),
        addressing_style=_STYLES[style],
        connect_timeout=float(config.get("connect_timeout") or CONNECT_TIMEOUT),
        read_timeout=float(config.get("read_timeout") or READ_TIMEOUT),
        config={**(_plain(s3) if checksums == "when_required" else _checked(s3)), **carried},
        plain_config=None if checksums else {**_plain(s3), **carried},
        verify=verify is not False,
        certificates=Path(str(verify)) if verify not in {None, True, False} else None,
    )


def check_bucket(name: str) -> None:
    """Refuse a bucket of a kind that obstore cannot reach.

    Raises:
        UnsupportedStoreError: it can be reached with ``engine="fsspec"``.
    """
    if name.endswith(_OTHER_BUCKETS):
        raise UnsupportedStoreError("engine='obstore' cannot reach directory buckets and Outposts; engine='fsspec' can")


def _plain(s3: Mapping[str, Any]) -> dict[str, Any]:
    """Uploads are covered by the signature."""
    return {"unsigned_payload": s3.get("payload_signing_enabled") is False}


def _checked(s3: Mapping[str, Any]) -> dict[str, Any]:
    """Uploads are covered by a checksum that S3 compares with what arrives; by the signature as well only if asked for."""
    return {"unsigned_payload": not s3.get("payload_signing_enabled"), "checksum_algorithm": "CRC64NVME"}


def _endpoint(options: Mapping[str, Any], client: Mapping[str, Any]) -> str | None:
    endpoint = options.get("endpoint_url") or client.get("endpoint_url")
    use_ssl = bool(options.get("use_ssl", True)) and bool(client.get("use_ssl", True))
    if endpoint is None:
        if not use_ssl:
            raise UnsupportedStoreError("use_ssl=False needs an endpoint_url with engine='obstore'")
        return None
    text = str(endpoint).rstrip("/")
    if not text.startswith(("http://", "https://")):
        raise ValueError("endpoint_url must start with http:// or https://")
    return text


def _first(options: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((str(options[name]) for name in names if options.get(name)), None)


def _mapping(options: Mapping[str, Any], name: str, known: frozenset[str], within: str = "") -> Mapping[str, Any]:
    value = options.get(name) or {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} in storage_options must be a mapping, not {type(value).__name__}")  # noqa: TRY004 - a value
    _refuse_others(value, known, f"{within}[{name!r}]" if within else name)
    return value


def _refuse_others(options: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    for name in options:
        if name not in known:
            raise _unsupported(str(name), where)


def _unsupported(name: str, where: str) -> UnsupportedStoreError:
    return UnsupportedStoreError(f"engine='obstore' cannot honour {name!r} in {where}; engine='fsspec' can")
