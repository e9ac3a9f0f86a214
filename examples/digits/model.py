"""What is trained: a multilayer perceptron on scikit-learn's digits, in NumPy, to the bit the same every time.

Everything that the next step depends on lives in one `TrainingState`, the random generator and the order of the current
epoch included. Nothing in this file knows about checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import distribution
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

BATCH = 128
KEEP = np.float32(0.9)
"""Dropout: the share of hidden units that stay."""


@dataclass(frozen=True, slots=True)
class Digits:
    """Handwritten digits: images are float32 ``[n, 64]`` in 0..1, labels are int64 ``[n]``."""

    images: Floats
    labels: Labels
    test_images: Floats
    test_labels: Labels


@dataclass(slots=True)
class TrainingState:
    """All that a resumed training needs to go on as if nothing had happened.

    Attributes:
        step: steps done.
        epoch: epochs begun, from 0.
        position: how far the current epoch has come in ``order``.
        order: the shuffled order of the current epoch, int64 ``[n]``.
        params: weights and biases by name, float32.
        first_moment: Adam's running mean of the gradients, as ``params``.
        second_moment: Adam's running mean of their squares, as ``params``.
        rng: the state of the random generator; holds integers of 128 bits.
        best_accuracy: on held-out images, at any step that was evaluated; None before the first.
        losses: the loss of each step, float64 ``[steps]``, NaN where it has not come yet.
    """

    step: int
    epoch: int
    position: int
    order: NDArray[np.int64]
    params: dict[str, Floats]
    first_moment: dict[str, Floats]
    second_moment: dict[str, Floats]
    rng: dict[str, Any]
    best_accuracy: float | None
    losses: NDArray[np.float64]


def load_data() -> Digits:
    """Return the 1797 digits that come with scikit-learn; every fifth is held out."""
    # The file itself: importing scikit-learn takes longer than the training.
    path = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(path), np.float32, delimiter=",")
    images = table[:, :-1] / np.float32(16)
    labels = table[:, -1].astype(np.int64)
    held_out = np.arange(len(labels)) % 5 == 0
    return Digits(images[~held_out], labels[~held_out], images[held_out], labels[held_out])


def new_state(*, samples: int, steps: int, hidden: int, seed: int) -> TrainingState:
    """Return the state before the first step.

    Args:
        samples: images in the training set.
        steps: how long the training will be.
        hidden: width of both hidden layers.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    sizes = [64, hidden, hidden, 10]
    params: dict[str, Floats] = {}
    for layer, (rows, columns) in enumerate(pairwise(sizes), 1):
        params[f"w{layer}"] = rng.standard_normal((rows, columns), np.float32) * np.float32(np.sqrt(2 / rows))
        params[f"b{layer}"] = np.zeros(columns, np.float32)
    return TrainingState(
        step=0,
        epoch=0,
        position=0,
        order=rng.permutation(samples),
        params=params,
        first_moment={name: np.zeros_like(value) for name, value in params.items()},
        second_moment={name: np.zeros_like(value) for name, value in params.items()},
        rng=dict(rng.bit_generator.state),
        best_accuracy=None,
        losses=np.full(steps, np.nan),
    )


def train_step(state: TrainingState, digits: Digits) -> float:
    """Do one step of Adam, changing ``state`` in place; return the loss of the batch."""
    rng = np.random.default_rng()
    rng.bit_generator.state = state.rng
    if state.position + BATCH > len(state.order):
        state.epoch += 1
        state.position = 0
        state.order[:] = rng.permutation(len(state.order))
    batch = state.order[state.position : state.position + BATCH]
    loss, gradients = _gradients(state.params, digits.images[batch], digits.labels[batch], rng)
    _adam(state, gradients)
    state.losses[state.step] = loss
    state.step += 1
    state.position += BATCH
    state.rng = dict(rng.bit_generator.state)
    return loss


def accuracy(params: dict[str, Floats], digits: Digits) -> float:
    """Return the share of held-out images that are recognised, 0..1."""
    hidden = np.maximum(digits.test_images @ params["w1"] + params["b1"], 0)
    hidden = np.maximum(hidden @ params["w2"] + params["b2"], 0)
    guesses = np.argmax(hidden @ params["w3"] + params["b3"], axis=1)
    return float(np.mean(guesses == digits.test_labels))


def _gradients(
    params: dict[str, Floats], images: Floats, labels: Labels, rng: np.random.Generator
) -> tuple[float, dict[str, Floats]]:
    hidden1 = np.maximum(images @ params["w1"] + params["b1"], 0)
    hidden1 *= (rng.random(hidden1.shape, np.float32) < KEEP) / KEEP
    hidden2 = np.maximum(hidden1 @ params["w2"] + params["b2"], 0)
    hidden2 *= (rng.random(hidden2.shape, np.float32) < KEEP) / KEEP
    logits = hidden2 @ params["w3"] + params["b3"]

    logits -= logits.max(axis=1, keepdims=True)
    exponentials = np.exp(logits)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = float(-np.mean(np.log(probabilities[rows, labels]), dtype=np.float64))

    error3 = probabilities
    error3[rows, labels] -= 1
    error3 /= np.float32(len(labels))
    # A dropped unit is 0 after the mask, so the sign of the activation carries ReLU and mask; the scale is 1 / KEEP.
    error2 = (error3 @ params["w3"].T) * (hidden2 > 0) / KEEP
    error1 = (error2 @ params["w2"].T) * (hidden1 > 0) / KEEP
    return loss, {
        "w1": images.T @ error1,
        "b1": error1.sum(axis=0),
        "w2": hidden1.T @ error2,
        "b2": error2.sum(axis=0),
        "w3": hidden2.T @ error3,
        "b3": error3.sum(axis=0),
    }


def _adam(state: TrainingState, gradients: dict[str, Floats]) -> None:
    beta1, beta2, epsilon = np.float32(0.9), np.float32(0.999), np.float32(1e-8)
    time = state.step + 1
    rate = np.float32(1e-3 * np.sqrt(1 - 0.999**time) / (1 - 0.9**time))
    for name, gradient in gradients.items():
        first, second = state.first_moment[name], state.second_moment[name]
        first += (1 - beta1) * (gradient - first)
        second += (1 - beta2) * (gradient * gradient - second)
        state.params[name] -= rate * first / (np.sqrt(second) + epsilon)
