"""Whatever bytes stand on the store, readers raise our errors and no others."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsaver.errors import AsyncSaverError, CheckpointCorruptError, ManifestError, RanksMissingError
from asyncsaver.formats.native import seal
from asyncsaver.model.names import Naming, check_relative, is_save_id, parse_slot, slot_path

from .documents import DOCUMENTS, STRANGE, USES, spoil, write

Scale = Callable[[int, int], int]
pytestmark = pytest.mark.torture


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_whole_documents_are_read(kind: str) -> None:
    USES[kind](write(DOCUMENTS[kind]))


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_spoiled_documents(kind: str, scale: Scale, figures: Any) -> None:
    accepted = longest = 0
    count = scale(400, 150_000)
    for seed in range(count):
        choose = random.Random(f"{kind} {seed}")
        data = write(spoil(DOCUMENTS[kind], choose, choose.choice([1, 1, 2, 5])))
        try:
            USES[kind](data)
            accepted += 1
        except (ManifestError, RanksMissingError) as error:
            longest = max(longest, len(str(error)))
        except BaseException as error:
            error.add_note(f"seed {seed}: {data[:3000]!r}")
            raise
    assert 0 < accepted < count
    assert longest < 10_000  # somebody has to read it
    figures.add("hostile documents read", count)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_spoiled_bytes(kind: str, scale: Scale, figures: Any) -> None:
    """What no JSON encoder writes: half tokens, doubled keys, other encodings."""
    count = scale(500, 100_000)
    whole = write(DOCUMENTS[kind])[47:]
    tokens = [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b",",
        b":",
        b"\\",
        b"\\ud800",
        b"\x00",
        b"\xff",
        b"1e999",
        b"-",
        b"null",
        b"NaN",
    ]
    for seed in range(count):
        choose = random.Random(f"{kind} {seed}")
        body = bytearray(b"{" + whole)
        for _ in range(choose.choice([1, 2, 8])):
            start = choose.randrange(len(body))
            stop = start + choose.choice([0, 1, 1, 20])
            body[start:stop] = choose.choice([*tokens, body[stop : stop + 60] * 2, choose.randbytes(3)])
        with contextlib.suppress(ManifestError, RanksMissingError):
            USES[kind](seal(bytes(body)))
        with contextlib.suppress(ManifestError, RanksMissingError):
            USES[kind](bytes(body))
    figures.add("hostile documents read", 2 * count)


keys = st.text(max_size=3) | st.sampled_from(["tensor", "list", "dict", "items", "object", "type"])
json_values = st.recursive(
    st.sampled_from(STRANGE) | st.text(max_size=5) | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


def test_any_tree(scale: Scale, figures: Any) -> None:
    @settings(max_examples=scale(80, 20_000))
    @given(json_values)
    def any_tree(tree: Any) -> None:
        with contextlib.suppress(ManifestError, UnicodeEncodeError):  # the latter: JSON has no lone surrogates
            USES["manifest"](write({**DOCUMENTS["manifest"], "tree": tree}))
        figures.add("hostile documents read")

    any_tree()


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    for use in USES.values():
        for given_data in (data, seal(data)):
            with pytest.raises(AsyncSaverError) as caught:
                use(given_data)
            assert isinstance(caught.value, CheckpointCorruptError)


@settings(max_examples=300)
@given(st.text(max_size=30) | st.from_regex(r"manifest-[0-9]{0,12}\.json") | st.from_regex(r"ckpt-[0-9]{0,25}"))
def test_any_name(name: str) -> None:
    """Names on the store are anybody's: what is taken for ours is exactly what we would have written."""
    ours, step = Naming().parse(name)
    if ours:
        assert name in Naming().names(step)
    slot = parse_slot(name)
    if slot is not None:
        assert slot_path("x", slot) == f"x/{name}"
    with contextlib.suppress(ManifestError):
        segments = check_relative(name, "here").split("/")
        assert not {"", ".", ".."} & {*segments}
    if is_save_id(name):
        assert len(name) == 33
        assert name.isascii()
