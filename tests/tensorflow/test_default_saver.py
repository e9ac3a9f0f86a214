"""A default saver for each context: item 136."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from asyncsaver.aio.defaults import as_default, forget_default, get_default_saver

from .golden import PROBES

PROBE = PROBES["graph.get_saver_or_default"]


class Named:
    """All that matters of a saver."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<Saver of {self.name}>"


def never() -> Named:
    raise AssertionError("there is a default")


async def test_item_136_one_saver_is_the_default() -> None:
    saver = Named("a")
    with as_default(saver) as given:
        assert given is saver
        assert get_default_saver(never) is saver


async def test_item_136_several_are_an_error_that_names_them() -> None:
    assert PROBE["two"]["raises"] == "RuntimeError"
    first, second = Named("memory://a"), Named("memory://b")
    with as_default(first):
        with as_default(second), pytest.raises(RuntimeError) as error:
            get_default_saver(never)
        assert get_default_saver(never) is first  # the block is over
    assert "<Saver of memory://a>, <Saver of memory://b>" in str(error.value)
    ending = PROBE["two"]["message"].partition(". ")[2].removesuffix(" to the constructor.")
    assert ending in str(error.value)


async def test_item_136_without_one_a_new_one_is_made_and_kept() -> None:
    assert PROBE["same"]
    made = get_default_saver(lambda: Named("new"))
    assert made.name == "new"
    assert get_default_saver(never) is made
    with as_default(Named("other")), pytest.raises(RuntimeError, match="<Saver of new>, <Saver of other>"):
        get_default_saver(never)


async def test_item_136_one_that_could_not_be_made_is_no_default() -> None:
    def fails() -> Named:
        raise ValueError("no variables")

    with pytest.raises(ValueError, match="no variables"):
        get_default_saver(fails)
    assert get_default_saver(lambda: Named("second try")).name == "second try"


async def test_item_136_what_is_the_default_already_stays_it() -> None:
    saver = Named("a")
    with as_default(saver):
        with as_default(saver):
            assert get_default_saver(never) is saver
        assert get_default_saver(never) is saver
    assert get_default_saver(lambda: Named("b")).name == "b"


async def test_item_136_blocks_that_do_not_nest() -> None:
    first, second = as_default(Named("a")), as_default(Named("b"))
    first.__enter__()
    b = second.__enter__()
    first.__exit__(None, None, None)
    assert get_default_saver(never) is b
    second.__exit__(None, None, None)
    assert get_default_saver(lambda: Named("c")).name == "c"


async def test_item_136_a_block_that_fails_is_left_too() -> None:
    with pytest.raises(KeyError), as_default(Named("a")):
        raise KeyError("x")
    assert get_default_saver(lambda: Named("b")).name == "b"


async def test_item_136_a_closed_saver_is_forgotten() -> None:
    saver = get_default_saver(lambda: Named("a"))
    with as_default(saver):
        forget_default(saver)
        forget_default(saver)
        forget_default(Named("none of them"))
        again = get_default_saver(lambda: Named("b"))
    assert get_default_saver(never) is again


async def test_item_136_each_task_has_its_own() -> None:
    count = 20
    all_are_in = asyncio.Barrier(count)

    async def work(number: int) -> tuple[str, str]:
        with as_default(Named(f"run {number}")):
            await all_are_in.wait()
            inner = get_default_saver(never).name
            await all_are_in.wait()
        await all_are_in.wait()
        return inner, get_default_saver(lambda: Named(f"made {number}")).name

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(number)) for number in range(count)]
    assert [task.result() for task in tasks] == [(f"run {number}", f"made {number}") for number in range(count)]
    assert get_default_saver(lambda: Named("here")).name == "here"  # nothing has come out of them


async def test_item_136_a_task_has_the_default_of_where_it_was_started() -> None:
    left = asyncio.Event()
    saver = Named("a")

    async def later() -> tuple[Named, str]:
        await left.wait()
        inherited: Named = get_default_saver(never)
        with as_default(Named("own")), pytest.raises(RuntimeError) as error:
            get_default_saver(never)
        return inherited, str(error.value)

    with as_default(saver):
        task = asyncio.create_task(later())
        assert await asyncio.to_thread(get_default_saver, never) is saver
    left.set()
    inherited, message = await task
    assert inherited is saver
    assert "<Saver of a>, <Saver of own>" in message


def test_item_136_a_fresh_context_has_none() -> None:
    with as_default(Named("a")):
        assert contextvars.Context().run(get_default_saver, lambda: Named("b")).name == "b"
        assert get_default_saver(never).name == "a"
