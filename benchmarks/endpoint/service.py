"""What each request does. No I/O: the protocol brings whole requests and sends the answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree as ET

from endpoint import answers
from endpoint.answers import Answer, document, error, tag
from endpoint.arena import Arena, Blob
from endpoint.objects import Bucket, Object
from endpoint.traffic import Traffic

RANGE = re.compile(r"bytes=(\d*)-(\d*)$")
KINDS = {"GET": "get", "HEAD": "head", "PUT": "put", "DELETE": "delete", "POST": "post"}


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head. Header names are in lower case."""

    method: str
    target: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


def parse_head(head: bytes) -> Request:
    """Read the request line and the headers. Raises `ValueError` where they are none."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    url = urlsplit(target)
    bucket, _, key = unquote(url.path).lstrip("/").partition("/")
    return Request(method, target, bucket, key, dict(parse_qsl(url.query, keep_blank_values=True)), headers)


class Service:
    """All buckets.

    Args:
        arena: where bodies are kept.
        traffic: whose counts ``GET /?stats`` tells. ``POST /?reset`` empties the buckets and counts anew.
    """

    def __init__(self, arena: Arena, traffic: Traffic) -> None:
        self.arena = arena
        self._traffic = traffic
        self._buckets: dict[str, Bucket] = {}

    def handle(self, request: Request, body: Blob) -> tuple[str, Answer]:
        """Carry a request out. Returns its kind, for the counts, and the answer."""
        if not request.bucket:
            return "control", self._control(request)
        if self._traffic.fails():
            return KINDS.get(request.method, "other"), error(503, "SlowDown")
        if request.method == "PUT" and not request.key:
            self._buckets.setdefault(request.bucket, Bucket())
        bucket = self._buckets.get(request.bucket)
        if bucket is None:
            return KINDS.get(request.method, "other"), error(404, "NoSuchBucket")
        if not request.key:
            return self._on_bucket(request, bucket, body)
        if "uploadId" in request.query:
            return self._on_upload(request, bucket, body)
        return self._on_object(request, bucket, body)

    def _control(self, request: Request) -> Answer:
        if "reset" in request.query:
            self._buckets = {name: Bucket() for name in self._buckets}
            self._traffic.reset()
            return Answer(204)
        if "stats" in request.query:
            return Answer(200, {"Content-Type": "application/json"}, [self._traffic.summary()])
        names = "".join(f"<Bucket>{tag('Name', name)}</Bucket>" for name in self._buckets)
        return document("ListAllMyBucketsResult", f"<Buckets>{names}</Buckets>")

    def _on_bucket(self, request: Request, bucket: Bucket, body: Blob) -> tuple[str, Answer]:
        query = request.query
        if request.method == "POST" and "delete" in query:
            keys = [found.text or "" for found in ET.fromstring(bytes(body.view)).iterfind(".//{*}Object/{*}Key")]
            for key in keys:
                bucket.objects.pop(key, None)
            return "delete_objects", document("DeleteResult", "")
        if request.method == "DELETE":
            if bucket.objects:
                return "bucket", error(409, "BucketNotEmpty")
            del self._buckets[request.bucket]
        if request.method != "GET":
            return "bucket", Answer(204 if request.method == "DELETE" else 200)
        if "uploads" in query:
            prefix = query.get("prefix", "")
            found = [(name, upload) for name, upload in bucket.uploads.items() if upload.key.startswith(prefix)]
            return "list_uploads", answers.uploads(found)
        if "location" in query:
            return "bucket", document("LocationConstraint", "")
        after = query.get("start-after", "")
        if "continuation-token" in query:
            after = bytes.fromhex(query["continuation-token"]).decode()
        limit = int(query.get("max-keys", "1000"))
        page = bucket.page(query.get("prefix", ""), query.get("delimiter", ""), after, limit)
        return "list", answers.listing(request.bucket, query, page)

    def _on_upload(self, request: Request, bucket: Bucket, body: Blob) -> tuple[str, Answer]:
        upload_id = request.query["uploadId"]
        kind = {"PUT": "put_part", "POST": "complete_upload", "DELETE": "abort_upload"}.get(
            request.method, "list_parts"
        )
        upload = bucket.uploads.get(upload_id)
        if upload is None or upload.key != request.key:
            return kind, error(404, "NoSuchUpload")
        if kind == "put_part":
            part = upload.parts[int(request.query["partNumber"])] = bucket.make([body])
            return kind, Answer(200, {"ETag": part.etag})
        if kind == "list_parts":
            return kind, answers.parts(request.key, upload_id, upload)
        if kind == "complete_upload":
            refused = _condition(request, bucket.objects.get(request.key))
            if refused is not None:
                return kind, refused
            numbers = [int(found.text or "0") for found in ET.fromstring(bytes(body.view)).iterfind(".//{*}PartNumber")]
            if not numbers or any(number not in upload.parts for number in numbers):
                return kind, error(400, "InvalidPart")
            blobs = [blob for number in numbers for blob in upload.parts[number].blobs]
            made = bucket.objects[request.key] = bucket.make(blobs)
            del bucket.uploads[upload_id]
            content = tag("Bucket", request.bucket) + tag("Key", request.key) + tag("ETag", made.etag)
            return kind, document("CompleteMultipartUploadResult", content)
        del bucket.uploads[upload_id]
        return kind, Answer(204)

    def _on_object(self, request: Request, bucket: Bucket, body: Blob) -> tuple[str, Answer]:
        key = request.key
        if request.method == "PUT":
            if "x-amz-copy-source" in request.headers:
                return "copy", self._copy(request, bucket)
            refused = _condition(request, bucket.objects.get(key))
            if refused is not None:
                return "put", refused
            made = bucket.objects[key] = bucket.make([body])
            return "put", Answer(200, {"ETag": made.etag})
        if request.method == "POST" and "uploads" in request.query:
            content = tag("Bucket", request.bucket) + tag("Key", key) + tag("UploadId", bucket.begin_upload(key))
            return "create_upload", document("InitiateMultipartUploadResult", content)
        if request.method == "DELETE":
            bucket.objects.pop(key, None)
            return "delete", Answer(204)
        found = bucket.objects.get(key)
        if request.method == "HEAD":
            return "head", Answer(404) if found is None else Answer(200, answers.describing(found), length=found.size)
        if request.method != "GET":
            return "other", error(405, "MethodNotAllowed")
        kind = "get_range" if "range" in request.headers else "get"
        return kind, error(404, "NoSuchKey") if found is None else _read(request, found)

    def _copy(self, request: Request, bucket: Bucket) -> Answer:
        source = unquote(request.headers["x-amz-copy-source"]).lstrip("/").partition("/")
        there = self._buckets.get(source[0])
        found = None if there is None else there.objects.get(source[2])
        if found is None:
            return error(404, "NoSuchKey")
        made = bucket.objects[request.key] = bucket.make(found.blobs)
        return document("CopyObjectResult", tag("ETag", made.etag))


def _condition(request: Request, standing: Object | None) -> Answer | None:
    """The refusal of a conditional write, or None where it may go on."""
    if request.headers.get("if-none-match") == "*" and standing is not None:
        return error(412, "PreconditionFailed", tag("Condition", "If-None-Match"))
    expected = request.headers.get("if-match")
    if expected is None:
        return None
    if standing is None:
        return error(404, "NoSuchKey")
    if expected.strip('"') != standing.etag.strip('"'):
        return error(412, "PreconditionFailed", tag("Condition", "If-Match"))
    return None


def _read(request: Request, found: Object) -> Answer:
    size, headers = found.size, answers.describing(found)
    asked = RANGE.match(request.headers.get("range", ""))
    if asked is None:
        return Answer(200, headers, list(found.read(0, size)), held=found)
    first, last = asked.groups()
    start = int(first) if first else max(0, size - int(last or 0))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        return error(416, "InvalidRange")
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Answer(206, headers, list(found.read(start, stop)), held=found)
