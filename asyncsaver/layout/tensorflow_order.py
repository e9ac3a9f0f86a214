"""Which of our checkpoints and of those that others have listed is newer. Pure; no times are compared."""

from __future__ import annotations

from collections.abc import Sequence


def merge_order(own: Sequence[str], listed: Sequence[str], *, fresh: bool) -> list[str]:
    """All checkpoints, oldest first.

    A save of ours appends to the list; others append, too, or make a list of their own. So those that follow our newest one there
    were saved later, and all other ones earlier. Our newest may be missing in the list: it was saved last if nobody has
    written the list since that save began; else the list was made anew without it.

    Args:
        own: names of ours, oldest first.
        listed: names in the text file, oldest first, of ours and of others.
        fresh: nobody has written the list since our newest save began.
    """
    mine = set(own)
    if not own:
        return list(listed)
    if own[-1] in listed:
        after = listed.index(own[-1]) + 1
    elif fresh:
        after = len(listed)
    else:
        after = max([position + 1 for position, name in enumerate(listed) if name in mine], default=0)
    earlier = [name for name in listed[:after] if name not in mine]
    later = [name for name in listed[after:] if name not in mine]
    return [*earlier, *own, *later]
