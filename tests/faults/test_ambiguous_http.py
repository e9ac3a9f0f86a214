"""Answers that are wrong, missing or cut, between the real clients and real servers: nothing is lost, nothing is torn."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from asyncsaver.errors import CheckpointExistsError, CommitUnknownError, StoreError

from .http.clouds import CLOUDS, Cloud, cloud_of, number_of, state_of
from .http.faults import FAILURES, FAULTS, REFUSALS, hang, hang_after, late, meanwhile, pass_on, refuse
from .http.proxy import Answer
from .http.targets import READING, SAVING, conditional, on

pytestmark = [pytest.mark.server, pytest.mark.torture, pytest.mark.timeout(1200)]

STRIDE = 7  # has no factor in common with the numbers of targets and faults: a few cases are of many kinds

Scale = Callable[[int, int], int]


@pytest.fixture(params=CLOUDS)
async def cloud(request: pytest.FixtureRequest) -> AsyncIterator[Cloud]:
    """Each cloud in turn, behind a proxy that behaves until it is told otherwise."""
    async with cloud_of(request) as cloud:
        yield cloud


@pytest.fixture(params=CLOUDS)
async def patient_cloud(request: pytest.FixtureRequest) -> AsyncIterator[Cloud]:
    """Likewise, with clients that wait for an answer while somebody else saves."""
    async with cloud_of(request, read_timeout=10) as cloud:
        yield cloud


def some(cases: list[Any], count: int) -> list[Any]:
    """Of many cases, some that differ in everything; all, when that many are asked for."""
    if count >= len(cases):
        return cases
    return [cases[(number * STRIDE) % len(cases)] for number in range(count)]


async def check_root(cloud: Cloud, newest: int) -> None:
    """Through a fresh saver, past the proxy: the newest is whole, the next save works, and a sweep leaves nothing."""
    async with cloud.honest_saver(max_to_keep=1) as saver:
        assert number_of(await saver.restore()) == newest
        await saver.save(state_of(newest + 1), step=newest + 1)
        assert number_of(await saver.restore()) == newest + 1
        await saver.prune()
        await saver.sweep(grace=0)
        assert (await saver.sweep(grace=0, dry_run=True)).leftovers == []
        assert [one.step for one in await saver.checkpoints()] == [newest + 1]
        await saver.verify()
    assert cloud.unfinished_uploads() == []


async def save_twice(cloud: Cloud, target: str, fault: str) -> int:
    """Two saves, of which one request meets a fault; returns the newest checkpoint that has to be there."""
    begun = target in {"probe", "new state file"}
    if not begun:
        async with cloud.saver(max_to_keep=1) as saver:
            await saver.save(state_of(1), step=1)
    rule = cloud.proxy.misbehave(SAVING[target], FAULTS[fault])
    async with cloud.saver(max_to_keep=1) as saver:  # one of its own: it has to read the state file
        refused = fault in REFUSALS and not conditional(target)
        try:
            saved = await saver.save(state_of(2), step=2)
        except StoreError:
            # Whatever may pass is overcome, and a commit is settled whatever the answer.
            assert refused, (target, fault)
            saved = None
    assert rule.hits == 1, (target, fault)
    cloud.proxy.behave()
    if saved is None and begun:
        async with cloud.saver() as saver:
            assert await saver.latest() is None
            await saver.save(state_of(2), step=2)
        return 2
    return 1 if saved is None else 2


async def test_one_bad_answer_anywhere_in_a_save(cloud: Cloud, scale: Scale, figures: Any) -> None:
    cases = list(itertools.product(SAVING, FAULTS))
    chosen = some(cases, scale(2, len(cases)))
    for number, (target, fault) in enumerate(chosen):
        place = cloud.below(f"save-{number}")
        newest = await save_twice(place, target, fault)
        await check_root(place, newest)
    figures.add(f"faults injected over HTTP into saves, {cloud.name}", len(chosen))


async def test_one_bad_answer_anywhere_in_a_restore(cloud: Cloud, scale: Scale, figures: Any) -> None:
    cases = list(itertools.product(READING, FAULTS))
    chosen = some(cases, scale(2, len(cases)))
    async with cloud.honest_saver() as saver:
        await saver.save(state_of(1), step=1)
    for target, fault in chosen:
        rule = cloud.proxy.misbehave(READING[target], FAULTS[fault])
        async with cloud.saver() as saver:
            try:
                assert number_of(await saver.restore()) == 1
            except StoreError:
                assert fault in REFUSALS, (target, fault)
                assert number_of(await saver.restore()) == 1
        assert rule.hits == 1, (target, fault)
        cloud.proxy.behave()
    figures.add(f"faults injected over HTTP into restores, {cloud.name}", len(chosen))


async def test_who_came_second_is_told_so_whatever_the_answer(patient_cloud: Cloud, scale: Scale, figures: Any) -> None:
    cloud = patient_cloud  # or it would give up while the first one saves
    cases = list(itertools.product([False, True], FAULTS))
    chosen = some(cases, scale(1, len(cases)))
    for number, (overwrite, fault) in enumerate(chosen):
        place = cloud.below(f"conflict-{number}")
        async with place.honest_saver() as first, place.saver() as second:

            async def overtake(first: Any = first) -> None:
                await first.save(state_of(1), step=1)

            rule = place.proxy.misbehave(on("manifest.json", "create"), meanwhile(overtake, FAULTS[fault]))
            with pytest.raises(CheckpointExistsError):
                await second.save(state_of(2), step=1, overwrite=overwrite)
            assert rule.hits == 1
            assert (await first.sweep(grace=0, dry_run=True)).leftovers == []
        place.proxy.behave()
        await check_root(place, 1)
    figures.add(f"commit conflicts behind bad answers, {cloud.name}", len(chosen))


@pytest.mark.parametrize("applied", [False, True])
async def test_a_commit_that_is_never_answered_ends_in_time(cloud: Cloud, *, applied: bool) -> None:
    async with cloud.honest_saver() as saver:
        await saver.save(state_of(1), step=1)
    async with cloud.saver(commit_timeout=0.3) as saver:
        cloud.proxy.misbehave(on("manifest.json", "create"), hang_after if applied else hang, times=None)
        with pytest.raises(CommitUnknownError):
            await saver.save(state_of(2), step=2)
    cloud.proxy.behave()
    await check_root(cloud, 2 if applied else 1)


async def test_a_server_that_answers_nothing_at_all_ends_a_commit_in_time(cloud: Cloud) -> None:
    async with cloud.saver(commit_timeout=0.3) as saver:
        await saver.save(state_of(1), step=1)
        cloud.proxy.misbehave(on("manifest.json", "create", "get"), hang, times=None)
        with pytest.raises(CommitUnknownError):
            await saver.save(state_of(2), step=2)
    cloud.proxy.behave()
    await check_root(cloud, 1)


async def test_a_refused_commit_after_a_lost_one_is_not_taken_for_a_failure(cloud: Cloud) -> None:
    async with cloud.saver() as saver:
        await saver.save(state_of(1), step=1)
        hung = cloud.proxy.misbehave(on("manifest.json", "create"), hang)
        refused = cloud.proxy.misbehave(on("manifest.json", "create"), refuse(412), times=None)
        with pytest.raises(CommitUnknownError):
            await saver.save(state_of(2), step=2)
        assert (hung.hits, refused.hits > 0) == (1, True)
    cloud.proxy.behave()
    await check_root(cloud, 1)


@pytest.mark.parametrize("what", ["manifest.json", ".safetensors"])
async def test_a_request_that_lands_long_after_it_was_given_up(cloud: Cloud, what: str, figures: Any) -> None:
    copies: list[asyncio.Task[Answer]] = []
    landing = asyncio.Event()
    async with cloud.saver(max_to_keep=1) as saver:
        cloud.proxy.misbehave(on(what, "create", "put"), late(copies, landing))
        await saver.save(state_of(1), step=1)
        await saver.save(state_of(2), step=2)
        assert [one.step for one in await saver.checkpoints()] == [2]
        landing.set()
        await asyncio.gather(*copies)
        assert len(copies) == 1
        assert [one.step for one in await saver.checkpoints()] == [2]
    await check_root(cloud, 2)
    figures.add("requests delivered late over HTTP", len(copies))


async def test_a_request_is_sent_again_for_a_time_not_a_number_of_times(cloud: Cloud, figures: Any) -> None:
    async with cloud.saver() as saver:
        rule = cloud.proxy.misbehave(on(".safetensors", "put"), refuse(503), times=6)
        await saver.save(state_of(1), step=1)
        assert rule.hits == 6
        figures.add("faults injected over HTTP, 503 for a while", rule.hits)
    await check_root(cloud, 1)


async def test_only_one_layer_sends_again(cloud: Cloud, figures: Any) -> None:
    """Told to send everything once, nothing beneath sends it twice."""
    async with cloud.saver(retry_timeout=0) as saver:
        await saver.save(state_of(1), step=1)
        requests = {
            on("", "list"): 2,  # and once more to tidy up
            on(".safetensors", "put"): 1,
            on("part-00000.json", "put"): 1,
        }
        for where, sent in requests.items():
            rule = cloud.proxy.misbehave(where, refuse(503), times=None)
            with pytest.raises(StoreError) as caught:
                await saver.save(state_of(2), step=2)
            assert caught.value.retryable
            assert rule.hits == sent
            cloud.proxy.behave()
            figures.add("faults injected over HTTP, always 503", rule.hits)
    await check_root(cloud, 1)


@pytest.mark.parametrize("cloud", ["s3-obstore", "azure-obstore"], indirect=True)
@pytest.mark.parametrize("fault", ["reset", "reply lost"])
async def test_a_connection_that_breaks_is_not_mended_unseen(cloud: Cloud, fault: str, figures: Any) -> None:
    """Rust's HTTP client may send again what it takes for unsent, on a connection that was kept open."""
    async with cloud.saver(retry_timeout=0) as saver:
        await saver.save(state_of(1), step=1)
        requests = {
            "shard": 1,
            "part": 1,
            "listing": 2,  # and once more to tidy up
        }
        for target, sent in requests.items():
            rule = cloud.proxy.misbehave(SAVING[target], FAULTS[fault], times=None)
            with pytest.raises(StoreError) as caught:
                await saver.save(state_of(2), step=2)
            assert caught.value.retryable
            assert (target, rule.hits) == (target, sent)
            cloud.proxy.behave()
            figures.add("connections broken under a client that sends once", rule.hits)
        rule = cloud.proxy.misbehave(SAVING["manifest"], FAULTS[fault])
        created = cloud.proxy.misbehave(SAVING["manifest"], pass_on, times=None)
        await saver.save(state_of(2), step=2)
        # Lost on its way, it is sent again by the commit, which has looked and seen nothing; carried out, it is not.
        assert (rule.hits, created.hits) == (1, 1 if fault == "reset" else 0)
    cloud.proxy.behave()
    await check_root(cloud, 2)


async def test_a_server_that_always_says_503_is_not_pestered(cloud: Cloud) -> None:
    cloud.proxy.misbehave(on(""), refuse(503), times=None)
    async with cloud.saver(retry_timeout=0) as saver:
        with pytest.raises(StoreError) as caught:
            await saver.save(state_of(1), step=1)
    assert caught.value.retryable
    assert len([operation for operation in cloud.proxy.seen if operation.kind == "create"]) == 1
    assert len(cloud.proxy.seen) <= 3  # the probe's object is created, and deleted in case it landed
    cloud.proxy.behave()
    async with cloud.saver() as saver:
        await saver.save(state_of(1), step=1)
    await check_root(cloud, 1)


def test_the_faults_are_of_both_sorts() -> None:
    assert FAULTS.keys() == FAILURES.keys() | REFUSALS.keys()
