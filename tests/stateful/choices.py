"""What the machine chooses from."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from .model import POLICIES, Saved
from .mortal import Death

STEPS = st.one_of(st.none(), st.integers(0, 6))
LOSSES = st.sampled_from([None, 0.5, 0.25, 1.0, -2.0, math.inf, 0])
DEATHS = st.one_of(st.none(), st.none(), st.builds(Death, st.integers(1, 45), st.booleans()))
POLICY_NAMES = st.sampled_from(sorted(POLICIES))
REQUESTS = st.builds(Saved, step=STEPS, number=st.just(0), loss=LOSSES, pinned=st.booleans(), overwrite=st.booleans())
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
