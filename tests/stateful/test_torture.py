"""`make torture` itself: it adds up, rewrites the report, and fails when something failed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from ..torture import BEGIN, END, add_up, rewritten, table_of  # noqa: TID252 - test folders have no name

PROGRAM = Path(__file__).parents[1] / "torture.py"
TEST = """
import json, os, pytest

@pytest.mark.torture
def test_it():
    assert os.environ["ASYNCSAVER_TORTURE"]
    with open(os.environ["ASYNCSAVER_FIGURES"], "a") as file:
        file.write(json.dumps({"what": "bytes flipped", "count": 1234}) + "\\n")
    assert BODY

def test_of_another_kind():
    assert False
"""
REPORT = f"before\n{BEGIN}\nold\n{END}\nafter\n"


def report_of(folder: Path) -> Path:
    return folder / "report.md"


async def start(folder: Path, body: str, arguments: Sequence[str] = ()) -> asyncio.subprocess.Process:
    tests = folder / "tests"
    tests.mkdir()
    (tests / "test_it.py").write_text(TEST.replace("BODY", body))
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = torture: here\n")
    report = report_of(folder)
    report.write_text(REPORT)
    command = [str(PROGRAM), "--tests", str(tests), "--report", str(report), "--fuzzing", str(folder / "none")]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        *arguments,
        "-n0",
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def torture(folder: Path, body: str, arguments: Sequence[str] = ()) -> tuple[int | None, str, str]:
    process = await start(folder, body, arguments)
    output, _ = await process.communicate()
    return process.returncode, output.decode(), report_of(folder).read_text()


async def test_it_runs_the_marked_tests_and_notes_the_figures(tmp_path: Path) -> None:
    status, output, report = await torture(tmp_path, "True")
    assert status == 0, output
    assert "| bytes flipped | 1,234 | 0 |" in output
    assert report.startswith(f"before\n{BEGIN}\n")
    assert "| bytes flipped | 1,234 | 0 |" in report
    assert "asyncsaver 0." in report
    assert report.endswith(f"{END}\nafter\n")
    assert "old" not in report


@pytest.mark.parametrize(
    ("body", "arguments", "says"),
    [
        ("False", (), "1 failed"),
        ("True", ("-k", "nothing_of_that_name"), "No test in"),
        ("__import__('threading').Event().wait()", ("--minutes", "0.05"), "Not through after"),
    ],
)
async def test_it_fails_when_something_failed(tmp_path: Path, body: str, arguments: Sequence[str], says: str) -> None:
    status, output, report = await torture(tmp_path, body, arguments)
    assert status == 1
    assert says in output
    assert report == REPORT


async def test_ended_from_outside_it_ends_what_it_has_started(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = await start(tmp_path, f"[open({str(fifo)!r}, 'w').write(str(os.getpid())), __import__('signal').pause()]")
    worker = int(await asyncio.to_thread(fifo.read_text))
    process.terminate()
    output, _ = await process.communicate()
    assert process.returncode == 1, output
    assert not psutil.pid_exists(worker)
    assert report_of(tmp_path).read_text() == REPORT


def test_figures_are_added_up_by_name() -> None:
    lines = ['{"what": "b", "count": 2}', '{"what": "a", "count": 1}', '{"what": "b", "count": 3}']
    assert add_up(lines) == {"a": 1, "b": 5}
    assert table_of({"a": 1}).splitlines()[-1] == "| a | 1 | 0 |"


def test_a_report_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="has no <!-- figures -->"):
        rewritten("nothing", "table")
