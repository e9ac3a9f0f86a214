"""Bad answers while an object goes up in parts: the save gets over them, and no unfinished upload stays."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from .clouds import CLOUDS, LARGE, READ_TIMEOUT, Cloud, cloud_of, number_of, state_of
from .faults import FAILURES, error_in_success, hang, refuse
from .operations import Kind
from .targets import on

pytestmark = [pytest.mark.server, pytest.mark.torture, pytest.mark.timeout(1200)]

PARTS = 2  # of a shard of `LARGE` bytes


@pytest.fixture(params=CLOUDS)
async def cloud(request: pytest.FixtureRequest) -> AsyncIterator[Cloud]:
    """Each cloud in turn, behind a proxy that behaves until it is told otherwise."""
    async with cloud_of(request) as cloud:
        yield cloud


@pytest.fixture(params=CLOUDS)
async def impatient_cloud(request: pytest.FixtureRequest) -> AsyncIterator[Cloud]:
    """Likewise; through obstore with less patience, since there it grows with what is in flight."""
    async with cloud_of(
        request, read_timeout=READ_TIMEOUT / 3 if "obstore" in request.param else READ_TIMEOUT
    ) as cloud:
        yield cloud


async def restored(cloud: Cloud) -> int:
    async with cloud.honest_saver() as saver:
        return number_of(await saver.restore())


async def test_one_bad_answer_anywhere_in_an_upload(
    cloud: Cloud, scale: Callable[[int, int], int], figures: Any
) -> None:
    kinds: list[Kind] = ["part", "complete"] if cloud.proxy.scheme == "az" else ["begin", "part", "complete"]
    cases = list(itertools.product(kinds, FAILURES))
    count = scale(1, len(cases))
    async with cloud.saver_in_parts(max_to_keep=1) as saver:
        for number, (kind, fault) in enumerate(cases[-count:]):
            rule = cloud.proxy.misbehave(on(".safetensors", kind), FAILURES[fault])
            await saver.save(state_of(number, LARGE), step=number)
            assert rule.hits == 1, (kind, fault)
            assert await restored(cloud) == number, (kind, fault)
            cloud.proxy.behave()
    unfinished = cloud.unfinished_uploads()
    if unfinished:  # the answer to a request for an upload was lost, and with it the upload's name
        async with cloud.honest_saver() as saver:
            await saver.sweep(grace=0)
    assert cloud.unfinished_uploads() == []
    figures.add(f"faults injected over HTTP into uploads in parts, {cloud.name}", count)


async def test_a_server_that_stops_reading_does_not_hang_a_save(impatient_cloud: Cloud) -> None:
    """The clients' own read timeouts begin only when all is sent."""
    cloud = impatient_cloud
    rule = cloud.proxy.misbehave(on(".safetensors", "part", "complete"), hang, before_body=True)
    async with cloud.saver_in_parts() as saver:
        await saver.save(state_of(1, LARGE), step=1)
    assert rule.hits == 1
    assert await restored(cloud) == 1
    assert cloud.unfinished_uploads() == []


async def test_a_completion_that_is_never_answered_does_not_hang_a_save(impatient_cloud: Cloud) -> None:
    """All parts may have been handed over before the store has made the upload."""
    cloud = impatient_cloud
    rule = cloud.proxy.misbehave(on(".safetensors", "complete"), hang)
    async with cloud.saver_in_parts() as saver:
        await saver.save(state_of(1, LARGE), step=1)
    assert rule.hits == 1
    assert await restored(cloud) == 1
    assert cloud.unfinished_uploads() == []


@pytest.mark.parametrize("cloud", ["s3", "s3-obstore"], indirect=True)
async def test_an_error_within_a_success_is_an_error(cloud: Cloud) -> None:
    """S3 may answer 200 to the completion of an upload before it knows how that ends."""
    rule = cloud.proxy.misbehave(on(".safetensors", "complete"), error_in_success)
    async with cloud.saver_in_parts() as saver:
        await saver.save(state_of(1, LARGE), step=1)
    assert rule.hits == 1
    assert await restored(cloud) == 1
    assert cloud.unfinished_uploads() == []


@pytest.mark.parametrize("cloud", ["s3", "azure", "s3-obstore", "azure-obstore"], indirect=True)
async def test_only_the_part_that_was_refused_is_sent_again(cloud: Cloud) -> None:
    """Of the emulator of GCS this cannot be asked: it ends an upload when it is asked what it has."""
    rule = cloud.proxy.misbehave(on(".safetensors", "part"), refuse(503), times=3)
    async with cloud.saver_in_parts() as saver:
        await saver.save(state_of(1, LARGE), step=1)
    sent = Counter(operation.kind for operation in cloud.proxy.seen)
    assert rule.hits == 3
    assert (sent["part"], sent["complete"]) == (PARTS + 3, 1)
    assert sent["begin"] == (cloud.proxy.scheme == "s3")
    assert await restored(cloud) == 1


async def test_parts_are_sent_again_by_the_save_alone(cloud: Cloud) -> None:
    rule = cloud.proxy.misbehave(on(".safetensors", "part"), refuse(503), times=None)
    async with cloud.saver_in_parts(retry_timeout=0) as saver:
        with pytest.raises(OSError, match="503"):
            await saver.save(state_of(1, LARGE), step=1)
    assert 1 <= rule.hits <= PARTS  # the failure of one may spare the others
    assert cloud.unfinished_uploads() == []
