"""Creating a file exclusively, and knowing afterwards whose it is, whatever the store answers."""

from __future__ import annotations

from asyncsaver.catalog.root import Root
from asyncsaver.errors import ObjectNotFoundError, StoreError
from asyncsaver.store.contract import Blob


async def create_own(root: Root, path: str, data: bytes) -> bool:
    """Create a file; False where somebody else's is there.

    Args:
        root: where to.
        path: of the file.
        data: like nobody else's: what stands there afterwards tells whose it is.

    Raises:
        StoreError: the store failed. The file may be there all the same.
    """
    if not root.store.capabilities.exclusive_create:
        await root.store.put(path, data)
        return True
    tries = root.retries.begin(f"create {path}")
    while True:
        try:
            await root.store.put(path, data, mode="create")
        except StoreError as error:
            # Ours may be there: the reply to this try may be lost, or that to an earlier one.
            there = await read_if_there(root, path)
            if there is not None:
                return there.data == data
            if not await tries.another(error):
                raise
        else:
            return True


async def read_if_there(root: Root, path: str) -> Blob | None:
    """What stands at a path; None where nothing does."""
    try:
        return await root.store.get(path)
    except ObjectNotFoundError:
        return None
