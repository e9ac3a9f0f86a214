"""The contract's tests must fail for stores that break it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_IMPORTS = """
import uuid
import pytest
from asyncsaver.store import Listing
from asyncsaver.testing import StoreContract
from asyncsaver_backends.memory import MemoryStore
"""

_CLASSES = """
class Broken{number}(MemoryStore):
{body}

class TestBroken{number}(StoreContract):
    @pytest.fixture
    async def store(self):
        async with Broken{number}(f"memory://{{uuid.uuid4().hex}}") as store:
            yield store
"""

_BROKEN = {
    "test_create_is_refused_where_something_is": """
        async def put(self, path, data, *, mode="overwrite"):
            return await super().put(path, data)
    """,
    "test_of_many_creators_exactly_one_wins": """
        async def put(self, path, data, *, mode="overwrite"):
            return await super().put(path, data)
    """,
    "test_listing_is_in_order_and_complete": """
        async def list(self, prefix="", *, delimiter=False):
            listing = await super().list(prefix, delimiter=delimiter)
            return Listing(listing.objects[::-1], listing.prefixes)
    """,
    "test_long_listings_and_deletions": """
        async def list(self, prefix="", *, delimiter=False):
            listing = await super().list(prefix, delimiter=delimiter)
            return Listing(listing.objects[:1000], listing.prefixes)
    """,
    "test_ranges_past_the_end_are_errors": """
        async def get_into(self, path, ranges, buffers):
            size = (await self.head(path)).size
            await super().get_into(path, [(min(a, size), min(b, size)) for a, b in ranges], [b[:0] for b in buffers])
    """,
    "test_replace_if_needs_the_current_etag": """
        async def replace_if(self, path, data, etag):
            return await super().put(path, data)
    """,
    "test_parts_become_one_object": """
        async def put_parts(self, path, parts, *, size):
            entered = [part.__enter__() async for part in parts]
            await super().put(path, b"".join(entered))
    """,
    "test_cancelling_between_parts_leaves_nothing": """
        async def put_parts(self, path, parts, *, size):
            content = b""
            async for part in parts:
                with part as view:
                    content += view
                await super().put(path, content)
    """,
    "test_closing_twice_is_fine_and_using_it_afterwards_an_error": """
        async def close(self):
            pass
    """,
}


def test_stores_that_break_the_contract_fail(tmp_path: Path) -> None:
    classes = [
        _CLASSES.format(number=number, body=body.replace("\n    ", "\n"))
        for number, body in enumerate(_BROKEN.values())
    ]
    (tmp_path / "test_broken.py").write_text(_IMPORTS + "".join(classes))
    tests = [f"test_broken.py::TestBroken{number}::{name}" for number, name in enumerate(_BROKEN)]
    output = _pytest(tmp_path, "auto", *tests)
    assert [test for test in tests if f"FAILED {test}" not in output] == []


def test_it_needs_a_store_and_works_in_strict_mode(tmp_path: Path) -> None:
    text = (_IMPORTS + _CLASSES.format(number=0, body="    pass")).replace("@pytest.fixture", "@pytest_asyncio.fixture")
    (tmp_path / "test_strict.py").write_text("import pytest_asyncio\n" + text)
    (tmp_path / "test_without.py").write_text(
        "from asyncsaver.testing import StoreContract\nclass TestWithout(StoreContract):\n    pass\n"
    )
    output = _pytest(tmp_path, "strict", "-k", "test_empty_objects")
    assert "1 passed" in output
    assert "1 error" in output
    assert "override the fixture `store`" in output


def _pytest(folder: Path, mode: str, *arguments: str) -> str:
    (folder / "pytest.ini").write_text(f"[pytest]\nasyncio_mode = {mode}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_importing_the_package_does_not_import_pytest() -> None:
    code = "import sys, asyncsaver.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
