"""Whether what a record, a part or a state file says is possible, whichever encoding it was read from.

Whatever is not is a `ManifestError`.
"""

from __future__ import annotations

from asyncsaver.errors import ManifestError
from asyncsaver.formats.checks import check_files, check_tensors
from asyncsaver.model.checkpoint import check_metadata, decode_metrics
from asyncsaver.model.manifest import LARGEST, CommitRecord, Deleted, Manifest, Part, Record, Summary
from asyncsaver.model.merge import check_coverage
from asyncsaver.model.names import MAX_STEP, check_relative, is_save_id, save_folder
from asyncsaver.model.statefile import Entry, StateFile


def check_record(record: Record, where: str, *, name: str, slot: int) -> None:
    """Check a record.

    Args:
        record: as decoded.
        where: it was read from.
        name: of the checkpoint in whose folder it stands.
        slot: at which it stands; a record that says it belongs elsewhere is damaged.
    """
    if (record.name, record.slot) != (name, slot):
        raise ManifestError(f"{where}: is the record of {record.name!r} at slot {record.slot}", path=where)
    step = record.step
    if step is not None and not (0 <= step <= MAX_STEP and name.endswith((f"-{step}", f"-{step:08d}"))):
        raise ManifestError(f"{where}: is the record of step {step}", path=where)
    if isinstance(record, CommitRecord):
        if not is_save_id(record.save_id):
            raise ManifestError(f"{where}: {record.save_id[:100]!r} is no save id", path=where)
        _check_listed(record, where)
    if isinstance(record, Summary):
        body = record.body
        # What is deleted with a checkpoint is its save folder.
        if not check_relative(body.path, where).startswith(save_folder(name, record.save_id)):
            raise ManifestError(f"{where}: {body.path} is not in the folder of its save", path=where)
        if not 0 <= body.size <= LARGEST:
            raise ManifestError(f"{where}: {body.path} cannot have {body.size} bytes", path=where)
    elif isinstance(record, Manifest):
        check_files(record.files, where)
        for tensor, entry in check_tensors(record.tensors, record.files, where):
            try:
                check_coverage(tensor, entry)
            except ManifestError as error:
                raise ManifestError(f"{where}: {error}", path=where, tensors=[tensor]) from error
    elif isinstance(record, Deleted):
        for path in record.files:
            check_relative(path, where)


def check_part(part: Part, where: str) -> None:
    """Check a part."""
    check_files(part.files, where)
    check_tensors(part.tensors, part.files, where)


def check_state(state: StateFile, where: str) -> None:
    """Check a state file."""
    for entry in state.entries:
        if "/" in check_relative(entry.name, where) or not 0 <= entry.slot <= LARGEST:
            raise ManifestError(f"{where}: no record can stand at {entry.name!r}, slot {entry.slot}", path=where)
        if entry.step is not None and not 0 <= entry.step <= MAX_STEP:
            raise ManifestError(f"{where}: {entry.name} cannot be step {entry.step}", path=where)
        _check_listed(entry, where)


def _check_listed(record: CommitRecord | Entry, where: str) -> None:
    """Check what manifests and entries of the state file have in common."""
    for field in ("sequence", "total_bytes", "world_size"):
        if not 0 <= getattr(record, field) <= LARGEST:
            raise ManifestError(f"{where}: {field} cannot be {getattr(record, field)}", path=where)
    try:
        check_metadata(record.metadata)
        for value in decode_metrics(record.metrics).values():
            float(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ManifestError(f"{where}: {error}", path=where) from error
