"""From a caller's state to the tensors that V1 files hold. Pure."""

from __future__ import annotations

from asyncsaver.formats.tensorflow.v1_write import check_v1
from asyncsaver.layout.tensorflow_stage import bundle_of
from asyncsaver.model.leaves import Adapters
from asyncsaver.save.stage import Stage, Staged
from asyncsaver.save.tensorflow_v1 import v1_tensors


def stage_v1(describe: Stage, state: object, adapters: Adapters) -> Staged:
    """Describe a state. Blocking.

    Args:
        describe: does so for V2.
        state: any.
        adapters: for its arrays.

    Raises:
        InvalidStateError: as ``describe``, or V1 has no such dtype; the message names the leaf.
    """
    staged = describe(state, adapters)
    bundle = bundle_of(staged, adapters)
    check_v1(v1_tensors(bundle, adapters, range(len(bundle.staged.tensors))))
    return staged
