"""Whole documents of each kind, ways to spoil them, and everything that is done with one once it was read."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from asyncsaver.formats.native import decode_part, decode_record, decode_state, encode, seal
from asyncsaver.model.checkpoint import checkpoint_of
from asyncsaver.model.dtypes import dtype_from_name
from asyncsaver.model.leaves import Adapters, TensorSpec
from asyncsaver.model.manifest import Aborted, Chunk, Deleted, FileEntry, Manifest, Part, TensorEntry
from asyncsaver.model.merge import merge_parts
from asyncsaver.model.names import Naming
from asyncsaver.model.rebuild import MISSING, plan_restore
from asyncsaver.model.statefile import StateFile, entry_of

Json = Any
NAME, SAVE_ID = "ckpt-00000007", "20260101T123015Z-0123456789abcdef"
FILE = f"{NAME}/{SAVE_ID}/model-00001-of-00001.safetensors"
CREATED = datetime(2026, 1, 1, 12, 30, 15, 123456, UTC)
HASH = "0123456789abcdef0123456789abcdef"
COMMON: dict[str, Any] = {"name": NAME, "step": 7, "slot": 0, "created": CREATED, "writer": "asyncsaver 0.1.0"}
TREE: Json = {
    "dict": {
        "w": {"tensor": "w"},
        "t": {"tensor": "t", "kind": "torch"},
        "blob": {"blob": "blob"},
        "plain": {"list": [None, True, 1, 0.5, "x", {"int": "9007199254740993"}, {"int": "-0xff"}, {"float": "nan"}]},
        "more": {"tuple": [{"bytes": "AAE="}, {"str": "7aCA"}, {"scalar": {"dtype": "<U2", "data": "YQAAAGIAAAA="}}]},
        "keys": {
            "items": [["a", 1], [2, {"ordereddict": [[{"int": "9007199254740993"}, 3]]}], [4, {"defaultdict": []}]]
        },
        "types": {"namedtuple": {"x": 1, "y": {"dataclass": {"z": 2}, "type": "C"}}, "type": "P"},
        "object": {"object": {"dict": {"n": {"scalar": {"dtype": "float32", "data": "AAAAAA=="}}}}, "type": "O"},
    }
}
MANIFEST = Manifest(
    **COMMON, save_id=SAVE_ID, sequence=3, world_size=1, total_bytes=160, tree=TREE,
    tensors={
        "w": TensorEntry("float32", (2, 3), (Chunk((0, 0), (1, 3), 0, 64, 76, HASH), Chunk((1, 0), (1, 3), 0, 76, 88, HASH))),
        "t": TensorEntry("<U5", (0,), (Chunk((0,), (0,), 0, 88, 88, HASH),)),
        "blob": TensorEntry("uint8", (64,), (Chunk((0,), (64,), 0, 88, 152, HASH),)),
        "d": TensorEntry("<M8[25s]", (), (Chunk((), (), 0, 152, 160, HASH),)),
    },
    files=[FileEntry(FILE, 160, "01234567")], metrics={"loss": 0.5, "bad": "nan"}, metadata={"git": ["é", None, 1e300]},
    saver={"prefix": "ckpt"},
)  # fmt: skip
TOMBSTONE = Deleted(**COMMON, save_id=SAVE_ID, files=[FILE])
FENCE = Aborted(**COMMON, condemned=[SAVE_ID])
PART = Part(save_id=SAVE_ID, rank=0, world_size=1, files=MANIFEST.files, tensors=MANIFEST.tensors)
STATE = StateFile(
    entries=[entry_of(MANIFEST, '"etag"'), entry_of(FENCE, None), entry_of(TOMBSTONE, "x")], last_preserved=CREATED
)
DOCUMENTS: dict[str, Json] = {
    kind: {key: value for key, value in json.loads(encode(whole)).items() if key != "checksum"}
    for kind, whole in (
        ("manifest", MANIFEST),
        ("tombstone", TOMBSTONE),
        ("fence", FENCE),
        ("part", PART),
        ("state", STATE),
    )
}

STRANGE: list[Json] = [
    None, True, 0, 1, -1, 7, 64, 2**31, 2**40, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e308, "", "w",
    "nan", "0x" + "f" * 5000, "9" * 5000, "../x", "/etc/passwd", "a\x00b", "a\\..\\b", "x" * 2000, FILE, SAVE_ID, NAME, HASH,
    "<U5", "<U0", "<U536870911", "|V2147483647", "|S0", "float128", "object", "<M8[0s]", "<m8[99999999999s]", "int4", "YQ==",
    "====",
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", [], {}, [[]], [2**40, 0], [0] * 65, [2**31] * 3, {"": None},
    {"tensor": "w"}, {"blob": "w"}, {"list": [{"list": []}]}, {"dict": {"w": 1}}, {"items": [["a", 1], ["a", 2]]},
    {"int": "-"}, {"float": "1"}, {"scalar": {"dtype": "|S2000000000", "data": ""}}, {"object": {"object": 1}, "type": "x"},
]  # fmt: skip
"""Values that a hostile or a broken writer might put anywhere."""


def write(document: Json) -> bytes:
    """A document as its writer would have written it: the checksum fits, so that only the content is wrong."""
    return seal(json.dumps(document).encode())


def places(document: Json, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a document something stands."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [place for key, value in items for place in [(*at, key), *places(value, (*at, key))]]


def spoil(document: Json, choose: random.Random, times: int = 1) -> Json:
    """The document with a few things replaced, removed, repeated or moved."""
    spoiled = copy.deepcopy(document)
    for _ in range(times):
        found = places(spoiled)
        if not found:
            break
        *way, last = choose.choice(found)
        holder: Json = spoiled
        for key in way:
            holder = holder[key]
        match choose.randrange(6):
            case 0:
                del holder[last]
            case 1 if isinstance(holder, list):
                holder.extend([holder[last]] * choose.choice([1, 2, 70]))
            case 2:
                *other, end = choose.choice(found)
                with contextlib.suppress(LookupError, TypeError):
                    source: Json = spoiled
                    for key in (*other, end):
                        source = source[key]
                    holder[last] = copy.deepcopy(source)
            case 3 if type(holder[last]) is int:
                holder[last] += choose.choice([-1, 1, 2**32])
            case 4 if isinstance(holder, dict):
                holder[choose.choice(["w", "", "tensor", "dict", "state", "format", "x.y"])] = holder.pop(last)
            case _:
                holder[last] = copy.deepcopy(choose.choice(STRANGE))
    return spoiled


def use_record(data: bytes) -> None:
    """Read what stands at a slot, as far as a restore goes without reading shards."""
    record = decode_record(data, name=NAME, slot=0)
    entry = entry_of(record, "e")
    assert decode_state(encode(StateFile().with_entries([entry])), "state").entries == [entry]
    assert encode(decode_record(encode(record), name=NAME, slot=0)) == encode(record)
    if isinstance(record, Manifest):
        checkpoint_of(record, "s3://x", pinned=False)
        specs = {name: TensorSpec(dtype_from_name(one.dtype), one.shape) for name, one in record.tensors.items()}
        plan = plan_restore(record.tree, specs, Adapters.discover(), target=MISSING)
        assert {read.name for read in plan.reads} <= specs.keys()


def use_part(data: bytes) -> None:
    """Read a part and merge it."""
    part = decode_part(data, "part")
    merge_parts([part], save_id=part.save_id, world_size=part.world_size if 0 < part.world_size < 9 else 1)


def use_state(data: bytes) -> None:
    """Read a state file, and change it."""
    state = decode_state(data, "state")
    changed = state.reconciled(state.entries, late=CREATED, began=CREATED, seen=state.by_path())
    assert decode_state(encode(changed), "state") == changed
    assert all(Naming().parse(entry.name) and entry.order for entry in changed.entries)


USES: dict[str, Callable[[bytes], None]] = {
    "manifest": use_record,
    "tombstone": use_record,
    "fence": use_record,
    "part": use_part,
    "state": use_state,
}
