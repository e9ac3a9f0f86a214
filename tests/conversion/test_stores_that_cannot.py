"""Stores that do not create exclusively, or have no etags: what is asked of the caller, and what works all the same."""

from __future__ import annotations

import uuid
from dataclasses import replace

import numpy as np
import pytest

from asyncsaver import Saver, UnsupportedStoreError
from asyncsaver.catalog.opening import open_root
from asyncsaver.conversion.convert import convert_source
from asyncsaver.conversion.request import Conversion
from asyncsaver.errors import CheckpointExistsError
from asyncsaver.restore.opening import naming_of, open_source
from asyncsaver_backends.memory import MemoryStore

from ..doubles.scripted import ScriptedStore  # noqa: TID252 - test folders have no name
from .checkpoints import assert_same, content_of


async def converted(source: str, url: str, conversion: Conversion) -> None:
    inner = MemoryStore(url)
    poor = replace(inner.capabilities, exclusive_create=False, compare_and_swap=False)
    store = ScriptedStore(inner, keeps_exclusive=False, etags=False, capabilities=poor)
    root, found = await open_source(source, "auto")
    to = open_root(store, naming_of(conversion.name))
    try:
        await convert_source(root, found, to, conversion)
    finally:
        await to.close()
        await root.close()


@pytest.mark.parametrize("into", ["native", "tensorflow", "huggingface"])
async def test_one_writer_is_enough(into: str) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    async with Saver(f"{url}/a") as saver:
        first = (await saver.save({"w": np.arange(10)}, step=1)).url
        second = (await saver.save({"w": np.arange(20), "v": np.ones(3)}, step=2)).url
    conversion = Conversion(name="m-1", format=into)
    if into == "native":
        with pytest.raises(UnsupportedStoreError, match="single_writer=True"):
            await converted(first, f"{url}/b", conversion)
        conversion = replace(conversion, single_writer=True)
    await converted(first, f"{url}/b", conversion)
    with pytest.raises(CheckpointExistsError):
        await converted(second, f"{url}/b", conversion)
    assert_same(await content_of(f"{url}/b/m-1"), await content_of(first))
    await converted(second, f"{url}/b", replace(conversion, overwrite=True))
    assert_same(await content_of(f"{url}/b/m-1"), await content_of(second))
