"""The table of TensorFlow's behaviours: one row for each number, and in each the tests that there are.

python tests/tensorflow/test_items.py           write the names of new tests into the table, and take those away that are gone
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "tensorflow-items.md"
ROW = re.compile(r"^\| (\d+) \| (.+) \| ?(.*?) ?\|$", re.MULTILINE)
NUMBERED = re.compile(r"test_items?((?:_(?:and_|to_)?\d{3})+)(?=_|$)")
LAST = 137
NOTHING = "*not a behaviour of its own*"


def numbers(name: str) -> set[int]:
    """The numbers that a test names: ``test_items_001_and_003_to_005_so`` → 1, 3, 4, 5."""
    found = NUMBERED.match(name)
    if found is None:
        return set()
    listed = [int(one) for one in re.findall(r"\d{3}", found[1])]
    ranges = re.findall(r"(\d{3})_to_(\d{3})", found[1])
    return {*listed, *(number for first, last in ranges for number in range(int(first), int(last) + 1))}


def shown_as(name: str) -> str:
    """How the table calls a test: by its numbers, where it has some."""
    found = NUMBERED.match(name)
    return name if found is None else f"{found[0]}_…"


def all_names() -> Iterator[str]:
    """The names of all tests."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield node.name


def renewed(document: str, names: set[str]) -> str:
    """The document with the tests of these names in its rows: those with the number, and others that stand there already."""
    shown = {shown_as(name) for name in names}

    def row(found: re.Match[str]) -> str:
        number, behaviour, cell = int(found[1]), found[2], found[3]
        if behaviour == NOTHING:
            return f"| {number} | {behaviour} | |"
        here = {shown_as(name) for name in names if number in numbers(name)}
        here |= {name for name in re.findall(r"`([^`]+)`", cell) if name in shown}
        return f"| {number} | {behaviour} | {', '.join(f'`{name}`' for name in sorted(here))} |"

    return ROW.sub(row, document)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("test_item_007_so", {7}),
        ("test_items_031_and_032_so", {31, 32}),
        ("test_items_074_to_077_so", {74, 75, 76, 77}),
        ("test_items_001_003_to_005_and_009", {1, 3, 4, 5, 9}),
        ("test_item_7_so", set()),
        ("test_itemised_007", set()),
    ],
)
def test_numbers_in_names(name: str, named: set[int]) -> None:
    assert numbers(name) == named


def test_renewing() -> None:
    rows = f"| 7 | it is | `test_item_007_…`, `test_gone`, `test_there` |\n| 8 | so it is |  |\n| 9 | {NOTHING} | |\n"
    names = {"test_there", "test_items_007_to_009_so", "test_other"}
    tests = "`test_items_007_to_009_…`"
    assert renewed(f"before\n{rows}", names) == (
        f"before\n| 7 | it is | {tests}, `test_there` |\n| 8 | so it is | {tests} |\n| 9 | {NOTHING} | |\n"
    )


def test_every_number_has_a_row_with_the_tests_that_there_are() -> None:
    document = TABLE.read_text(encoding="utf-8")
    rows = ROW.findall(document)
    assert [int(number) for number, _, _ in rows] == list(range(1, LAST + 1))
    assert renewed(document, set(all_names())) == document, (
        f"python {Path(__file__).relative_to(ROOT)} writes what is new"
    )
    assert [number for number, behaviour, tests in rows if behaviour != NOTHING and not tests] == []


def test_every_name_with_a_number_can_be_read() -> None:
    """Names such as ``test_item_7_…`` would not be found by anybody who looks for 007."""
    assert [name for name in all_names() if re.match(r"test_items?_\d", name) and not numbers(name)] == []


if __name__ == "__main__":
    TABLE.write_text(renewed(TABLE.read_text(encoding="utf-8"), set(all_names())), encoding="utf-8")
