"""The XML API of Google Cloud Storage, in front of fake-gcs-server, which has only the JSON API (and reads by XML).

Objects, generations and conditions are those of fake-gcs-server, and its JSON API goes through as it is. What stands here is the
other protocol, as Google documents it, and the multipart uploads that are not complete.
https://cloud.google.com/storage/docs/xml-api/overview
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, unquote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import aiohttp
from aiohttp import web
from yarl import URL

SMALLEST_PART = 5 * 2**20  # but for the last one
LISTED_AT_ONCE = 1000
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_PASSED_ON = ("Content-Range", "Last-Modified", "X-Goog-Generation", "X-Goog-Hash")


@dataclass(slots=True)
class Upload:
    """A multipart upload that is neither complete nor aborted."""

    bucket: str
    key: str
    begun: datetime
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class GcsXml:
    """The server.

    Attributes:
        upstream: URL of fake-gcs-server.
        url: its own, without a trailing slash.
        uploads: by upload id.
        requests: method, path with query and headers of each XML request.
        page: how many uploads are listed at once.
    """

    upstream: str
    url: str = ""
    uploads: dict[str, Upload] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    page: int = LISTED_AT_ONCE
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _client: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[GcsXml]:
        """Serve on a free loopback port of the running loop."""
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"
            async with aiohttp.ClientSession(auto_decompress=False) as self._client:
                yield self
        finally:
            await runner.cleanup()

    async def _send(
        self, method: str, path: str, *, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        assert self._client is not None
        url = URL(self.upstream + path, encoded=True)
        async with self._client.request(method, url, data=io.BytesIO(body), headers=headers) as answer:
            # Of our own engines' headers, case does not matter.
            return answer.status, {name.title(): value for name, value in answer.headers.items()}, await answer.read()

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        bucket, _, key = request.raw_path.partition("?")[0].lstrip("/").partition("/")
        if bucket in {"storage", "upload", "download"}:
            return await self._json(request, body)
        self.requests.append((request.method, request.path_qs, dict(request.headers)))
        if (await self._send("GET", f"/storage/v1/b/{bucket}"))[0] == 404:
            return _error(404, "NoSuchBucket")
        if not key:
            return self._list_uploads(request, unquote(bucket))
        if "uploads" in request.query:
            upload_id = f"upload-{next(self._numbers)}"
            self.uploads[upload_id] = Upload(unquote(bucket), unquote(key), datetime.now(UTC))
            return _document("InitiateMultipartUploadResult", UploadId=upload_id)
        if "uploadId" in request.query:
            return await self._on_upload(request, body)
        return await self._on_object(request, unquote(bucket), unquote(key), body)

    async def _json(self, request: web.Request, body: bytes) -> web.Response:
        kept = {"Content-Type", "Content-Range", "Range"}
        headers = {name: value for name, value in request.headers.items() if name.title() in kept}
        status, told, text = await self._send(request.method, request.raw_path, body=body, headers=headers)
        dropped = {"Content-Length", "Transfer-Encoding", "Connection", "Date"}
        return web.Response(
            status=status, body=text, headers={name: told[name] for name in told if name not in dropped}
        )

    async def _on_object(self, request: web.Request, bucket: str, key: str, body: bytes) -> web.Response:
        media = f"/download/storage/v1/b/{quote(bucket)}/o/{quote(key, safe='')}?alt=media"
        if request.method == "PUT":
            return await self._write(bucket, key, body, request.headers.get("x-goog-if-generation-match"))
        if request.method == "DELETE":
            status, _, _ = await self._send("DELETE", f"/storage/v1/b/{quote(bucket)}/o/{quote(key, safe='')}")
            return _error(404, "NoSuchKey") if status == 404 else web.Response(status=204)
        asked = {"Range": request.headers["Range"]} if "Range" in request.headers else {}
        status, told, content = await self._send("GET", media, headers=asked)
        if status == 404:
            return _error(404, "NoSuchKey")
        if status == 416:
            return _error(416, "InvalidRange")
        headers = {name: told[name] for name in _PASSED_ON if name in told}
        md5 = told["X-Goog-Hash"].partition("md5=")[2].partition(",")[0]
        headers["ETag"] = f'"{base64.b64decode(md5).hex()}"'  # as Google: of the content, not of the version
        if request.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(len(content))})
        return web.Response(status=status, body=content, headers=headers)

    async def _write(self, bucket: str, key: str, body: bytes, generation: str | None) -> web.Response:
        head = f"--cut\r\nContent-Type: application/json\r\n\r\n{json.dumps({'name': key})}\r\n--cut\r\n\r\n"
        condition = "" if generation is None else f"&ifGenerationMatch={generation}"
        status, _, text = await self._send(
            "POST",
            f"/upload/storage/v1/b/{quote(bucket)}/o?uploadType=multipart{condition}",
            body=head.encode() + body + b"\r\n--cut--\r\n",
            headers={"Content-Type": "multipart/related; boundary=cut"},
        )
        if status == 412:
            return _error(412, "PreconditionFailed")
        if status != 200:
            return _error(status, "InternalError")
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        return web.Response(headers={"ETag": etag, "x-goog-generation": json.loads(text)["generation"]})

    async def _on_upload(self, request: web.Request, body: bytes) -> web.Response:
        upload = self.uploads.get(request.query["uploadId"])
        if upload is None:
            return _error(404, "NoSuchUpload")
        if request.method == "PUT":
            upload.parts[int(request.query["partNumber"])] = body
            return web.Response(headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        if request.method == "DELETE":
            del self.uploads[request.query["uploadId"]]
            return web.Response(status=204)
        named = [
            (int(part.findtext("{*}PartNumber") or 0), part.findtext("{*}ETag") or "")
            for part in ET.fromstring(body).iterfind("{*}Part")
        ]
        for number, etag in named:
            if number not in upload.parts or etag.strip('"') != hashlib.md5(upload.parts[number]).hexdigest():
                return _error(400, "InvalidPart")
        if [number for number, _ in named] != sorted({number for number, _ in named}):
            return _error(400, "InvalidPartOrder")
        if any(len(upload.parts[number]) < SMALLEST_PART for number, _ in named[:-1]):
            return _error(400, "EntityTooSmall")
        content = b"".join(upload.parts[number] for number, _ in named)
        written = await self._write(upload.bucket, upload.key, content, None)
        if written.status != 200:
            return written
        self.uploads.pop(request.query["uploadId"], None)
        answer = _document("CompleteMultipartUploadResult", Key=upload.key, ETag=f'"{len(named)}-parts"')
        answer.headers["x-goog-generation"] = written.headers["x-goog-generation"]
        return answer

    def _list_uploads(self, request: web.Request, bucket: str) -> web.Response:
        query = request.query
        if request.method != "GET" or "uploads" not in query:
            return _error(501, "NotImplemented")  # nothing here lists objects by XML
        after = (query.get("key-marker", ""), query.get("upload-id-marker", ""))
        found = sorted(
            (upload.key, upload_id)
            for upload_id, upload in self.uploads.items()
            if upload.bucket == bucket and upload.key.startswith(query.get("prefix", ""))
        )
        left = [one for one in found if one > after]
        told = "".join(
            f"<Upload><Key>{escape(key)}</Key><UploadId>{upload_id}</UploadId><StorageClass>STANDARD</StorageClass>"
            f"<Initiated>{self.uploads[upload_id].begun:%Y-%m-%dT%H:%M:%S.%fZ}</Initiated></Upload>"
            for key, upload_id in left[: self.page]
        )
        if len(left) > self.page:
            key, upload_id = left[self.page - 1]
            told += f"<NextKeyMarker>{escape(key)}</NextKeyMarker><NextUploadIdMarker>{upload_id}</NextUploadIdMarker>"
        return _document("ListMultipartUploadsResult", told, IsTruncated="true" if len(left) > self.page else "false")


def _document(kind: str, content: str = "", **elements: str) -> web.Response:
    told = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in elements.items())
    text = f'<?xml version="1.0" encoding="UTF-8"?><{kind} xmlns="{_NAMESPACE}">{told}{content}</{kind}>'
    return web.Response(text=text, content_type="application/xml")


def _error(status: int, code: str) -> web.Response:
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")
