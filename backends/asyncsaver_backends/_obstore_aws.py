"""What the AWS environment says: settings, region, endpoint and credentials, as botocore finds them, refreshed as it does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncsaver.errors import AccessDeniedError, UnsupportedStoreError
from asyncsaver_backends._obstore_s3_options import S3Options, s3_options

if TYPE_CHECKING:
    from obstore.store import S3Credential

# What the section s3 of a profile may say; of the rest, most concerns the command line.
_SETTINGS = ("addressing_style", "payload_signing_enabled")
_CHECKSUMS = ("request_checksum_calculation", "AWS_REQUEST_CHECKSUM_CALCULATION")
_ENDPOINTS = ("use_accelerate_endpoint", "use_dualstack_endpoint", "use_fips_endpoint")

ASKED_AGAIN_AFTER = timedelta(minutes=10)
"""How long obstore may use credentials that can change. Asking again is cheap: botocore fetches new ones when theirs run out."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What applies where the user gave nothing.

    Attributes:
        region: None where there is none.
        endpoint: a URL; None for that of AWS.
        provider: gives the credentials; None where requests are not signed, or obstore looks for credentials itself.
        certificates: a file with more that are trusted; None where those of the system have to do.
    """

    region: str | None = None
    endpoint: str | None = None
    provider: Callable[[], S3Credential] | None = None
    certificates: Path | None = None


def configured_options(storage_options: Mapping[str, Any]) -> S3Options:
    """Translate the user's options, above what the AWS configuration says of requests. Sends nothing.

    Raises:
        UnsupportedStoreError: an option or a setting that obstore has nothing for; ``engine="fsspec"`` knows it.
        ValueError: see `s3_options`.
    """
    given = s3_options(storage_options)
    try:
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - an extra, and slow to import
        from botocore.session import Session  # noqa: PLC0415
    except ImportError:
        return given
    session: Any = Session(profile=given.profile)
    # Without its default, which says nothing of the user.
    session.session_var_map["request_checksum_calculation"] = (*_CHECKSUMS, None, None)
    try:
        settings = session.get_config_variable("s3") or {}
        checksums = session.get_config_variable("request_checksum_calculation")
        elsewhere = [name for name in _ENDPOINTS if settings.get(name) or session.get_config_variable(name)]
    except BotoCoreError:  # such as a profile that there is not: `surroundings` tells
        return given
    if elsewhere and not given.endpoint:
        raise _unsupported(elsewhere[0])
    if settings.get("signature_version", "s3v4") != "s3v4":
        raise _unsupported("signature_version")
    config = storage_options.get("config_kwargs") or {}
    section = {name: settings[name] for name in _SETTINGS if name in settings} | dict(config.get("s3") or {})
    below = {"request_checksum_calculation": checksums} if checksums else {}
    return s3_options({**storage_options, "config_kwargs": {**below, **config, "s3": section}})


def _unsupported(name: str) -> UnsupportedStoreError:
    return UnsupportedStoreError(
        f"engine='obstore' cannot honour {name!r} of the AWS configuration; engine='fsspec' can"
    )


def surroundings(options: S3Options, name: str) -> Surroundings:
    """Ask botocore, or leave it to obstore where that is not installed. Blocks: profiles are files, roles are requests.

    Args:
        options: of the user; they go first.
        name: of the root, for messages.

    Raises:
        AccessDeniedError: there are no credentials.
        UnsupportedStoreError: the credentials are where only botocore looks, and it is not installed.
    """
    given = _given(options)
    try:
        from botocore.configprovider import ConfiguredEndpointProvider  # noqa: PLC0415 - an extra, and slow to import
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415
        from botocore.httpsession import get_cert_path  # noqa: PLC0415
        from botocore.session import Session  # noqa: PLC0415
    except ImportError as exc:
        if given is None and not options.anonymous and (source := _for_botocore(options, os.environ)):
            raise UnsupportedStoreError(f'{source} needs botocore: pip install "asyncsaver[s3]"') from exc
        return Surroundings(provider=given)
    session: Any = Session(profile=options.profile)
    try:
        endpoint = ConfiguredEndpointProvider(session.full_config, session.get_scoped_config(), "s3").provide()
        if session.get_config_variable("ignore_configured_endpoint_urls"):
            endpoint = None
        region = session.get_config_variable("region")
        # Its own certificates, where the user has none: some systems have none either.
        certificates = Path(session.get_config_variable("ca_bundle") or get_cert_path(verify=True))
        if given is not None or options.anonymous:
            return Surroundings(region, endpoint, given, certificates)
        credentials = session.get_credentials()
    except BotoCoreError as error:
        raise AccessDeniedError(f"{name}: no usable credentials ({type(error).__name__})") from None
    if credentials is None:
        raise AccessDeniedError(f"{name}: no credentials were found")
    return Surroundings(region, endpoint, _from_botocore(credentials), certificates)


def _for_botocore(options: S3Options, environment: Mapping[str, str]) -> str:
    """Where botocore would find credentials and obstore does not look; empty if nowhere that shows.

    What obstore would find in their place may belong to somebody else, such as the machine.
    """
    if options.profile:
        return "profile"
    if environment.get("AWS_ACCESS_KEY_ID") or environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return ""
    profile = next((name for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE") if environment.get(name)), "")
    file = Path(environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")).expanduser()
    return profile or ("the shared credentials file" if file.exists() else "")


def _given(options: S3Options) -> Callable[[], S3Credential] | None:
    """The user's own keys. As a provider, so that no token of the environment is put with them."""
    if options.anonymous or options.key is None or options.secret is None:
        return None
    credential: S3Credential = {
        "access_key_id": options.key,
        "secret_access_key": options.secret,
        "token": options.token,
        "expires_at": None,
    }
    return lambda: credential


def _from_botocore(credentials: Any) -> Callable[[], S3Credential]:
    def provide() -> S3Credential:
        """Called by obstore on a thread of its own."""
        try:
            frozen = credentials.get_frozen_credentials()
        except Exception as error:  # noqa: BLE001 - obstore would put the text of any of them into its own message
            raise RuntimeError(type(error).__name__) from None
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + ASKED_AGAIN_AFTER,
        }

    return provide
