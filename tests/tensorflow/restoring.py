"""One state in every format, and restoring it by its path as `tf.train.Saver.restore` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from asyncsaver import Checkpoint, Saver, convert
from asyncsaver.store.registry import open_store

from .golden import GOLDEN

Array = np.ndarray[Any, np.dtype[Any]]
KINDS = GOLDEN / "kinds"
STATE: dict[str, Array] = {
    "a": np.array([1, 2, 3, 4], np.float32),
    "b": np.array([5], np.float32),
    "c": np.arange(6, dtype=np.int32).reshape(2, 3),
    "s": np.array(1.5, np.float32),
}
TENSORFLOW = {"v1": "v1", "v1_sharded": "v1_sharded-?????-of-00002", "v2": "v2", "v2_sharded": "v2_sharded"}
"""What TensorFlow has written → what it returned for it."""
FORMATS = ["native", "huggingface", *TENSORFLOW]


async def put(url: str, kind: str) -> str:
    """Have the state in a folder in one of `FORMATS`; returns the path of the checkpoint."""
    if kind in TENSORFLOW:
        await put_files(url, kind)
        return f"{url}/{TENSORFLOW[kind]}"
    async with Saver(url) as saver:
        native = (await saver.save(STATE, step=1)).url
    if kind == "native":
        return native
    await convert(native, f"{url}/{kind}", format=kind)
    return f"{url}/{kind}"


async def put_files(url: str, name: str) -> None:
    """Copy the files of one of TensorFlow's checkpoints into a folder."""
    async with open_store(url) as store:
        for path in KINDS.iterdir():
            if path.name == name or path.name.startswith((f"{name}.", f"{name}-")):
                await store.put(path.name, path.read_bytes())


async def restore(save_path: str | Path | Checkpoint | None, target: Any = None, **options: Any) -> Any:
    """Restore whatever checkpoint stands there, by a saver of another folder."""
    async with Saver("memory://elsewhere/run") as saver:
        return await saver.restore(target, save_path=save_path, **options)


def target(**changed: Any) -> dict[str, Any]:
    """Arrays that the state fits into, with other content; some may be changed, or left out by None."""
    made: dict[str, Any] = {name: np.full_like(array, 77) for name, array in STATE.items()} | changed
    return {name: array for name, array in made.items() if array is not None}


def untouched(state: dict[str, Any]) -> bool:
    """Whether nothing was assigned."""
    return all((np.asarray(array) == 77).all() for array in state.values())


def same(state: Any, expected: dict[str, Any]) -> bool:
    """Whether these are the same arrays, bit for bit."""
    return state.keys() == expected.keys() and all(
        (state[name].dtype, state[name].shape, state[name].tobytes()) == (array.dtype, array.shape, array.tobytes())
        for name, array in expected.items()
    )
