"""What a state file is to say when several savers write into it. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from itertools import zip_longest

from asyncsaver.formats.tensorflow.state_text import State


def merge_states(found: State, wanted: State, dropped: Collection[str], identity: Callable[[str], str]) -> State:
    """Keep what another saver has put into the state file.

    Args:
        found: what the file says.
        wanted: what this saver would have it say.
        dropped: paths that this saver had put there and wants there no more.
        identity: the same for all ways to write one path.

    Returns:
        ``wanted``, preceded by what others have put there. The times go where not all of both sides have one, since the file has
        one for each path or none.
    """
    mine = {identity(path) for path in (*wanted.paths, *dropped)}
    timed = len(found.timestamps) == len(found.paths)
    pairs = zip_longest(found.paths, found.timestamps if timed else (), fillvalue=0.0)
    others = [(str(path), float(time)) for path, time in pairs if identity(str(path)) not in mine]
    if not others:
        return wanted
    keep_times = timed and len(wanted.timestamps) == len(wanted.paths)
    return dataclasses.replace(
        wanted,
        paths=(*(path for path, _ in others), *wanted.paths),
        timestamps=(*(time for _, time in others), *wanted.timestamps) if keep_times else (),
        last_preserved=wanted.last_preserved or found.last_preserved,
    )
