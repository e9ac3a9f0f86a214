"""A folder that another library wrote: what is in it, and what its name says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from asyncsaver.model.names import check_relative
from asyncsaver.store.contract import Store

_STEP = re.compile(r"(?:^|[^0-9])([0-9]{1,18})$")


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder below a store's root, or the root itself.

    Attributes:
        url: of the folder, for messages.
        prefix: of the paths in it: "", or its path with a slash at the end.
        sizes: of the files in it, in bytes, by their paths relative to it.
    """

    url: str
    prefix: str
    sizes: Mapping[str, int]

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.url.rstrip("/").rpartition("/")[2]

    @property
    def step(self) -> int | None:
        """The number that its name ends in, as in ``checkpoint-500`` and ``step_500``."""
        return step_of(self.name)

    def path(self, relative: str, where: str) -> str:
        """The path in the store of a file in the folder.

        Args:
            relative: as the document ``where`` has it.
            where: for messages.

        Raises:
            ManifestError: it leads out of the folder.
        """
        return self.prefix + check_relative(relative, where)


async def list_folder(store: Store, path: str, *, deep: bool) -> Folder:
    """List a folder.

    Args:
        store: where it is.
        path: of the folder, relative to the store's root; "" for the root.
        deep: whether files in folders below it count.
    """
    prefix = f"{path.strip('/')}/" if path.strip("/") else ""
    listing = await store.list(prefix, delimiter=not deep)
    url = f"{store.url.rstrip('/')}/{prefix}".rstrip("/")
    return Folder(url, prefix, {found.path[len(prefix) :]: found.size for found in listing.objects})


def step_of(name: str) -> int | None:
    """The number that a name ends in; None where it ends in none."""
    match = _STEP.search(name)
    return int(match[1]) if match else None
