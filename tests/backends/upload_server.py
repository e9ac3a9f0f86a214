"""A server that takes uploads in parts, as S3, Azure and Google do, of any size, and fails as a test says."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

_S3_ERROR = "<Error><Code>{}</Code><Message>no</Message></Error>"
_BEGUN = "2026-11-22T10:00:00Z"
_BLOCK = re.compile(rb"<(?:Latest|Uncommitted)>([^<]+)<")

Refusal = Callable[[str, int], int]


@dataclass(slots=True)
class UploadServer:
    """Answers for `CannedServer`.

    Attributes:
        bodies: of the requests; the last is the one to be answered.
        refuse: given "begin", "part", "complete" and so on, and how many such requests there were, the HTTP status to refuse
            with (the request is not carried out), minus one to lose the reply to a request that was, or 0.
        requests: by kind.
        objects: by path.
        uploads: unfinished, by id (that of S3 begins with the key), with their parts.
    """

    bodies: list[bytes]
    refuse: Refusal = lambda kind, count: 0
    requests: Counter[str] = field(default_factory=Counter)
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def answer(self, request: web.Request) -> web.Response:
        body = self.bodies.pop()
        kind = self._kind(request)
        self.requests[kind] += 1
        status = self.refuse(kind, self.requests[kind])
        if status > 0:
            return _error(status, "SlowDown")
        answer = self._carry_out(kind, request, body)
        if status < 0 and request.transport is not None:
            request.transport.abort()
        return answer

    def _kind(self, request: web.Request) -> str:
        query, method = request.query, request.method
        if method == "POST":
            return "begin" if "uploads" in query else "complete"
        if method == "PUT":
            comp = query.get("comp", "")
            return "complete" if comp == "blocklist" else "part" if comp or "partNumber" in query else "put"
        if method == "GET" and "uploads" in query:
            return "list"
        return "abort" if method == "DELETE" else method.lower()

    def _carry_out(self, kind: str, request: web.Request, body: bytes) -> web.Response:
        query, path = request.query, request.path
        upload = query.get("uploadId", path)
        if kind == "begin":
            upload = f"{path.split('/', 2)[2]}?{self.requests[kind]}"
            self.uploads[upload] = {}
            return _xml(f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>")
        if kind == "part" and "blockid" in query:
            self.uploads.setdefault(upload, {})[query["blockid"]] = body
            return web.Response(status=201)
        if kind == "list":
            found = "".join(
                f"<Upload><Key>{one.partition('?')[0]}</Key><UploadId>{one}</UploadId><Initiated>{_BEGUN}</Initiated></Upload>"
                for one in self.uploads
            )
            return _xml(f"<ListMultipartUploadsResult>{found}</ListMultipartUploadsResult>")
        if kind == "head":
            if path not in self.objects:
                return web.Response(status=404)
            headers = {
                "ETag": '"etag"',
                "Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT",
                "x-ms-blob-type": "BlockBlob",
            }
            return web.Response(body=self.objects[path], headers=headers)
        if kind == "complete" and "comp" in query:
            blocks = [block.decode() for block in _BLOCK.findall(body)]
            staged = self.uploads.get(upload, {})
            if any(block not in staged for block in blocks):
                return _error(400, "InvalidBlockList")
            self.objects[path] = b"".join(staged[block] for block in blocks)
            if b"<Uncommitted>" in body:
                del self.uploads[upload]
            return web.Response(
                status=201, headers={"ETag": '"etag"', "Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT"}
            )
        if upload not in self.uploads:
            return _error(404, "NoSuchUpload")
        if kind == "part":
            self.uploads[upload][query["partNumber"].zfill(5)] = body
            return web.Response(headers={"ETag": f'"{base64.b16encode(body[:4]).decode()}"'})
        parts = self.uploads.pop(upload)
        if kind == "complete":
            self.objects[path] = b"".join(parts[number] for number in sorted(parts))
            return _xml("<CompleteMultipartUploadResult><ETag>&quot;etag&quot;</ETag></CompleteMultipartUploadResult>")
        return web.Response(status=204)


def _xml(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/xml")


def _error(status: int, code: str) -> web.Response:
    text = _S3_ERROR.format(code)
    return web.Response(status=status, text=text, content_type="application/xml", headers={"x-ms-error-code": code})
