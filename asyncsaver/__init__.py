"""Checkpoints for asyncio trainers, on any cloud store: whole or not there."""

from asyncsaver.aio.defaults import get_default_saver
from asyncsaver.conversion.convert import convert
from asyncsaver.errors import (
    AccessDeniedError,
    AsyncSaverError,
    CheckpointCorruptError,
    CheckpointDeletedError,
    CheckpointExistsError,
    CheckpointNotFoundError,
    CommitUnknownError,
    InvalidRootError,
    InvalidSavePathError,
    InvalidStateError,
    ManifestError,
    RankFailedError,
    RanksMissingError,
    ReadOnlyError,
    RootNotFoundError,
    SaveAbortedError,
    SaverClosedError,
    StoreError,
    StoreTimeoutError,
    StructureMismatchError,
    UnreadableTensorError,
    UnsupportedLeafError,
    UnsupportedStoreError,
    WrongLoopError,
)
from asyncsaver.functions import (
    CheckpointState,
    checkpoint_exists,
    get_checkpoint_state,
    latest_checkpoint,
    open_checkpoint,
)
from asyncsaver.model.checkpoint import Checkpoint, Progress
from asyncsaver.model.leaves import TensorInfo
from asyncsaver.model.retention import (
    KeepAll,
    KeepBest,
    KeepEveryHours,
    KeepEverySteps,
    KeepLast,
    KeepPinned,
    RetentionPolicy,
)
from asyncsaver.model.stats import RestoreStats, SaveStats
from asyncsaver.prune.report import Pruned, PruneReport, SweepReport, Swept
from asyncsaver.restore.reader import CheckpointReader
from asyncsaver.restore.verify import VerifyReport
from asyncsaver.save.background import PendingSave
from asyncsaver.saver import Saver
from asyncsaver.variables import Partitioned, Saveable, SaveSpec, SliceInfo, Variable
from asyncsaver.version import __version__

__all__ = [
    "AccessDeniedError",
    "AsyncSaverError",
    "Checkpoint",
    "CheckpointCorruptError",
    "CheckpointDeletedError",
    "CheckpointExistsError",
    "CheckpointNotFoundError",
    "CheckpointReader",
    "CheckpointState",
    "CommitUnknownError",
    "InvalidRootError",
    "InvalidSavePathError",
    "InvalidStateError",
    "KeepAll",
    "KeepBest",
    "KeepEveryHours",
    "KeepEverySteps",
    "KeepLast",
    "KeepPinned",
    "ManifestError",
    "Partitioned",
    "PendingSave",
    "Progress",
    "PruneReport",
    "Pruned",
    "RankFailedError",
    "RanksMissingError",
    "ReadOnlyError",
    "RestoreStats",
    "RetentionPolicy",
    "RootNotFoundError",
    "SaveAbortedError",
    "SaveSpec",
    "SaveStats",
    "Saveable",
    "Saver",
    "SaverClosedError",
    "SliceInfo",
    "StoreError",
    "StoreTimeoutError",
    "StructureMismatchError",
    "SweepReport",
    "Swept",
    "TensorInfo",
    "UnreadableTensorError",
    "UnsupportedLeafError",
    "UnsupportedStoreError",
    "Variable",
    "VerifyReport",
    "WrongLoopError",
    "__version__",
    "checkpoint_exists",
    "convert",
    "get_checkpoint_state",
    "get_default_saver",
    "latest_checkpoint",
    "open_checkpoint",
]
