"""Every Python block of the documentation runs, in order, in one namespace a document."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Words after "python" name packages that the block needs; without them it is not run.
BLOCK = re.compile(r"^```python(?P<needs>[ \w]*)\n(?P<source>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(document: str) -> Iterator[CodeType]:
    """Compile the blocks that can run here; ``await`` may stand at their top level."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if all(importlib.util.find_spec(package) for package in block["needs"].split()):
            # Tracebacks then name the line of the document.
            source = "\n" * text.count("\n", 0, block.start("source")) + block["source"]
            yield compile(source, str(ROOT / document), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


@pytest.mark.parametrize(
    "document", ["README.md", "docs/guide.md", "docs/tensorflow.md", "docs/testing.md", "examples/README.md"]
)
async def test_every_block_runs(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "documentation"}
    blocks = list(blocks_of(document))
    assert blocks
    for block in blocks:
        result = eval(block, namespace)
        if inspect.iscoroutine(result):
            await result


def test_links_between_documents_lead_somewhere() -> None:
    documents = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        ROOT / "examples/README.md",
        ROOT / "backends/README.md",
    ]
    links = [
        (document, link.partition("#")[0])
        for document in documents
        for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", document.read_text(encoding="utf-8"))
    ]
    assert links
    assert [f"{document}: {link}" for document, link in links if not (document.parent / link).exists()] == []
