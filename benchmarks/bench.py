"""Save and restore one state, next to what one would use instead. Prints tables in Markdown.

python benchmarks/bench.py --list
python benchmarks/bench.py --mib 256 --rounds 1 --only s3-slow,disk
python benchmarks/bench.py --peers asyncsaver,obstore
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import report
from charts import draw
from clouds import UnavailableError
from peers.listing import PEERS
from places import Turns, turns
from processes import FailedError, in_a_process
from results import Results
from scenarios import Scenario, scenarios
from targets import Targets
from worker import Job

HERE = Path(__file__).parent
WORKER = HERE / "worker.py"
DOCUMENT = HERE.parent / "docs" / "performance.md"


def main() -> int:
    """Measure and print. Returns the exit status."""
    options = _parse()
    every = scenarios(options.mib)
    chosen = [found for found in every if not options.only or found.name in options.only.split(",")]
    if options.list:
        for found in every:
            print(f"{found.name}: {found.title}\n    {'; '.join(found.peers)}")
        return 0
    if not chosen:
        print(f"--only takes {', '.join(found.name for found in every)}", file=sys.stderr)
        return 2
    results = Results()
    for scenario in chosen:
        peers = _taking_part(scenario, results, options.peers)
        with turns(scenario, options.folder) as turn:
            for number in range(options.rounds):
                # Each round begins with another one: none always follows the same.
                for peer in peers[number % max(1, len(peers)) :] + peers[: number % max(1, len(peers))]:
                    if (scenario.name, peer) not in results.absent:
                        print(f"{scenario.name}, round {number + 1}: {peer}", file=sys.stderr, flush=True)
                        _measure(scenario, peer, turn, results, options.timeout)
    nbytes = every[0].shape.nbytes
    verdicts = list(Targets(results, options.ours, nbytes).verdicts())
    if options.only or options.peers:
        verdicts = [verdict for verdict in verdicts if verdict.met is not None]
    text = report.whole(results, chosen, verdicts, options.ours, options.rounds)
    print(text)
    if options.json:
        targets = [{"what": verdict.what, "found": verdict.found, "verdict": verdict.word} for verdict in verdicts]
        document = {"mib": options.mib, "results": list(results.as_json()), "targets": targets}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(text + "\n")
    if options.write:
        drawn = [f"![{name}]({file})" for name, file in draw(results, chosen, options.write.parent)]
        figures = "\n\n".join([text, *drawn])
        options.write.write_text(report.rewritten(options.write.read_text(), figures))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="size of the state (1024)")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement, interleaved (5)")
    parser.add_argument("--only", help="scenarios, with commas between them")
    parser.add_argument("--peers", help="parts of their names, with commas between them")
    parser.add_argument("--ours", default="asyncsaver", help="the peer that is held to the targets")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk that is measured")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one measurement (600)")
    parser.add_argument("--json", type=Path, help="a file for all samples")
    parser.add_argument("--markdown", type=Path, help="a file for the tables")
    parser.add_argument(
        "--write",
        type=Path,
        nargs="?",
        const=DOCUMENT,
        help="put tables and charts into a document (docs/performance.md)",
    )
    parser.add_argument("--list", action="store_true", help="tell what there is to measure")
    return parser.parse_args()


def _taking_part(scenario: Scenario, results: Results, wanted: str | None) -> list[str]:
    """The peers that are installed and asked for; the others are noted."""
    parts = wanted.split(",") if wanted else [""]
    found = []
    for peer in scenario.peers:
        missing = PEERS[peer].missing()
        if not any(part in peer for part in parts):
            continue
        if missing:
            why = f"skipped, {missing} is not installed (pip install 'asyncsaver[{PEERS[peer].extra}]')"
            results.leave_out(scenario.name, peer, why)
        else:
            found.append(peer)
    return found


def _measure(scenario: Scenario, peer: str, turn: Turns, results: Results, timeout: float) -> None:
    """One round of one peer: a process that saves, others that restore, and nothing left of it."""
    try:
        with turn() as place:
            for what in scenario.whats:
                job = Job(peer, what, place, scenario.shape, scenario.rehearsals)
                results.add(scenario.name, peer, what, in_a_process(WORKER, job.as_json(), timeout=timeout))
    except (UnavailableError, FailedError) as error:
        results.leave_out(scenario.name, peer, str(error))


if __name__ == "__main__":
    sys.exit(main())
