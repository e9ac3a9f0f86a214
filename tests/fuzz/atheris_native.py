"""Coverage-guided fuzzing of everything that parses our own documents from storage, for as long as libFuzzer is told.

    python tests/fuzz/atheris_native.py -max_total_time=60

Needs `atheris`. The checksum is put right after each mutation: it would stop every document at the door.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["asyncsaver"]):
    import documents

    from asyncsaver.errors import ManifestError, RanksMissingError
    from asyncsaver.formats.native import seal

from guided import Mutator, Target, Use, figures_file, fuzz

USES = list(dict.fromkeys(documents.USES.values()))


def sealed(use: Use) -> Use:
    """The same, of a document whose checksum fits."""
    return lambda data: use(seal(data))


def mutator(spoil: Callable[..., object]) -> Mutator:
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
    """Fuzz."""
    corpus = {
        kind: bytes([USES.index(use)]) + json.dumps(documents.DOCUMENTS[kind]).encode()
        for kind, use in documents.USES.items()
    }
    target = Target(
        [sealed(use) for use in USES],
        (ManifestError, RanksMissingError),
        "hostile documents read, guided by coverage",
        figures_file(),
    )
    fuzz("native", target, corpus, mutator(documents.spoil))


if __name__ == "__main__":
    main()
