"""Selections: which leaves of a checkpoint are wanted, by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import translate
from itertools import islice

from asyncsaver.errors import StructureMismatchError

Select = str | Sequence[str] | Callable[[str], bool]
"""A pattern, several of them, or a function that is given a name."""

_MAGIC = re.compile(r"[*?\[]")


def selector(select: Select | None, names: Sequence[str]) -> Callable[[str], bool]:
    """What decides whether a name is wanted.

    A pattern is one of `fnmatch.fnmatchcase`, whose ``*`` matches dots as well, and stands for everything below what
    it matches too: ``model`` and ``model.*`` both select ``model.weight``.

    Args:
        select: what the caller gave; None selects everything.
        names: of all leaves and all empty containers of the checkpoint.

    Raises:
        StructureMismatchError: a pattern matches none of the names, or a function chose none of them.
        TypeError: neither patterns nor a function.
    """
    if select is None:
        return _everything
    if callable(select):
        if not any(map(select, names)):
            raise StructureMismatchError(f"the select function chose none of the {_examples(names)}")
        return select
    patterns = [select] if isinstance(select, str) else list(select) if isinstance(select, Iterable) else [select]
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError("select must be a pattern, a sequence of patterns, or a function of a name")
    literal = {pattern for pattern in patterns if not _MAGIC.search(pattern)}
    globs = {pattern: _compiled(pattern) for pattern in patterns if pattern not in literal}
    known = {above for name in names for above in _with_parents(name)} if literal else set()
    unmatched = [
        pattern
        for pattern in patterns
        if (pattern not in known if pattern in literal else not any(map(globs[pattern].match, names)))
    ]
    if unmatched or not patterns:
        shown = ", ".join(map(repr, unmatched)) if unmatched else "an empty list of patterns"
        raise StructureMismatchError(f"{shown} selects none of the {_examples(names)}")

    def selected(name: str) -> bool:
        if literal and not literal.isdisjoint(_with_parents(name)):
            return True
        return any(glob.match(name) for glob in globs.values())

    return selected


def _everything(name: str) -> bool:
    del name
    return True


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(f"{translate(pattern)}|{translate(pattern + '.*')}")


def _with_parents(name: str) -> Iterator[str]:
    """``a.b.c``, ``a.b`` and ``a``."""
    yield name
    while (dot := name.rfind(".")) >= 0:
        name = name[:dot]
        yield name


def _examples(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > 5 else ""
    return f"{len(names)} names in the checkpoint ({', '.join(islice(names, 5))}{more})"
