"""What a path inside a store may look like, and what a URL may show in a message."""

from __future__ import annotations

from asyncsaver.errors import StoreError

# In these schemes ``container@account`` is an address. Elsewhere what stands before the @ is a user, or a secret.
_ADDRESS_BEFORE_AT = frozenset({"abfs", "abfss", "adl", "az", "wasb", "wasbs"})
# Here ? and # belong to the path, and there is nobody to authenticate.
_PLAIN = frozenset({"file", "local", "memory"})


def check_path(path: str) -> str:
    """Return ``path`` if it names an object below the store's root.

    Raises:
        StoreError: it is empty, absolute, or has an empty, ``.`` or ``..`` segment, so that on some store it would name
            something else, perhaps outside the root.
    """
    if "\0" in path or any(segment in {"", ".", ".."} for segment in path.split("/")):
        raise StoreError(f"{path!r} is not a path below the store's root", path=path)
    return path


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` if it is a folder below the store's root: "", or a path that ends in ``/``.

    Raises:
        StoreError: it is something else.
    """
    if prefix:
        if not prefix.endswith("/"):
            raise StoreError(f"the prefix {prefix!r} does not end in '/'", path=prefix)
        check_path(prefix[:-1])
    return prefix


def redact(url: str) -> str:
    """Return a URL without what may be secret in it: user, password, query, fragment.

    Plain paths and the URLs of local stores are returned as they are. Chained URLs (``simplecache::s3://...``) are
    redacted link by link.
    """
    if "://" not in url:
        return url
    return "::".join(_redact_link(link) for link in url.split("::"))


def _redact_link(link: str) -> str:
    scheme, separator, rest = link.partition("://")
    if not separator or scheme.lower() in _PLAIN:
        return link
    rest = rest.partition("?")[0].partition("#")[0]
    host, slash, path = rest.partition("/")
    _, colon, port = host.partition(":")
    if colon and "@" in path and not (port.isdigit() or "@" in host):
        rest = rest.rpartition("@")[2]  # the slash belongs to a password
        host, slash, path = rest.partition("/")
    user, at, address = host.rpartition("@")
    if at and (":" in user or scheme.lower() not in _ADDRESS_BEFORE_AT):
        host = address
    return f"{scheme}://{host}{slash}{path}"
