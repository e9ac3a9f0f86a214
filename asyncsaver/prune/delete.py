"""Deleting, pinning and unpinning by hand."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from asyncsaver.catalog.root import Root
from asyncsaver.errors import StoreError
from asyncsaver.model.manifest import CommitRecord, Deleted
from asyncsaver.model.names import PINNED_MARKER
from asyncsaver.model.statefile import StateFile, entry_of
from asyncsaver.prune.prune import Changes, delete_entries
from asyncsaver.prune.retire import remove_markers, retire_damaged


async def delete_checkpoint(root: Root, names: Sequence[str], *, writer: str) -> bool:
    """Delete what is committed under these names, replaced ones and unreadable manifests included, pinned or not.

    Returns:
        Whether there was anything to delete.

    Raises:
        StoreError: something could not be deleted; readers do not see it any more if its tombstone stands.
    """
    changes = Changes()
    deleted = False
    for name in names:
        found = await root.reader.folder(name)
        changes.seen = {name: found}
        committed = any(isinstance(one.record, CommitRecord) for one in found.records.values())
        deleted = deleted or committed
        # Also what an interrupted prune has left of replaced ones: who deletes by hand wants all of it to be gone.
        entries = [
            entry_of(one.record, one.etag)
            for one in found.records.values()
            if isinstance(one.record, CommitRecord)
            or (isinstance(one.record, Deleted) and one.record.save_id in found.folder.saves)
        ]
        await delete_entries(root, entries, changes, writer=writer)
        if changes.errors:
            break
        # Last: until then they hide what they may have replaced.
        for slot in found.damaged:
            await retire_damaged(root, name, slot, found.folder.step, writer=writer)
            deleted = True
        if committed or found.damaged:
            try:
                await remove_markers(root, name)
            except StoreError as error:
                changes.errors[name] = error
                break
    if deleted or changes.entries:

        def change(state: StateFile) -> StateFile:
            return state.with_entries(changes.entries.values(), without=changes.gone)

        await root.update_state(change)
    for problem in changes.errors.values():
        raise problem
    return deleted


async def set_pin(root: Root, manifest: CommitRecord, *, pinned: bool) -> None:
    """Put a mark beside a checkpoint that keeps retention from deleting it, or take it away."""
    path = f"{manifest.name}/{PINNED_MARKER}"
    if pinned:
        await root.store.put(path, b"{}")
    else:
        for error in (await root.store.delete([path])).values():
            raise error

    def change(state: StateFile) -> StateFile:
        return state.with_entries(
            msgspec.structs.replace(entry, pinned=pinned) for entry in state.entries if entry.name == manifest.name
        )

    await root.update_state(change)
