"""In which region of AWS a bucket is. obstore is refused by every other one, and does not follow the hint that it is given."""

from __future__ import annotations

import re
import ssl
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, Request, build_opener

ANSWER_SECONDS = 5.0

_REGION = re.compile(r"[a-z0-9-]{1,64}")


def aws_endpoint(region: str) -> str:
    """The URL of S3 in a region."""
    return f"https://s3.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")


def region_of(url: str, certificates: Path | None) -> str | None:
    """Ask S3, in whatever region, where a bucket is: it says so to everybody, and whatever else it answers. Blocks.

    Args:
        url: of the bucket.
        certificates: a file with more that are trusted.

    Returns:
        None where nobody could tell: the region that is configured then has to do.
    """
    try:
        context = ssl.create_default_context()
        if certificates is not None:
            context.load_verify_locations(certificates)
        opener = build_opener(HTTPSHandler(context=context))
        with opener.open(Request(url, method="HEAD"), timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - of AWS, see the caller
            return _named(answer.headers)
    except HTTPError as refused:
        with refused:
            return _named(refused.headers)
    except (OSError, HTTPException):
        return None


def _named(headers: Message) -> str | None:
    region = str(headers.get("x-amz-bucket-region", ""))
    return region if _REGION.fullmatch(region) else None
