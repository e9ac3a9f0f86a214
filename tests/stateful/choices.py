"""What the machine chooses from."""

from __future__ import annotations

import math
from datetime import timedelta

from hypothesis import strategies as st

from .model import Saved
from .mortal import Moment
from .policies import POLICIES

MAX_STEP = 3
# Few names, so that they meet again: most of what can go wrong takes several saves of one.
STEPS = st.sampled_from([None, *range(MAX_STEP + 1)])
LOSSES = st.sampled_from([None, 0.5, 0.25, 1.0, -2.0, math.inf, 0])
# A pin changes the store twice, a save that prunes about fifteen times.
_CHANGES = st.one_of(st.integers(1, 4), st.integers(1, 16), st.integers(1, 40))
_OF_ALL = st.builds(Moment, _CHANGES, st.booleans())
_OF_A_KIND = st.builds(
    Moment,
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(["commit", "tombstone", "deletion", "mark", "state file"]),
)
DEATHS = st.one_of(st.none(), st.none(), _OF_ALL, _OF_A_KIND)
# Or after so many turns of the loop: also while it only reads, or waits.
GIVING_UP = st.one_of(st.none(), st.integers(0, 160), _OF_ALL, _OF_A_KIND)
POLICY_NAMES = st.sampled_from(sorted(POLICIES))
# Whole hours meet the bounds of `KeepEveryHours` exactly: the saver's clock stands still unless it jumps.
_HOURS = st.sampled_from([0, 1, 1, 0.5, 2, 25, 100, -1, -30]).map(lambda hours: timedelta(hours=hours))
REQUESTS = st.builds(
    Saved,
    step=STEPS,
    number=st.just(0),
    loss=LOSSES,
    pinned=st.sampled_from([False, False, False, True]),
    overwrite=st.booleans(),
    pause=_HOURS,
)
_YEARS = st.floats(-50, 50).map(lambda years: timedelta(days=365 * years))
JUMPS = st.one_of(_HOURS, _HOURS, _YEARS)
FOREIGN = st.sampled_from(
    [
        "notes.txt",
        "ckpt-0005/manifest.json",
        "ckpt-00000003/manifest-1.json",
        "ckpt-00000003/readme.md",
        "ckpt-00000003/20300101T000000Z-0123456789ABCDEF/model-00001-of-00001.safetensors",
        "ckpt/other/part-00000.json",
        "other-00000001/20300101T000000Z-0123456789abcdef/part-00000.json",
        "lost+found/checkpoint.json",
    ]
)
