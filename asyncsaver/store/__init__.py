"""The store contract, the registry that finds stores by URL, and wrappers around any store."""

from asyncsaver.store.buffers import pieces_of
from asyncsaver.store.contract import (
    Blob,
    Buffer,
    Capabilities,
    Listing,
    ObjectInfo,
    Part,
    PutMode,
    ScatteredPart,
    Store,
)
from asyncsaver.store.resend import NEVER, Resend

__all__ = [
    "NEVER",
    "Blob",
    "Buffer",
    "Capabilities",
    "Listing",
    "ObjectInfo",
    "Part",
    "PutMode",
    "Resend",
    "ScatteredPart",
    "Store",
    "pieces_of",
]
