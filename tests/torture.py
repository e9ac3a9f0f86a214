"""What `make torture` runs: all that must not lose a checkpoint, at length. Prints the figures and notes them in the docs.

python tests/torture.py --minutes 30            stop after that long, and fail if it is not through
python tests/torture.py -- -k crash             other arguments for pytest
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

TESTS = Path(__file__).parent
REPORT = TESTS.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
FUZZING_SECONDS = 300
NO_TESTS = 5  # pytest's exit status where nothing was selected


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; returns the exit status."""
    options, rest = _parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended as well
    deadline = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="asyncsaver-torture-") as folder:
        file = Path(folder) / "figures.jsonl"
        file.touch()
        passed = run_tests(options.tests, rest, file, deadline)
        fuzzed = all(run_fuzzing(program, file, deadline) for program in options.fuzzing)
        figures = add_up(file.read_text().splitlines())
    table = table_of(figures)
    sys.stdout.write(f"\n{table}\n")
    if not passed or not fuzzed:
        sys.stdout.write("Something failed; see above. The report stays as it was.\n")
        return 1
    if not figures:
        sys.stdout.write("Nothing was counted.\n")
        return 1
    if options.report.exists():
        options.report.write_text(rewritten(options.report.read_text(), f"{heading()}\n\n{table}"))
        sys.stdout.write(f"{options.report} has these figures now.\n")
    return 0


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], epilog="Other arguments go to pytest."
    )
    parser.add_argument("--minutes", type=float, default=120.0, help="fail if it takes longer than this (120)")
    parser.add_argument("--tests", type=Path, default=TESTS, help="where the tests are")
    parser.add_argument("--report", type=Path, default=REPORT, help="the document to note the figures in")
    parser.add_argument(
        "--fuzzing",
        type=Path,
        nargs="*",
        default=sorted(TESTS.glob("fuzz/atheris_*.py")),
        help="the programs that fuzz with atheris",
    )
    options, rest = parser.parse_known_args(arguments)
    return options, [argument for argument in rest if argument != "--"]


def run_tests(tests: Path, arguments: Sequence[str], figures: Path, deadline: float) -> bool:
    """Run the tests that are marked for this; returns whether all passed in time."""
    workers = [] if any(argument.startswith("-n") for argument in arguments) else ["-n", "2"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(tests),
        "-m",
        "torture",
        "--timeout=3600",
        "-q",
        *workers,
        *arguments,
    ]
    environment = {"ASYNCSAVER_TORTURE": "1", "ASYNCSAVER_FIGURES": str(figures)}
    status = _run(command, environment, deadline)
    if status == NO_TESTS:
        sys.stdout.write(f"No test in {tests} is marked for this.\n")
    return status == 0


def run_fuzzing(program: Path, figures: Path, deadline: float) -> bool:
    """Fuzz with atheris where that is installed, for a few minutes; returns whether nothing was found."""
    if not program.exists():
        return True
    if subprocess.run([sys.executable, "-c", "import atheris"], capture_output=True, check=False).returncode:
        sys.stdout.write("atheris is not installed: the readers were fuzzed with hypothesis only.\n")
        return True
    seconds = int(min(FUZZING_SECONDS, deadline - time.monotonic()))
    if seconds <= 0:
        return True
    command = [sys.executable, "-W", "error", str(program), f"-max_total_time={seconds}"]
    return _run(command, {"ASYNCSAVER_FIGURES": str(figures)}, time.monotonic() + seconds + 120) == 0


def _run(command: Sequence[str], environment: dict[str, str], deadline: float) -> int:
    left = max(deadline - time.monotonic(), 1.0)
    with subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True) as process:
        try:
            return process.wait(left)
        except subprocess.TimeoutExpired:
            sys.stdout.write(f"Not through after {left / 60:.0f} minutes.\n")
            os.killpg(process.pid, 15)  # its workers and servers too
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
            return -1
        except BaseException:
            os.killpg(process.pid, 15)
            raise


def add_up(lines: Sequence[str]) -> dict[str, int]:
    """The sums of counts by name, as the tests' fixture wrote them."""
    sums: Counter[str] = Counter()
    for line in lines:
        count = json.loads(line)
        sums[count["what"]] += count["count"]
    return dict(sorted(sums.items()))


def table_of(figures: dict[str, int]) -> str:
    """The figures as a table in Markdown."""
    return "\n".join(_rows(figures))


def _rows(figures: dict[str, int]) -> Iterator[str]:
    yield "| what | how many | lost or torn |"
    yield "|---|---:|---:|"
    for what, count in figures.items():
        yield f"| {what} | {count:,} | 0 |"


def heading() -> str:
    """When, with what, and where."""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, asyncsaver {version('asyncsaver')}, "
        f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores:"
    )


def rewritten(document: str, figures: str) -> str:
    """The document with these figures between its marks.

    Raises:
        ValueError: it has no marks.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the report has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{figures}\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())
