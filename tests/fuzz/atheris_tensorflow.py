"""Coverage-guided fuzzing of everything that parses TensorFlow's files, for as long as libFuzzer is told.

    python tests/fuzz/atheris_tensorflow.py -max_total_time=60

Needs `atheris`. Entries of tables are put together anew, with checksums that fit, after each mutation.
"""

from __future__ import annotations

import atheris

with atheris.instrument_imports(include=["asyncsaver"]):
    import tables

    from asyncsaver.errors import CheckpointCorruptError

from guided import Target, figures_file, fuzz


def main() -> None:
    """Fuzz."""
    kinds = list(tables.USES)
    corpus = {
        f"{kind}-{number}": bytes([kinds.index(kind)]) + data
        for number, (kind, data) in enumerate(tables.whole_documents())
    }
    target = Target(
        list(tables.USES.values()),
        (CheckpointCorruptError,),
        "hostile documents read, TensorFlow's formats, guided by coverage",
        figures_file(),
    )
    fuzz("tensorflow", target, corpus)


if __name__ == "__main__":
    main()
