"""The definition of a saver as TensorFlow keeps it beside a graph. Pure, both ways."""

from __future__ import annotations

from dataclasses import dataclass

from asyncsaver.errors import CheckpointCorruptError, ManifestError
from asyncsaver.formats.tensorflow.messages import parse
from asyncsaver.proto.tensorflow_checkpoint_pb2 import SaverDef as Message

LEGACY, V1, V2 = 0, 1, 2
"""What `SaverDef.version` may be."""


@dataclass(frozen=True, slots=True)
class SaverDef:
    """The definition of a saver.

    Attributes:
        filename_tensor_name: what the graph calls the path.
        save_tensor_name: what it calls saving.
        restore_op_name: what it calls restoring.
        max_to_keep: how many checkpoints stay; 0 for all.
        sharded: whether each device writes a file of its own.
        keep_checkpoint_every_n_hours: how often one stays for good. On storage it has the precision of a float32.
        version: of the checkpoints.
    """

    filename_tensor_name: str = ""
    save_tensor_name: str = ""
    restore_op_name: str = ""
    max_to_keep: int = 0
    sharded: bool = False
    keep_checkpoint_every_n_hours: float = 0.0
    version: int = LEGACY


def decode_saver_def(data: bytes, where: str) -> SaverDef:
    """Read a definition.

    Args:
        data: the message.
        where: the path of the file it is from, for messages.

    Raises:
        ManifestError: it is none, or of an unknown version.
    """
    try:
        message = parse(Message, data)
    except CheckpointCorruptError as error:
        raise ManifestError(f"{where}: {error}", path=where) from error
    return saver_def_of(message, where)


def encode_saver_def(definition: SaverDef) -> bytes:
    """A definition as a message, byte for byte as TensorFlow's."""
    return saver_def_message(definition).SerializeToString()


def saver_def_of(message: Message, where: str) -> SaverDef:
    """A definition from its message. Raises `ManifestError` where the version is unknown."""
    if message.version not in {LEGACY, V1, V2}:
        raise ManifestError(f"{where}: a saver of the unknown version {message.version}", path=where)
    return SaverDef(
        message.filename_tensor_name,
        message.save_tensor_name,
        message.restore_op_name,
        message.max_to_keep,
        message.sharded,
        message.keep_checkpoint_every_n_hours,
        message.version,
    )


def saver_def_message(definition: SaverDef) -> Message:
    """A definition as a message."""
    return Message(
        filename_tensor_name=definition.filename_tensor_name,
        save_tensor_name=definition.save_tensor_name,
        restore_op_name=definition.restore_op_name,
        max_to_keep=definition.max_to_keep,
        sharded=definition.sharded,
        keep_checkpoint_every_n_hours=definition.keep_checkpoint_every_n_hours,
        version=Message.CheckpointFormatVersion.Name(definition.version),
    )
