from __future__ import annotations

import json

import pytest

from growth import Figure, table
from report import rewritten
from results import Results


def test_medians_are_over_the_rounds_of_one_series() -> None:
    results = Results()
    for seconds in (1.0, 9.0, 2.0):
        results.add("disk", "a", "save", {"seconds": seconds})
    results.add("disk", "a", "restore", {"seconds": 100.0})
    results.add("disk", "b", "save", {"seconds": 100.0})
    assert results.median("disk", "a", "save", "seconds") == 2.0
    assert results.last("disk", "a", "save") == {"seconds": 2.0}
    assert results.median("s3", "a", "save", "seconds") is None
    assert results.peers("disk") == ["a", "b"]
    assert results.whats("disk") == ["save", "restore"]


def test_who_fails_once_is_not_compared_at_all() -> None:
    results = Results()
    results.add("disk", "a", "save", {"seconds": 1.0})
    results.add("s3", "a", "save", {"seconds": 3.0})
    results.leave_out("disk", "a", "restore failed")
    assert results.median("disk", "a", "save", "seconds") is None
    assert results.median("s3", "a", "save", "seconds") == 3.0
    assert json.loads(json.dumps(list(results.as_json())))[-1] == {
        "scenario": "disk",
        "peer": "a",
        "absent": "restore failed",
    }


def test_the_table_of_growth_tells_medians_for_each_thing() -> None:
    def rounds(*seconds: float) -> list[dict[str, float]]:
        return [{"seconds": one, "cpu": 1.5, "stall": 0.002, "memory": 2**20} for one in seconds]

    figures = [
        Figure(("disk", "10"), (10,), rounds(0.1, 0.5, 0.2)),
        Figure(("memory", "10"), (10,), why="failed"),
        Figure(("disk", "100"), (100,), rounds(2.0)),
    ]
    lines = list(table(("where", "count"), ("thing",), figures))
    assert lines[2:] == [
        "| disk | 10 | 0.2000 | 1.50 | 20,000.0 | 2.0 | 1.0 | 104,858 |",
        "| disk | 100 | 2.00 | 1.50 | 20,000.0 | 2.0 | 1.0 | 10,486 |",
        "| memory | 10 | failed |  |  |  |  |  |",
    ]
    assert {line.count("|") for line in lines} == {9}


def test_a_document_keeps_all_but_what_is_between_the_marks() -> None:
    document = "a\n<!-- figures -->\nold\n<!-- /figures -->\nb\n<!-- scale -->\n<!-- /scale -->\nc\n"
    changed = rewritten(document, "new", mark="scale")
    assert changed == document.replace("<!-- scale -->\n", "<!-- scale -->\nnew\n")
    assert "old" not in rewritten(changed, "newer")
    with pytest.raises(ValueError, match="other"):
        rewritten(document, "new", mark="other")
