"""Names of V1 files, published and among our records. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from asyncsaver.formats.tensorflow.bundle import index_path
from asyncsaver.formats.tensorflow.naming import RECORDS, sharded_filename, sharded_filespec
from asyncsaver.layout.tensorflow_names import Plan
from asyncsaver.model.catalog import Catalog, Listed
from asyncsaver.model.names import save_folder
from asyncsaver.model.statefile import Entry

SINGLE = 0
"""In place of the N of ``-of-N``, for a checkpoint of one file: its name needs no claim, as the file says whose it is."""

_DIGITS = 5
_TABLE = "table"
_PUBLISHED = "published.json"


class TablePlan(Plan, frozen=True, kw_only=True):
    """What an attempt that writes V1 files is going to write outside of its folder.

    Attributes:
        stranger: files of somebody else's that stood under the name of the checkpoint when the attempt began, and that it
            replaces: path, size in bytes, and version.
    """

    stranger: tuple[tuple[str, int, str], ...] = ()


def table_files(name: str, save_id: str, shards: int) -> list[str]:
    """Where an attempt writes its files, among the records.

    Args:
        name: of the checkpoint.
        save_id: of the attempt.
        shards: how many there are; `SINGLE` for one that is not called a shard.
    """
    path = save_folder(name, save_id) + _TABLE
    return [path] if shards == SINGLE else [sharded_filename(path, shard, shards) for shard in range(shards)]


def tables_of(saved: Iterable[Listed], name: str) -> dict[str, Listed]:
    """Where what a save has written as V1 is published: path → what is copied there, among the records. Nothing for V2.

    Args:
        saved: what is listed in the folder of the save.
        name: of the checkpoint.
    """
    found: dict[str, Listed] = {}
    for item in saved:
        if is_table(item.path):
            found[name + item.path.rpartition("/")[2].removeprefix(_TABLE)] = item
    return found


def is_table(path: str) -> bool:
    """Whether a path is one of `table_files`."""
    filename = path.rpartition("/")[2]
    return filename == _TABLE or filename.startswith(f"{_TABLE}-")


def path_of(saved: Iterable[Listed], name: str) -> str:
    """How TensorFlow calls a checkpoint: its name, or the pattern that stands for the files of a sharded one of V1."""
    tables = tables_of(saved, name)
    shards = next((path[-_DIGITS:] for path in tables if path != name), None)
    return name if shards is None else sharded_filespec(name, int(shards))


def copies_path(name: str, save_id: str, path: str) -> str:
    """How the copies of a V1 checkpoint would be called.

    Args:
        name: of the checkpoint.
        save_id: of its save.
        path: what `path_of` gives.
    """
    return f"{RECORDS}/{save_folder(name, save_id)}{_TABLE}{path.removeprefix(name)}"


def mark_path(name: str, save_id: str) -> str:
    """Where it says that a save was published: only then can others have deleted its files."""
    return save_folder(name, save_id) + _PUBLISHED


def is_published(saved: Iterable[Listed]) -> bool:
    """Whether the mark of `mark_path` is among what is listed."""
    return any(item.path.endswith(f"/{_PUBLISHED}") for item in saved)


def is_lost(
    name: str, saved: Sequence[Listed], tables: Mapping[str, Listed], there: Collection[str], *, alone: bool
) -> bool:
    """Whether somebody else has deleted what was published.

    Args:
        name: of the checkpoint.
        saved: what is listed in the folder of the save.
        tables: of `tables_of`.
        there: paths that stand in the folder of TensorFlow's files.
        alone: no other save of that name was committed that anybody knows of. If one was, then whoever has deleted that may
            have taken this one with it, where both are one file of the same name.
    """
    known = is_published(saved) and (alone or name not in tables)
    return known and index_path(name) not in there and tables.keys().isdisjoint(there)


def is_alone(catalog: Catalog, entry: Entry) -> bool:
    """Whether there is no record of another save of the same name, but for fences."""
    records = (*catalog.checkpoints, *catalog.superseded, *catalog.retired)
    return not any(one.name == entry.name and one.path != entry.path and one.state != "aborted" for one in records)
