"""TensorFlow's own savers. They write through the page cache and sync nothing, so their saves are not durable when they end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from peers.contract import Peer, Place, State

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf

Array = np.ndarray[Any, np.dtype[Any]]


class Restored(Mapping[str, Array]):
    """What is in TensorFlow's variables, copied out when it is compared, after the clock has stopped.

    Args:
        variables: by name.
        value: of one of them.
    """

    def __init__(self, variables: Mapping[str, Any], value: Callable[[Any], Array]) -> None:
        self._variables = variables
        self._value = value

    def __getitem__(self, name: str) -> Array:
        return self._value(self._variables[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


class TrainSaver(Peer):
    """`tf.compat.v1.train.Saver`, in a session as it was made for."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph)
        self._variables: dict[str, Any] = {}
        self._prefix = str(place.path / "run" / "model.ckpt")

    async def prepare_save(self, state: State) -> None:
        self._declare(state)
        with self._graph.as_default():
            for name, variable in self._variables.items():
                variable.load(state[name], self._session)

    async def prepare_restore(self, target: State) -> None:
        self._declare(target)

    def _declare(self, state: State) -> None:
        """Variables full of ones, and a saver of them; and something small saved and restored."""
        with self._graph.as_default():
            for name, array in state.items():
                self._variables[name] = tf.compat.v1.get_variable(
                    name, initializer=tf.ones(array.shape, array.dtype), use_resource=True
                )
            self._session.run(tf.compat.v1.global_variables_initializer())
            self._saver = tf.compat.v1.train.Saver(self._variables, max_to_keep=2)
            small = tf.compat.v1.get_variable("small", initializer=tf.zeros([8]))
            self._session.run(small.initializer)
            rehearsed = tf.compat.v1.train.Saver([small])
            rehearsed.restore(self._session, rehearsed.save(self._session, str(self.place.path / "small" / "m")))

    async def save(self, state: State) -> None:
        def save() -> None:
            with self._graph.as_default():  # a thread has none of its own
                self._saver.save(self._session, self._prefix, global_step=1, write_meta_graph=False)

        await asyncio.to_thread(save)

    async def restore(self, target: State) -> State:
        def restore() -> None:
            with self._graph.as_default():
                self._saver.restore(self._session, tf.train.latest_checkpoint(str(self.place.path / "run")))

        await asyncio.to_thread(restore)
        return Restored(self._variables, self._session.run)

    async def close(self) -> None:
        self._session.close()


class TrainCheckpoint(Peer):
    """`tf.train.Checkpoint`, of variables that stand for themselves."""

    async def prepare_save(self, state: State) -> None:
        self._declare(state)
        for name, variable in self._variables.items():
            variable.assign(state[name])

    async def prepare_restore(self, target: State) -> None:
        self._declare(target)

    def _declare(self, state: State) -> None:
        """Variables full of ones; and something small saved and restored."""
        self._variables = {name: tf.Variable(tf.ones(array.shape, array.dtype)) for name, array in state.items()}
        self._checkpoint = tf.train.Checkpoint(variables=[*self._variables.values()])
        rehearsed = tf.train.Checkpoint(small=tf.Variable(tf.zeros([8])))
        rehearsed.restore(rehearsed.save(str(self.place.path / "small" / "m"))).assert_consumed()

    async def save(self, state: State) -> None:
        await asyncio.to_thread(self._checkpoint.save, str(self.place.path / "run" / "ckpt"))

    async def restore(self, target: State) -> State:
        def restore() -> None:
            latest = tf.train.latest_checkpoint(str(self.place.path / "run"))
            self._checkpoint.restore(latest).assert_existing_objects_matched()

        await asyncio.to_thread(restore)
        return Restored(self._variables, lambda variable: np.asarray(variable.numpy()))
