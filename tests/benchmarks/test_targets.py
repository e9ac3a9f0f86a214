from __future__ import annotations

from typing import Any

import pytest

from results import Results
from targets import GIB, MIB, Targets, Verdict

OURS = "asyncsaver"


def sample(seconds: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"seconds": seconds, "cpu": 1.0, "memory": 0, "stall": 0.0, "requests": {}, "shards": 1, **more}


def judged(results: Results, about: str) -> Verdict:
    found = [verdict for verdict in Targets(results, OURS, GIB).verdicts() if verdict.what == about]
    assert len(found) == 1, about
    return found[0]


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    verdicts = list(Targets(Results(), OURS, GIB).verdicts())
    assert verdicts
    assert {verdict.met for verdict in verdicts} == {None}
    assert {verdict.word for verdict in verdicts} == {"not measured"}


@pytest.mark.parametrize(("seconds", "met"), [(1.0, True), (1.11, True), (1.12, False)])
def test_a_raw_client_counts_at_its_best(seconds: float, met: bool) -> None:
    results = Results()
    results.add("s3", OURS, "save", sample(seconds))
    for peer, time in (("obstore, 16 at once", 1.5), ("obstore, 32 at once", 1.0), ("obstore, 64 at once", 2.0)):
        results.add("s3", peer, "save", sample(time))
    assert judged(results, "s3: save against obstore at its best").met is met


def test_our_own_engine_is_no_rival() -> None:
    results = Results()
    results.add("s3", OURS, "save", sample())
    results.add("s3", "asyncsaver, obstore", "save", sample(0.1))
    assert judged(results, "s3: save against obstore at its best").met is None


@pytest.mark.parametrize(("scenario", "client"), [("gcs", "gcsfs"), ("azure", "adlfs")])
@pytest.mark.parametrize("what", ["save", "restore"])
def test_engines_are_held_to_the_client_they_are_built_on(scenario: str, client: str, what: str) -> None:
    results = Results()
    results.add(scenario, "asyncsaver, fsspec", what, sample(1.0))
    results.add(scenario, "asyncsaver, obstore", what, sample(9.0))
    results.add(scenario, f"{client} _pipe_file, 4 at once", what, sample(2.0))
    results.add(scenario, f"{client} _pipe_file, 16 at once", what, sample(0.89))
    verdict = judged(results, f"{scenario}: {what} against {client} _pipe_file at its best")
    assert (verdict.found, verdict.word) == ("0.89x", "falls short")


def test_cpu_is_told_for_each_gibibyte() -> None:
    results = Results()
    results.add("s3", OURS, "save", sample(cpu=1.4))
    results.add("s3", "obstore, 32 at once", "save", sample(cpu=1.0))
    (whole,) = (one for one in Targets(results, OURS, GIB).verdicts() if "CPU" in one.what)
    (quarter,) = (one for one in Targets(results, OURS, GIB // 4).verdicts() if "CPU" in one.what)
    assert (whole.found, whole.met) == ("0.40 s/GiB", False)
    assert quarter.found == "1.60 s/GiB"


@pytest.mark.parametrize(("mib", "met"), [(300, True), (301, False)])
def test_memory_is_that_of_the_saver_with_a_small_budget(mib: int, met: bool) -> None:
    results = Results()
    results.add("memory-disk", f"{OURS}, 256 MiB", "restore", sample(memory=mib * MIB))
    results.add("memory-disk", OURS, "restore", sample(memory=0))
    assert judged(results, "memory-disk: extra memory of a restore").met is met


@pytest.mark.parametrize(("stall", "theirs", "met"), [(0.010, 0.0, True), (0.020, 0.0, False), (0.020, 0.025, True)])
def test_a_stall_may_be_as_long_as_the_raw_clients(stall: float, theirs: float, met: bool) -> None:
    results = Results()
    results.add("s3", OURS, "save", sample(stall=stall))
    results.add("s3", "obstore, 16 at once", "save", sample(stall=theirs))
    assert judged(results, "s3: worst stall of the event loop, save").met is met


def test_raw_writes_are_not_among_the_durable_peers() -> None:
    results = Results()
    results.add("disk", OURS, "save", sample(1.0))
    results.add("disk", "raw O_DIRECT, 4 threads", "save", sample(0.9))
    results.add("disk", "safetensors + fsync", "save", sample(1.5))
    verdict = judged(results, "disk: save against the fastest durable peer")
    assert (verdict.found, verdict.met) == ("1.50x (safetensors + fsync)", True)
    assert judged(results, "disk: save against raw O_DIRECT, 4 threads").met is True


@pytest.mark.parametrize(
    ("requests", "met"), [({"put": 5, "list": 2}, True), ({"put": 6}, False), ({"list": 3}, False)]
)
def test_requests_of_a_save(requests: dict[str, int], met: bool) -> None:
    results = Results()
    results.add("s3", OURS, "save", sample(requests=requests))
    assert judged(results, "s3: requests of a save").met is met


@pytest.mark.parametrize("peer", ["tf.train.Saver", "tf.train.Checkpoint"])
@pytest.mark.parametrize("what", ["save", "restore", "restore, warm"])
@pytest.mark.parametrize(("mib", "met"), [(99, True), (100, False)])
def test_each_saver_of_tensorflow_is_held_against_ours_of_the_same_files(
    peer: str, what: str, mib: int, met: bool
) -> None:
    results = Results()
    results.add("tensorflow", "asyncsaver, TensorFlow's files", what, sample(2.0, memory=mib * MIB))
    results.add("tensorflow", OURS, what, sample(0.1))
    results.add("tensorflow", peer, what, sample(2.0, memory=200 * MIB))
    assert judged(results, f"tensorflow: {what} against {peer}").met is True
    memory = judged(results, f"tensorflow: extra memory of a {what} against {peer}")
    assert (memory.found, memory.met) == (f"{mib} of 200 MiB", met)
