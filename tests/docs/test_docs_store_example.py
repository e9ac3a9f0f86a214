"""The store in backends/README.md does what the contract says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).resolve().parents[2] / "backends" / "README.md"


def _run_document() -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": __name__}
    for block in DOCUMENT.read_text(encoding="utf-8").split("```python\n")[1:]:
        exec(compile(block.partition("```")[0], str(DOCUMENT), "exec", dont_inherit=True), namespace)
    return namespace


_example = _run_document()


class TestDictStore(_example["TestDictStore"]):
    """Collected here, with the class and the fixture from the document."""
