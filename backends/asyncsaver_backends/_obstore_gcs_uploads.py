"""Unfinished multipart uploads of Google Cloud Storage, which obstore can neither list nor abort.

They belong to the XML API, which gcsfs does not speak; the requests go out with its credentials and on its connections.
https://cloud.google.com/storage/docs/xml-api/get-bucket-uploads
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.etree import ElementTree as ET

from asyncsaver.errors import ObjectNotFoundError, StoreError
from asyncsaver_backends._unfinished import Upload

if TYPE_CHECKING:
    from asyncsaver_backends.gcs import GcsStore


async def unfinished_uploads(store: GcsStore, prefix: str) -> list[Upload]:
    """List the uploads to all keys with a prefix.

    Raises:
        StoreError: also where the server does not speak the XML API.
    """
    params = {"uploads": "", "prefix": prefix}
    found: list[Upload] = []
    while True:
        with store._translated(""):  # noqa: SLF001 - the same package, and the same requests
            async with store._request("GET", _url(store), params=params, about_bucket=True) as answer:  # noqa: SLF001
                text = await answer.read()
        try:
            page = ET.fromstring(text)  # noqa: S314 - from the store that also has the data
        except ET.ParseError as error:
            raise StoreError(f"{store.url}: the list of unfinished uploads is no XML") from error
        found += [
            Upload(_text(one, "Key"), _text(one, "UploadId"), datetime.fromisoformat(_text(one, "Initiated")))
            for one in page.iterfind("{*}Upload")
        ]
        if _text(page, "IsTruncated") != "true":
            return found
        params["key-marker"] = _text(page, "NextKeyMarker")
        params["upload-id-marker"] = _text(page, "NextUploadIdMarker")


async def abort_upload(store: GcsStore, path: str, key: str, upload_id: str) -> None:
    """Abort an upload; one that is over already is fine."""
    with contextlib.suppress(ObjectNotFoundError), store._translated(path):  # noqa: SLF001
        url = f"{_url(store)}/{quote(key, safe='')}"
        async with store._request("DELETE", url, params={"uploadId": upload_id}):  # noqa: SLF001
            pass


def _url(store: GcsStore) -> str:
    return f"{store._endpoint()}/{store._bucket}"  # noqa: SLF001


def _text(element: ET.Element, name: str) -> str:
    return element.findtext(f"{{*}}{name}") or ""
