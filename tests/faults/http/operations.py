"""What a request to a storage server wants: the same few words for S3, Google Cloud Storage and Azure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

Kind = Literal["put", "create", "replace", "begin", "part", "complete", "abort", "delete", "get", "list", "head"]

_GCS_NAME = re.compile(rb'\{"name": "([^"]*)"\}')


@dataclass(frozen=True, slots=True)
class Operation:
    """One request.

    Attributes:
        kind: ``create`` and ``replace`` are puts with a condition; ``begin``, ``part``, ``complete`` and ``abort`` are of
            an object in parts.
        key: of the object, with the bucket before it; the bucket alone for listings and batches.
    """

    kind: Kind
    key: str


def _put(*, absent: bool, matching: bool) -> Kind:
    if absent:
        return "create"
    return "replace" if matching else "put"


def operation_of(scheme: str, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Operation:
    """Tell what a request wants.

    Args:
        scheme: of the cloud: "s3", "gs" or "az".
        method: of HTTP.
        target: path and query, as sent.
        headers: of the request; case does not matter.
        body: its beginning is enough.
    """
    split = urlsplit(target)
    query = parse_qs(split.query, keep_blank_values=True)
    path = unquote(split.path).lstrip("/")
    return {"s3": _s3, "gs": _gcs, "az": _azure}[scheme](method, path, query, headers, body)


def _s3(method: str, path: str, query: Mapping[str, list[str]], headers: Mapping[str, str], _: bytes) -> Operation:
    put = _put(absent="If-None-Match" in headers, matching="If-Match" in headers)
    by_query: dict[tuple[str, str], Kind] = {
        ("POST", "uploads"): "begin",
        ("PUT", "partNumber"): "part",
        ("POST", "uploadId"): "complete",
        ("DELETE", "uploadId"): "abort",
        ("POST", "delete"): "delete",
        ("GET", "list-type"): "list",
        ("GET", "uploads"): "list",
    }
    plain: dict[str, Kind] = {"PUT": put, "GET": "get", "HEAD": "head", "DELETE": "delete"}
    found = next((kind for (verb, name), kind in by_query.items() if verb == method and name in query), None)
    return Operation(found or plain[method], path)


def _gcs(method: str, path: str, query: Mapping[str, list[str]], headers: Mapping[str, str], body: bytes) -> Operation:
    bucket, _, key = path.partition("/b/")[2].partition("/o")
    if query.get("uploadType") == ["multipart"]:
        named = _GCS_NAME.search(body[:4096])
        generation = query.get("ifGenerationMatch", [""])[0]
        put = _put(absent=generation == "0", matching=generation not in {"", "0"})
        return Operation(put, f"{bucket}/{named[1].decode() if named else ''}")
    if query.get("uploadType") == ["resumable"]:
        key = f"{bucket}/{query['name'][0]}" if "name" in query else bucket
        if method == "PUT":
            content = headers.get("Content-Range", "").removeprefix("bytes ")
            if content.startswith("*"):  # how much there is, after a failure
                return Operation("head", key)
            start, _, rest = content.partition("-")
            stop, _, total = rest.partition("/")
            return Operation("complete" if start and int(stop) + 1 == int(total) else "part", key)
        return Operation("abort" if method == "DELETE" else "begin", key)
    if not key:
        return Operation("list", bucket)
    verbs: dict[str, Kind] = {"GET": "get" if path.startswith("download") else "head", "DELETE": "delete"}
    return Operation(verbs[method], f"{bucket}{key}")


def _azure(method: str, path: str, query: Mapping[str, list[str]], headers: Mapping[str, str], _: bytes) -> Operation:
    key = path.partition("/")[2]  # the account comes first
    comp = query.get("comp", [""])[0]
    if method == "PUT":
        if comp == "block":
            return Operation("part", key)
        put = _put(absent="If-None-Match" in headers, matching="If-Match" in headers)
        return Operation("complete" if comp == "blocklist" and put == "put" else put, key)
    verbs: dict[str, Kind] = {"GET": "list" if comp == "list" else "get", "HEAD": "head", "DELETE": "delete"}
    if comp == "batch":
        return Operation("delete", key)
    return Operation(verbs[method], key)
