"""A checksum of pieces is that of the whole, of either kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.model.digests import crc32c_digest, digest_of
from asyncsaver.model.running import running_digest


@given(st.lists(st.binary(min_size=1)))
@pytest.mark.parametrize("like", [crc32c_digest(0), "0" * 32])
def test_pieces_and_the_whole_have_one_checksum(like: str, pieces: list[bytes]) -> None:
    running = running_digest(like)
    for piece in pieces:
        running.update(np.frombuffer(piece, np.uint8))
    whole = b"".join(pieces)
    assert running.hexdigest() == (digest_of(whole, like) if whole else running_digest(like).hexdigest())
