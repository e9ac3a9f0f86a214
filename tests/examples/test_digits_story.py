"""What `make demo` runs, from the outside."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from digits.process import SCRIPT
from digits.report import summarise
from digits.watch import Kill, Killed, Run

LOSSES = {1: "0x1p+0", 2: "0x1p-1", 3: "0x1p-2"}


async def run_script(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPT), *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode()


@pytest.mark.parametrize("place", ["local disk", pytest.param("own S3 server", marks=pytest.mark.server)])
async def test_the_story_holds(place: str, tmp_path: Path) -> None:
    url = ["--url", str(tmp_path)] if place == "local disk" else []
    code, output = await run_script("--steps", "60", "--save-every", "10", *url)
    assert code == 0, output
    assert "Killed while saving step" in output
    assert "ok final weights and moments are the same bits" in output
    assert "gone: it was never finished" in output


@pytest.mark.parametrize(
    "arguments",
    [["--train-only"], ["--kill-at", "1000"], ["--steps", "0"], ["--save-every", "300"]],
    ids=["no url", "kill after the end", "no steps", "no checkpoint before the kill"],
)
async def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    code, output = await run_script(*arguments)
    assert (code, "error:" in output) == (2, True)


@pytest.mark.parametrize(
    ("resumed", "verdict"),
    [
        (Run(2, {3: LOSSES[3]}, "weights", 0), True),
        (Run(1, {2: LOSSES[2], 3: LOSSES[3]}, "weights", 0), False),
        (Run(2, {3: "0x1.8p-2"}, "weights", 0), False),
        (Run(2, {}, "weights", 0), False),
        (Run(2, {3: LOSSES[3]}, "other weights", 0), False),
        (Run(2, {3: LOSSES[3]}, "weights", 1), False),
    ],
    ids=["same", "older checkpoint", "other loss", "step left out", "other weights", "failed"],
)
def test_only_the_same_bits_are_good_enough(resumed: Run, verdict: bool) -> None:
    reference = Run(0, dict(LOSSES), "weights", 0)
    killed = Killed(Kill(3, 10, 20), [(1, LOSSES[1]), (2, LOSSES[2])], 2)
    assert summarise(Console(file=io.StringIO()), reference, killed, resumed) is verdict
