"""Where the measured processes find something to save to: set up for a scenario, and empty at the start of each turn."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import s3_endpoint
from clouds import cloud
from peers.contract import BUCKET, REGION, Place
from scenarios import MIB, Scenario

Turns = Callable[[], AbstractContextManager[Place]]
"""Gives the place for one turn of one peer, and empties it afterwards."""


@contextlib.contextmanager
def turns(scenario: Scenario, parent: Path) -> Iterator[Turns]:
    """Set up what a scenario needs.

    Args:
        scenario: which.
        parent: a folder on the disk that is measured.
    """
    if scenario.kind == "s3":
        room = scenario.shape.nbytes * 5 // 4 // MIB + 64
        with s3_endpoint.endpoint(
            BUCKET, arena_mib=room, latency_ms=scenario.latency_ms, bandwidth_mb=scenario.bandwidth_mb
        ) as url:
            yield lambda: _on_s3(url)
    elif scenario.kind == "disk":
        yield lambda: on_disk(parent)
    elif scenario.kind == "memory":
        yield lambda: contextlib.nullcontext(Place("memory"))
    else:  # a server each: theirs forget slowly, or never, what was deleted
        yield lambda: cloud(scenario.kind)


@contextlib.contextmanager
def _on_s3(url: str) -> Iterator[Place]:
    options = {"key": "bench", "secret": "bench", "endpoint_url": url, "client_kwargs": {"region_name": REGION}}
    try:
        yield Place("s3", endpoint=url, storage_options=options)
    finally:
        s3_endpoint.reset(url)


@contextlib.contextmanager
def on_disk(parent: Path) -> Iterator[Place]:
    """A new folder for the duration of a block."""
    folder = tempfile.mkdtemp(prefix="asyncsaver-bench-", dir=parent)
    try:
        yield Place("disk", folder=folder)
    finally:
        shutil.rmtree(folder)
