"""How the cost grows with the number of tensors, of ranks and of checkpoints. Prints tables in Markdown.

python benchmarks/scale.py --tensors 1000 10000 --ranks 1 16 --checkpoints 100
python benchmarks/scale.py --only tensors
python benchmarks/scale.py --write
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import report
import scale_checkpoints
import scale_manifests
import scale_parts
from growth import Figure, table
from peers.contract import Place
from peers.listing import PEERS
from places import on_disk
from processes import FailedError, in_a_process
from states import Shape
from worker import Job

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "performance.md"
TENSOR_BYTES = 64
TENSORS_PER_RANK = 1_000
SAVERS = (
    ("memory", "asyncsaver"),
    ("disk", "asyncsaver"),
    ("disk", "safetensors + fsync"),
    ("disk", "torch.save + fsync"),
)
WHATS: tuple[Literal["save", "restore"], ...] = ("save", "restore")
Samples = dict[str, Any]
"""What was measured → the fields of `measure.Sample`."""


def main() -> int:
    """Measure and print. Returns the exit status."""
    options = _parse()
    pieces = [report.heading(options.rounds)]
    sections = (("tensors", tensors), ("manifests", manifests), ("ranks", ranks), ("checkpoints", checkpoints))
    for name, measure in sections:
        if not options.only or name in options.only.split(","):
            pieces += measure(options)
    text = "\n".join(pieces)
    print(text)
    if options.write:
        options.write.write_text(report.rewritten(options.write.read_text(), text, mark="scale"))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tensors", type=int, nargs="*", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 16, 128, 1_024])
    parser.add_argument("--checkpoints", type=int, nargs="*", default=[100, 1_000, 10_000])
    parser.add_argument("--only", help="tensors, manifests, ranks or checkpoints, with commas between them")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement (3)")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk that is measured")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one measurement (1800)")
    parser.add_argument(
        "--write", type=Path, nargs="?", const=DOCUMENT, help="put the tables into a document (docs/performance.md)"
    )
    return parser.parse_args()


def tensors(options: argparse.Namespace) -> Iterator[str]:
    """States of many small tensors."""
    figures = []
    for count in options.tensors:
        for where, who in SAVERS:
            if missing := PEERS[who].missing():
                _say(f"{who}: skipped, {missing} is not installed")
                continue
            _say(f"{count:,} tensors, {where}: {who}")

            def turn(place: Place, count: int = count, who: str = who) -> Samples:
                jobs = {what: Job(who, what, place, Shape(count, TENSOR_BYTES)) for what in WHATS}
                return {what: _run(options, "worker.py", job.as_json()) for what, job in jobs.items()}

            rounds, why = _rounds(options, where, turn)
            for what in WHATS:
                labels = (where, who, what, f"{count:,}")
                figures.append(Figure(labels, (count,), [found[what] for found in rounds], why))
    yield from ("", f"### Tensors of {TENSOR_BYTES} bytes, saved and restored", "")
    yield from table(("where", "who", "what", "tensors"), ("tensor",), figures)


def manifests(options: argparse.Namespace) -> Iterator[str]:
    """Manifests of many tensors and state files of many checkpoints, in both encodings."""
    counts = {"manifest": options.tensors, "state file": options.checkpoints}
    for document, kind in scale_manifests.DOCUMENTS.items():
        figures = []
        for count in counts[document]:
            _say(f"{document} of {count:,} {kind}s in JSON and in protobuf")

            def turn(_: Place, count: int = count, document: str = document) -> Samples:
                return _run(options, "scale_manifests.py", scale_manifests.Job(document, count).as_json())

            rounds, why = _rounds(options, "memory", turn)
            for what in scale_manifests.STEPS:
                size = f"{rounds[0][what]['bytes'] / count:.0f}" if rounds else ""
                figures.append(Figure((what, f"{count:,}", size), (count,), [found[what] for found in rounds], why))
        figures.sort(key=lambda figure: scale_manifests.STEPS.index(figure.labels[0]))
        yield from ("", f"### The {document} of many {kind}s, in JSON and in protobuf", "")
        yield from table(("what", f"{kind}s", f"bytes a {kind}"), (kind,), figures)


def ranks(options: argparse.Namespace) -> Iterator[str]:
    """The parts of many ranks."""
    figures = []
    for count in options.ranks:
        for sliced in (False, True):
            _say(f"parts of {count:,} ranks{', sliced' if sliced else ''}")

            def turn(_: Place, count: int = count, sliced: bool = sliced) -> Samples:
                return _run(options, "scale_parts.py", scale_parts.Job(count, TENSORS_PER_RANK, sliced).as_json())

            rounds, why = _rounds(options, "memory", turn)
            for step in ("encode", "decode", "merge"):
                labels = ("slices of the same" if sliced else "each its own", step, f"{count:,}")
                items = (count * TENSORS_PER_RANK, count)
                figures.append(Figure(labels, items, [found[step] for found in rounds], why))
    yield from ("", f"### Parts of many ranks, {TENSORS_PER_RANK:,} tensors in each, written, read and merged", "")
    yield from table(("tensors", "what", "ranks"), ("tensor", "part"), figures)


def checkpoints(options: argparse.Namespace) -> Iterator[str]:
    """Roots with many checkpoints."""
    figures = []
    for where in ("memory", "disk"):
        for count in options.checkpoints:
            _say(f"{count:,} checkpoints, {where}")

            def turn(place: Place, count: int = count) -> Samples:
                return _run(options, "scale_checkpoints.py", scale_checkpoints.Job(place, count).as_json())

            rounds, why = _rounds(options, where, turn)
            for what in scale_checkpoints.CALLS:
                items = count // 2 if what == scale_checkpoints.PRUNE else count
                figures.append(Figure((where, what, f"{count:,}"), (items,), [found[what] for found in rounds], why))
    yield from ("", "### Checkpoints under one root", "")
    yield from table(("where", "what", "checkpoints"), ("checkpoint",), figures)


def _rounds(options: argparse.Namespace, where: str, turn: Callable[[Place], Samples]) -> tuple[Sequence[Samples], str]:
    """What each round gave, or why there is nothing."""
    rounds = []
    try:
        for _ in range(options.rounds):
            with on_disk(options.folder) if where == "disk" else nullcontext(Place("memory")) as place:
                rounds.append(turn(place))
    except FailedError as error:
        return (), str(error)
    return rounds, ""


def _run(options: argparse.Namespace, script: str, job: str) -> dict[str, Any]:
    return in_a_process(HERE / script, job, timeout=options.timeout)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
