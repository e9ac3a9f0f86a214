"""Every error that asyncsaver raises, grouped by what a handler would do about it.

All derive from `AsyncSaverError`, and each also from the builtin that a caller would expect,
so that ``except FileNotFoundError`` works without importing anything from here. Arguments that are wrong by
themselves (a negative step, an unknown option) raise plain `ValueError` and `TypeError`.
Messages never contain credentials.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class AsyncSaverError(Exception):
    """The root of all errors raised by asyncsaver."""


# --- what the caller passed in cannot be saved, or used so -----------------------------------------


class InvalidStateError(AsyncSaverError, ValueError):
    """The state cannot be saved as it is: a cycle, two leaves with one name, a tensor too large for the store."""


class UnsupportedLeafError(InvalidStateError, TypeError):
    """A leaf or a dict key has a type or a dtype that no checkpoint can hold; the message names its path."""


class SaverClosedError(AsyncSaverError, RuntimeError):
    """The saver was used after `close()`."""


class WrongLoopError(AsyncSaverError, RuntimeError):
    """The saver was used from another event loop, or in another process (after a fork), than the one it belongs to."""


class ReadOnlyError(AsyncSaverError, PermissionError):
    """The saver was made with ``read_only=True`` and asked to change something."""


# --- there is no such checkpoint ---------------------------------------------------------------------


class CheckpointNotFoundError(AsyncSaverError, FileNotFoundError):
    """No committed checkpoint at that step, or none at all under the root."""


class InvalidSavePathError(CheckpointNotFoundError, ValueError):
    """The path given as ``save_path`` is not that of a checkpoint, in any format."""


class CheckpointDeletedError(CheckpointNotFoundError):
    """The checkpoint was deleted, perhaps while it was being read."""


class CheckpointExistsError(AsyncSaverError, FileExistsError):
    """The step is committed already, by this saver or another one; `overwrite=True` replaces it."""


# --- there is one, but it cannot be used -------------------------------------------------------------


class CheckpointCorruptError(AsyncSaverError, ValueError):
    """Bytes of a committed checkpoint are missing, truncated or changed; the message names file, range and tensor.

    Attributes:
        path: the damaged file, relative to the root.
        tensors: names of the tensors that it touches.
        overwritten: names of target tensors whose memory was already being written when the damage
            was found. Empty unless the state is larger than the memory budget.
    """

    def __init__(
        self, message: str, *, path: str = "", tensors: Sequence[str] = (), overwritten: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.path = path
        self.tensors = tuple(tensors)
        self.overwritten = tuple(overwritten)


class ManifestError(CheckpointCorruptError):
    """A manifest, a part or a state file cannot be read: damaged, of an unknown version, or pointing outside its root."""


class UnreadableTensorError(CheckpointCorruptError):
    """A tensor that another library's checkpoint lists cannot be read, while others can; the message says which, and why."""


class StructureMismatchError(AsyncSaverError, ValueError):
    """The target does not fit the checkpoint. Lists every difference; nothing was assigned.

    Only where an object's own ``load_state_dict`` fails, which nobody can foresee, may other objects have loaded their states
    before it: the message then names them.

    Attributes:
        missing: names that the target has and the checkpoint lacks.
        unexpected: names that the checkpoint has and the target lacks.
        mismatched: one line a leaf whose kind, shape or dtype differs.
    """

    def __init__(
        self,
        message: str,
        *,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        mismatched: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.mismatched = tuple(mismatched)


# --- a save that did not become a checkpoint ---------------------------------------------------------


class SaveAbortedError(AsyncSaverError, RuntimeError):
    """This attempt to save was condemned by a sweep, or cancelled; nothing was committed."""


class RankFailedError(AsyncSaverError, RuntimeError):
    """A rank reported that it could not write its part."""


class RanksMissingError(AsyncSaverError, TimeoutError):
    """Some ranks did not write their parts in time; the message names them."""


# --- the store ---------------------------------------------------------------------------------------


class StoreError(AsyncSaverError, OSError):
    """The store failed. Raised from the backend's own error.

    Attributes:
        retryable: whether the same request may succeed if it is sent again (throttling, timeout, reset).
        path: the object concerned, relative to the store's root; empty where it is the store as a whole.
    """

    def __init__(self, message: str, *, retryable: bool = False, path: str = "") -> None:
        super().__init__(message)
        self.retryable = retryable
        self.path = path


class ObjectNotFoundError(StoreError, FileNotFoundError):
    """No object at that path."""


class ObjectExistsError(StoreError, FileExistsError):
    """An exclusive create found an object at that path. For sure: an unclear refusal is a plain `StoreError`."""


class PreconditionFailedError(StoreError):
    """A compare-and-swap found another etag than the one given."""


class ObjectTruncatedError(StoreError, EOFError):
    """An object ends before the range that was asked for."""


class RootNotFoundError(StoreError, FileNotFoundError):
    """The bucket or container itself does not exist."""


class InvalidRootError(StoreError, NotADirectoryError):
    """The root is not a place to save to: a plain file, for instance."""


class AccessDeniedError(StoreError, PermissionError):
    """The store refused the credentials, or the credentials do not allow this."""


class StoreTimeoutError(StoreError, TimeoutError):
    """The store did not answer in time. Retryable."""


class UnsupportedStoreError(AsyncSaverError, ValueError):
    """The URL's scheme is unknown, its package is not installed, or the store cannot give what saving needs."""


class CommitUnknownError(StoreError, TimeoutError):
    """The store answered neither the commit nor the question whether it went through, for as long as was allowed."""
