"""Coverage-guided fuzzing of everything that parses documents from storage, for as long as libFuzzer is told.

    python tests/fuzz/atheris_native.py -max_total_time=60

Needs `atheris`. The checksum is put right after each mutation: it would stop every document at the door.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import atheris

with atheris.instrument_imports(include=["asyncsaver"]):
    from asyncsaver.errors import ManifestError, RanksMissingError
    from asyncsaver.formats.native import seal

HERE = Path(__file__).parent
PER_RUN = "-timeout=10", "-rss_limit_mb=2048", "-max_len=16384", "-verbosity=0"
COUNTED_AT_ONCE = 1000


def load_documents() -> ModuleType:
    """The module beside this one; test folders are no packages."""
    spec = importlib.util.spec_from_file_location("documents", HERE / "documents.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with atheris.instrument_imports(include=["asyncsaver"]):
        spec.loader.exec_module(module)
    return module


class Target:
    """Reads one input as each kind of document in turn.

    Args:
        uses: by kind, what is done with a document.
        figures: file to count in; None to forget the count.
    """

    def __init__(self, uses: dict[str, Callable[[bytes], None]], figures: str | None) -> None:
        self._uses = list(dict.fromkeys(uses.values()))
        self._figures = figures
        self._runs = 0

    def __call__(self, data: bytes) -> None:
        """The first byte says as which kind of document the rest is read; raises what no reader may raise."""
        if data:
            with contextlib.suppress(ManifestError, RanksMissingError):
                self._uses[data[0] % len(self._uses)](seal(data[1:]))
        self._runs += 1
        if self._runs == COUNTED_AT_ONCE:
            self._count()

    def _count(self) -> None:
        # libFuzzer ends the process past everything that Python would do at its end.
        if self._figures is not None:
            with Path(self._figures).open("a") as file:
                file.write(
                    json.dumps({"what": "hostile documents read, guided by coverage", "count": self._runs}) + "\n"
                )
        self._runs = 0

    def corpus(self, documents: ModuleType, folder: Path) -> None:
        """Write whole documents, to start from."""
        for kind, use in documents.USES.items():
            data = bytes([self._uses.index(use)]) + json.dumps(documents.DOCUMENTS[kind]).encode()
            (folder / kind).write_bytes(data)


def mutator(spoil: Callable[..., object]) -> Callable[[bytes, int, int], bytes]:
    """Changes documents as documents, every other time; as bytes they would mostly stop being JSON."""

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        choose = random.Random(seed)
        if choose.random() < 0.5:
            with contextlib.suppress(ValueError, RecursionError):
                return data[:1] + json.dumps(spoil(json.loads(data[1:]), choose)).encode()[: max_size - 1]
        mutated: bytes = atheris.Mutate(data, max_size)
        return mutated

    return mutate


def main() -> None:
    """Fuzz; ends the process with a status that tells whether something was found."""
    documents = load_documents()
    target = Target(documents.USES, os.environ.get("ASYNCSAVER_FIGURES"))
    # Kept: libFuzzer adds what it has found worth keeping, and the next run begins there.
    folder = Path(tempfile.gettempdir()) / "asyncsaver-fuzz"
    folder.mkdir(exist_ok=True)
    target.corpus(documents, folder)
    arguments = [*sys.argv, *PER_RUN, f"-artifact_prefix={folder}-", str(folder)]
    atheris.Setup(arguments, target, custom_mutator=mutator(documents.spoil))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
