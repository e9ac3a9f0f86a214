"""What callers ask a saver to save: the arguments of `Saver.save`, checked, and the state or the variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, SupportsIndex

from asyncsaver.catalog.root import Root
from asyncsaver.layout.definitions import check_sidecar
from asyncsaver.model.checkpoint import Progress, check_metadata, encode_metrics
from asyncsaver.model.names import check_step
from asyncsaver.model.tensorflow_config import TensorFlowConfig
from asyncsaver.save.attempt import Request
from asyncsaver.variables import Bound

BOUND: Final = object()
"""No state: what is saved are the variables that the saver is bound to."""
Step = SupportsIndex | Callable[[], SupportsIndex] | None
"""What may name a checkpoint."""


class Requests:
    """Makes requests.

    Args:
        root: where to.
        bound: the variables of the saver; None where each save is given a state.
        tensorflow: how TensorFlow's files are written; None where ours are.
        who: how messages call the saver.

    Raises:
        ValueError: the tensors of a saveable are spread over several shards.
    """

    def __init__(self, root: Root, bound: Bound | None, tensorflow: TensorFlowConfig | None, who: str) -> None:
        self._root = root
        self._bound = bound
        self._tensorflow = tensorflow
        self._who = who
        self._shard_keys()

    def make(
        self,
        step: Step,
        metrics: Mapping[str, float] | None,
        metadata: Any,
        *,
        overwrite: bool,
        pin: bool,
        write_state: bool,
        write_meta: bytes | None,
        meta_suffix: str,
        report: Callable[[Progress], None],
    ) -> Request:
        """Check the arguments of a save, which `Saver.save` describes; raises `TypeError` or `ValueError`."""
        if write_meta is not None:
            if self._tensorflow is None:
                raise ValueError(
                    "write_meta is for format='tensorflow'; metadata= goes with a checkpoint of any format"
                )
            check_sidecar(write_meta, meta_suffix)
        given = step() if callable(step) else step
        number = None if given is None else check_step(given)
        return Request(
            name=self._root.naming.name(number),
            step=number,
            metrics=encode_metrics(metrics),
            metadata=check_metadata(metadata),
            overwrite=overwrite or number is None,
            pin=pin,
            recorded=write_state,
            report=report,
            meta=write_meta,
            meta_suffix=meta_suffix,
            shard_keys=self._shard_keys(),
        )

    def is_empty(self, state: Any) -> bool:
        """Whether there are no variables to save.

        Raises:
            ValueError: there is no state either.
            TypeError: there is a state besides the variables.
        """
        if self._bound is None:
            if state is BOUND:
                raise ValueError("give a state to save, or let the saver have variables (var_list=)")
            return False
        if state is not BOUND:
            raise TypeError(f"{self._who} is bound to variables, and saves those: save takes no state")
        return self._bound.empty

    async def state(self, state: Any) -> Any:
        """What to save: what was given, or what the variables hold now; raises as `Bound.state`."""
        return state if self._bound is None else await self._root.threads.run(self._bound.state)

    def _shard_keys(self) -> Mapping[str, str] | None:
        """Which shard each variable goes to; None where there are none of that kind."""
        sharded = self._tensorflow is not None and self._tensorflow.sharded
        return self._bound.checked_shard_keys() if self._bound is not None and sharded else None
