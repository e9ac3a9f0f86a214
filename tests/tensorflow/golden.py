"""What TensorFlow did, and a saver's way of saving that needs no tensors: files of the names that it would write."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from asyncsaver.formats.tensorflow.naming import shard_paths
from asyncsaver.tensorflow import meta_graph_filename

GOLDEN = Path(__file__).parents[1] / "golden" / "tensorflow"
PROBES: dict[str, Any] = json.loads((GOLDEN / "behaviours.json").read_text())["probes"]
TRACES: dict[str, Any] = json.loads(gzip.decompress((GOLDEN / "retention_traces/golden.json.gz").read_bytes()))
ROTATION: dict[str, Any] = json.loads((GOLDEN / "rotation/golden.json").read_text())


class Clock:
    """Seconds since 1970, set by the test."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def files_of(path: str, *, version: str, shards: int = 1, suffix: str | None = "meta") -> list[str]:
    """The files that make up a checkpoint; the sidecar unless its suffix is None."""
    files = [meta_graph_filename(path, suffix)] if suffix else []
    if version == "v1":
        return [*(shard_paths(path) or [path]), *files]
    return [f"{path}.index", *(f"{path}.data-{shard:05d}-of-{shards:05d}" for shard in range(shards)), *files]


def write_files(paths: Iterable[str]) -> None:
    for path in paths:
        Path(path).write_bytes(b"content")


def names_in(folder: Path) -> list[str]:
    """All files in a folder and below, but for the one by which the local store excludes other writers."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in files if name != ".asyncsaver.lock")


def with_folder(value: Any, folder: object) -> Any:
    """What a probe returned, with the folder in the place of ``$DIR``."""
    return json.loads(json.dumps(value).replace("$DIR", str(folder)))
