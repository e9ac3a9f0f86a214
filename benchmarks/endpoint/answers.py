"""What the endpoint says, as S3 says it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from http import HTTPStatus
from xml.sax.saxutils import escape

from endpoint.objects import Object, Page, Upload

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
PROLOG = '<?xml version="1.0" encoding="UTF-8"?>'


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body of an answer.

    Attributes:
        length: of the body, where it is not sent (HEAD); else the sum of its pieces.
        held: what must live until the body is sent.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Sequence[bytes | memoryview] = ()
    length: int | None = None
    held: object = None

    @property
    def size(self) -> int:
        """Bytes of the body that are sent."""
        return sum(len(piece) for piece in self.body)

    def head(self) -> bytes:
        """The status line and the headers."""
        length = self.size if self.length is None else self.length
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}", "Server: simulated-s3"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.status != HTTPStatus.NO_CONTENT:
            lines.append(f"Content-Length: {length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def document(root: str, content: str, status: int = 200) -> Answer:
    """An XML document."""
    text = f"{PROLOG}<{root} {NAMESPACE}>{content}</{root}>"
    return Answer(status, {"Content-Type": "application/xml"}, [text.encode()])


def error(status: int, code: str, more: str = "") -> Answer:
    """An error, by S3's code for it."""
    text = f"{PROLOG}<Error><Code>{code}</Code><Message>{code}</Message>{more}</Error>"
    return Answer(status, {"Content-Type": "application/xml"}, [text.encode()])


def describing(found: Object) -> dict[str, str]:
    """The headers that tell what an object is."""
    return {
        "ETag": found.etag,
        "Last-Modified": format_datetime(found.modified, usegmt=True),
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }


def listing(bucket: str, query: Mapping[str, str], page: Page) -> Answer:
    """A page of ListObjectsV2."""
    token = "" if page.after is None else tag("NextContinuationToken", page.after.encode().hex())
    return document(
        "ListBucketResult",
        tag("Name", bucket)
        + tag("Prefix", query.get("prefix", ""))
        + (tag("Delimiter", query["delimiter"]) if query.get("delimiter") else "")
        + tag("MaxKeys", query.get("max-keys", "1000"))
        + tag("KeyCount", str(len(page.objects) + len(page.prefixes)))
        + tag("IsTruncated", "false" if page.after is None else "true")
        + token
        + "".join(f"<Contents>{_contents(key, found)}</Contents>" for key, found in page.objects)
        + "".join(f"<CommonPrefixes>{tag('Prefix', prefix)}</CommonPrefixes>" for prefix in page.prefixes),
    )


def parts(key: str, upload_id: str, upload: Upload) -> Answer:
    """ListParts, on one page."""
    each = (
        f"<Part>{tag('PartNumber', str(number))}{_described(part)}</Part>"
        for number, part in sorted(upload.parts.items())
    )
    content = tag("Key", key) + tag("UploadId", upload_id) + tag("IsTruncated", "false") + "".join(each)
    return document("ListPartsResult", content)


def uploads(found: Iterable[tuple[str, Upload]]) -> Answer:
    """ListMultipartUploads, on one page."""
    each = (
        f"<Upload>{tag('Key', upload.key)}{tag('UploadId', upload_id)}{tag('Initiated', _time(upload.begun))}</Upload>"
        for upload_id, upload in found
    )
    return document("ListMultipartUploadsResult", tag("IsTruncated", "false") + "".join(each))


def tag(name: str, text: str) -> str:
    """An element that holds text."""
    return f"<{name}>{escape(text)}</{name}>"


def _contents(key: str, found: Object) -> str:
    return tag("Key", key) + _described(found) + tag("StorageClass", "STANDARD")


def _described(found: Object) -> str:
    return tag("LastModified", _time(found.modified)) + tag("ETag", found.etag) + tag("Size", str(found.size))


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
