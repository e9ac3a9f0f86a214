"""Which requests of a save or a restore a test wants to hit."""

from __future__ import annotations

from collections.abc import Mapping

from .operations import Kind
from .proxy import Where


def on(ending: str, *kinds: Kind) -> Where:
    """Requests of these kinds (of any, without one) for keys that end so."""
    return lambda operation: (not kinds or operation.kind in kinds) and operation.key.endswith(ending)


SAVING: Mapping[str, Where] = {
    "manifest": on("manifest.json", "create"),
    "shard": on(".safetensors", "put"),
    "part": on("part-00000.json", "put"),
    "index": on("index.json", "put"),
    "new state file": on("checkpoint.json", "create"),
    "state file": on("checkpoint.json", "replace"),
    "tombstone": on("manifest.json", "replace"),
    "probe": on("-in-turn", "create"),
    "reading the state file": on("checkpoint.json", "get"),
    "listing": on("", "list"),
    "deleting": on("", "delete"),
}

READING: Mapping[str, Where] = {
    "state file": on("checkpoint.json", "get"),
    "manifest": on("manifest.json", "get"),
    "shard": on(".safetensors", "get"),
    "listing": on("", "list"),
}


def conditional(target: str) -> bool:
    """Whether a save gets over a refusal there: it is settled by looking, or its failure is none of the save's."""
    return target in {
        "manifest",
        "new state file",
        "state file",
        "tombstone",
        "deleting",
    }
