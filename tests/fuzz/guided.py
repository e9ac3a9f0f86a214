"""What the programs share that fuzz with atheris: reading one input as one of many kinds, counting, and libFuzzer's arguments."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import atheris

PER_RUN = "-timeout=10", "-rss_limit_mb=2048", "-max_len=16384", "-verbosity=0"
COUNTED_AT_ONCE = 1000
Use = Callable[[bytes], None]
Mutator = Callable[[bytes, int, int], bytes]


class Target:
    """Reads one input as the kind of document that its first byte names; raises what no reader may raise.

    Args:
        uses: what is done with a document of each kind.
        allowed: the errors that readers raise of documents that are wrong.
        what: the name to count under.
        figures: file to count in; None to forget the count.
    """

    def __init__(
        self, uses: Sequence[Use], allowed: tuple[type[Exception], ...], what: str, figures: str | None
    ) -> None:
        self._uses = uses
        self._allowed = allowed
        self._what = what
        self._figures = figures
        self._runs = 0

    def __call__(self, data: bytes) -> None:
        if data:
            with contextlib.suppress(self._allowed):
                self._uses[data[0] % len(self._uses)](data[1:])
        self._runs += 1
        if self._runs == COUNTED_AT_ONCE:
            self._count()

    def _count(self) -> None:
        # libFuzzer ends the process past everything that Python would do at its end.
        if self._figures is not None:
            with Path(self._figures).open("a") as file:
                file.write(json.dumps({"what": self._what, "count": self._runs}) + "\n")
        self._runs = 0


def fuzz(name: str, target: Target, corpus: Mapping[str, bytes], mutator: Mutator | None = None) -> None:
    """Fuzz, or run the inputs named on the command line; ends the process with a status that tells whether something was found.

    Args:
        name: of the folder in which libFuzzer keeps what it has found worth keeping; the next run begins there.
        target: what is fuzzed.
        corpus: inputs to start from, by file name.
        mutator: changes an input; None for libFuzzer's own ways.
    """
    folder = Path(tempfile.gettempdir()) / f"asyncsaver-fuzz-{name}"
    folder.mkdir(exist_ok=True)
    arguments = [*sys.argv, *PER_RUN, f"-artifact_prefix={folder}-"]
    if all(argument.startswith("-") for argument in sys.argv[1:]):
        for file, data in corpus.items():
            (folder / file).write_bytes(data)
        arguments.append(str(folder))
    if mutator is None:
        atheris.Setup(arguments, target)
    else:
        atheris.Setup(arguments, target, custom_mutator=mutator)
    atheris.Fuzz()


def figures_file() -> str | None:
    """Where `make torture` wants the counts."""
    return os.environ.get("ASYNCSAVER_FIGURES")
