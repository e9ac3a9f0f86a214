"""The store contract, the registry that finds stores by URL, and wrappers around any store."""

from asyncsaver.store.contract import Blob, Buffer, Capabilities, Listing, ObjectInfo, Part, PutMode, Store

__all__ = ["Blob", "Buffer", "Capabilities", "Listing", "ObjectInfo", "Part", "PutMode", "Store"]
