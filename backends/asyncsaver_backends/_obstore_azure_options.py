"""From adlfs' vocabulary of storage options to obstore's configuration: every option is translated, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from asyncsaver.errors import UnsupportedStoreError

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 60.0
PUBLIC_CLOUD = ".core.windows.net"

_TEXTS = (
    *("account_name", "account_key", "connection_string", "sas_token", "credential", "account_host"),
    *("client_id", "client_secret", "tenant_id"),
)
# They concern the files, caches and client of adlfs, which neither engine uses.
_WITHOUT_EFFECT = frozenset(
    {
        *("assume_container_exists", "blocksize", "default_cache_type", "default_fill_cache", "max_concurrency"),
        *("listings_expiry_time", "max_paths", "skip_instance_cache", "use_listings_cache"),
    }
)
_OPTIONS = frozenset({*_TEXTS, *_WITHOUT_EFFECT, "anon", "connection_timeout", "read_timeout"})
# What adlfs reads where an option is missing.
_ENVIRONMENT = {
    name: f"AZURE_STORAGE_{name.upper()}"
    for name in (
        "account_name",
        "account_key",
        "connection_string",
        "sas_token",
        "client_id",
        "client_secret",
        "tenant_id",
    )
}
_SECRETS = frozenset({"credential", "account_key", "sas_token", "client_secret"})
_PUBLIC = ("account_name", "client_id", "tenant_id")
_ANONYMOUS = "AZURE_STORAGE_ANON"
_NO = frozenset({"", "0", "f", "false"})
# In small letters: their case means nothing.
_CONNECTION_PARTS = frozenset(
    {
        *("defaultendpointsprotocol", "accountname", "accountkey", "blobendpoint", "endpointsuffix"),
        *("sharedaccesssignature", "queueendpoint", "tableendpoint", "fileendpoint"),
        *("blobsecondaryendpoint", "queuesecondaryendpoint", "tablesecondaryendpoint", "filesecondaryendpoint"),
    }
)


@dataclass(frozen=True, slots=True)
class AzureOptions:
    """What obstore needs to know.

    Attributes:
        account: its name.
        endpoint: URL of the account.
        config: how to authenticate, ready for `obstore.store.AzureStore`; empty where a token of the environment is asked for.
        connect_timeout: in seconds.
        read_timeout: in seconds.
    """

    account: str
    endpoint: str
    config: Mapping[str, Any] = field(repr=False)
    connect_timeout: float
    read_timeout: float


def azure_options(options: Mapping[str, Any], environment: Mapping[str, str], *, host: str = "") -> AzureOptions:
    """Translate what `adlfs.AzureBlobFileSystem` takes.

    Args:
        options: of the user.
        environment: of the process.
        host: of the account, from the URL; may be empty.

    Raises:
        UnsupportedStoreError: an option that obstore has nothing for; ``engine="fsspec"`` knows it.
        ValueError: no account is named, or a connection string that is none. The message repeats nothing of it.
    """
    for name in options:
        if name not in _OPTIONS:
            raise _unsupported(str(name))
    for name in _TEXTS:
        if options.get(name) is not None and not isinstance(options[name], str):
            raise _unsupported(name)
    given = {name: options[name] for name in _TEXTS if options.get(name)}
    if host:
        given = {"account_name": host.partition(".")[0], **_host_option(host), **given}
    if connection := given.pop("connection_string", ""):
        given |= _connection(connection)
    # As adlfs has it, what is given to authenticate with goes before anon.
    anonymous = bool(options.get("anon")) and not given.keys() & _SECRETS
    given = _with_environment(given, environment)
    config = _authentication(given, anonymous=anonymous)
    if options.get("anon") is None and environment.get(_ANONYMOUS, "").lower() not in _NO:
        config = config or {"skip_signature": True}
    account = given.get("account_name")
    if not account:
        raise ValueError("storage_options need account_name or connection_string")
    endpoint = given.get("endpoint") or f"https://{given.get('account_host') or f'{account}.blob{PUBLIC_CLOUD}'}"
    return AzureOptions(
        account,
        endpoint.rstrip("/"),
        config,
        float(options.get("connection_timeout") or CONNECT_TIMEOUT),
        float(options.get("read_timeout") or READ_TIMEOUT),
    )


def _with_environment(given: dict[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """As adlfs, but a secret that is given is never put with others of the environment, nor with another account's."""
    if given.keys() & _SECRETS:
        return {name: environment.get(_ENVIRONMENT[name], "") for name in _PUBLIC} | given
    around = {name: environment[key] for name, key in _ENVIRONMENT.items() if environment.get(key)}
    if connection := around.pop("connection_string", ""):
        around |= _connection(connection)
    named = around.get("account_name")
    if named and given.get("account_name", named) != named:
        return given
    return around | given


def _authentication(given: Mapping[str, str], *, anonymous: bool) -> dict[str, Any]:
    """In adlfs' order. The type is given too: what the environment of obstore has must not go first."""
    if anonymous:
        return {"skip_signature": True}
    secret = given.get("credential") or given.get("account_key") or given.get("sas_token")
    if secret and "sig=" in secret:
        return {"credential_type": "sas_token", "sas_key": secret.removeprefix("?")}
    if secret:
        return {"credential_type": "access_key", "account_key": secret}
    names = ("client_id", "client_secret", "tenant_id")
    if all(given.get(name) for name in names):
        return {"credential_type": "client_secret", **{name: given[name] for name in names}}
    return {}


def _host_option(host: str) -> dict[str, str]:
    return (
        {} if "." not in host or host.endswith(PUBLIC_CLOUD) else {"account_host": host.replace(".dfs.", ".blob.", 1)}
    )


def _connection(text: str) -> dict[str, str]:
    named = (part.strip().partition("=") for part in text.strip().strip(";").split(";"))
    parts: dict[str, str] = {name.lower(): value for name, _, value in named}
    account, endpoint = parts.get("accountname", ""), parts.get("blobendpoint", "")
    if parts.get("usedevelopmentstorage"):
        raise _unsupported("UseDevelopmentStorage")
    if not all(parts.values()) or not (account or endpoint):
        raise ValueError("the connection string in storage_options cannot be read")
    if not parts.keys() <= _CONNECTION_PARTS:
        raise UnsupportedStoreError(
            "engine='obstore' does not know a part of the connection string; engine='fsspec' may"
        )
    if not account:
        account = endpoint.partition("://")[2].partition(".")[0]
    if not endpoint:
        suffix = parts.get("endpointsuffix", PUBLIC_CLOUD[1:])
        endpoint = f"{parts.get('defaultendpointsprotocol', 'https')}://{account}.blob.{suffix}"
    secrets = {"account_key": parts.get("accountkey", ""), "sas_token": parts.get("sharedaccesssignature", "")}
    return {"account_name": account, "endpoint": endpoint, **{name: value for name, value in secrets.items() if value}}


def _unsupported(name: str) -> UnsupportedStoreError:
    return UnsupportedStoreError(f"engine='obstore' cannot honour {name!r} in storage_options; engine='fsspec' can")
