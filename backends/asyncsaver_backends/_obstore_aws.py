"""What the AWS environment says: region, endpoint and credentials, as botocore finds them, and refreshed as it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from asyncsaver.errors import AccessDeniedError, UnsupportedStoreError
from asyncsaver_backends._obstore_s3_options import S3Options

if TYPE_CHECKING:
    from obstore.store import S3Credential

ASKED_AGAIN_AFTER = timedelta(minutes=10)
"""How long obstore may use credentials that can change. Asking again is cheap: botocore fetches new ones when theirs run out."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What applies where the user gave nothing.

    Attributes:
        region: None where there is none.
        endpoint: a URL; None for that of AWS.
        provider: gives the credentials; None where requests are not signed, or obstore looks for credentials itself.
    """

    region: str | None = None
    endpoint: str | None = None
    provider: Callable[[], S3Credential] | None = None


def surroundings(options: S3Options, name: str) -> Surroundings:
    """Ask botocore, or leave it to obstore where that is not installed. Blocks: profiles are files, roles are requests.

    Args:
        options: of the user; they go first.
        name: of the root, for messages.

    Raises:
        AccessDeniedError: there are no credentials.
        UnsupportedStoreError: a profile is asked for, and botocore is not installed.
    """
    given = _given(options)
    try:
        from botocore.configprovider import ConfiguredEndpointProvider  # noqa: PLC0415 - an extra, and slow to import
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415
        from botocore.session import Session  # noqa: PLC0415
    except ImportError as exc:
        if options.profile:
            raise UnsupportedStoreError('profile needs botocore: pip install "asyncsaver[s3]"') from exc
        return Surroundings(provider=given)
    session: Any = Session(profile=options.profile)
    try:
        endpoint = ConfiguredEndpointProvider(session.full_config, session.get_scoped_config(), "s3").provide()
        region = session.get_config_variable("region")
        if given is not None or options.anonymous:
            return Surroundings(region, endpoint, given)
        credentials = session.get_credentials()
    except BotoCoreError as error:
        raise AccessDeniedError(f"{name}: no usable credentials ({type(error).__name__})") from None
    if credentials is None:
        raise AccessDeniedError(f"{name}: no credentials were found")
    return Surroundings(region, endpoint, _from_botocore(credentials))


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
