"""The text file ``checkpoint`` in which TensorFlow's savers note what they have saved. Pure, both ways."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf import text_format

from asyncsaver.errors import ManifestError
from asyncsaver.proto.tensorflow_checkpoint_pb2 import CheckpointState

LARGEST = 64 * 2**20
"""A longer one is refused: it would list a million checkpoints."""


@dataclass(frozen=True, slots=True)
class State:
    """What such a file says.

    Attributes:
        latest: path of the checkpoint saved last; empty if it does not say.
        paths: of all that the saver keeps count of, oldest first.
        timestamps: when each of those was saved, in seconds since 1970; none at all in old files.
        last_preserved: when the last one was saved that is kept for good; 0 if none is.
    """

    latest: str
    paths: tuple[str, ...] = ()
    timestamps: tuple[float, ...] = ()
    last_preserved: float = 0.0


def decode_state(data: bytes, where: str) -> State:
    """Read such a file, with all that a protobuf text may have: comments, escapes, lists. Of a field given twice the last counts.

    Args:
        data: the file.
        where: its path, for messages.

    Raises:
        ManifestError: it is none: garbage, an unknown field, not UTF-8.
    """
    if len(data) > LARGEST:
        raise ManifestError(f"{where}: {len(data)} bytes are too many for a list of checkpoints", path=where)
    message = CheckpointState()
    try:
        text_format.Merge(data.decode(), message)
    except (text_format.ParseError, ValueError, DeprecationWarning) as error:
        # The last is what an unknown escape becomes where warnings are errors; elsewhere it is read as it stands.
        raise ManifestError(f"{where}: not a list of checkpoints: {str(error)[:300]}", path=where) from error
    return State(
        message.model_checkpoint_path,
        tuple(message.all_model_checkpoint_paths),
        tuple(message.all_model_checkpoint_timestamps),
        message.last_preserved_timestamp,
    )


def encode_state(state: State) -> bytes:
    """The file, byte for byte as TensorFlow writes it."""
    message = CheckpointState(
        model_checkpoint_path=state.latest,
        all_model_checkpoint_paths=state.paths,
        all_model_checkpoint_timestamps=state.timestamps,
        last_preserved_timestamp=state.last_preserved,
    )
    return text_format.MessageToString(message, as_utf8=True).encode()
