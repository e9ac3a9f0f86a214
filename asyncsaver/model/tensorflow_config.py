"""The arguments of a saver that writes TensorFlow's files, checked. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from asyncsaver.model.manifest import Json


@dataclass(frozen=True, slots=True)
class TensorFlowConfig:
    """How TensorFlow's files are written.

    Attributes:
        write_version: "v1" or "v2".
        sharded: whether each shard key, or device, has data files of its own.
        latest_filename: the name of the text file that lists checkpoints.
        save_relative_paths: whether paths in it are relative on a local disk too.
    """

    write_version: str = "v2"
    sharded: bool = False
    latest_filename: str = "checkpoint"
    save_relative_paths: bool = False

    @property
    def as_json(self) -> dict[str, Json]:
        """What records keep of it."""
        return {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) != getattr(_DEFAULT, name)}


_DEFAULT = TensorFlowConfig()


def check_tensorflow_config(
    *,
    format: str,  # noqa: A002 - as users call it
    prefix: str,
    write_version: object,
    sharded: object,
    latest_filename: object,
    save_relative_paths: object,
) -> TensorFlowConfig | None:
    """Check the arguments of `Saver` that only TensorFlow's format takes; None for another format.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    if write_version not in ("v1", "v2"):
        raise ValueError(f"write_version must be 'v1' or 'v2', not {write_version!r}")
    for argument, flag in (("sharded", sharded), ("save_relative_paths", save_relative_paths)):
        if not isinstance(flag, bool):
            raise TypeError(f"{argument} must be True or False, not {flag!r}")
    name = check_latest_filename(latest_filename)
    config = TensorFlowConfig(str(write_version), bool(sharded), name, bool(save_relative_paths))
    if format == "tensorflow":
        if name == prefix:
            raise ValueError(collision(name, prefix))
        return config
    if config != _DEFAULT:
        given = ", ".join(f"{argument}={value!r}" for argument, value in config.as_json.items())
        raise ValueError(f"{given} is for format='tensorflow' only")
    return None


def check_latest_filename(name: object) -> str:
    """Return the name of a state file, if it is a plain one; raises `TypeError` or `ValueError`."""
    if not isinstance(name, str):
        raise TypeError(f"latest_filename must be a str, not {type(name).__name__}")
    if name in {"", ".", ".."}:
        raise ValueError(f"'latest_filename' must be the name of a file, not {name!r}")
    if "/" in name:
        raise ValueError(f"'latest_filename' must not contain path components: {name!r}")
    if name == ".asyncsaver":
        raise ValueError(f"latest_filename={name!r} is the folder of our own records")
    return name


def collision(latest_filename: str, checkpoint: str) -> str:
    """What is wrong with a checkpoint that has the name of the state file."""
    return f"latest_filename collides with the checkpoint: {latest_filename!r} and {checkpoint!r}"
