"""Initial values of parameters: functions of (seed, path, shape), so equal for any order of construction.

Networks of rectifiers keep the size of their activations when weights have the variance 2 / fan_in (He et al., "Delving Deep into
Rectifiers", 2015); that is the default of every layer. A layer followed by another activation gives its gain: 1 for sigmoid and none,
5/3 for tanh, 3/4 for SELU, sqrt(2 / (1 + slope²)) for leaky ReLU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from wiesel import random

if TYPE_CHECKING:
    from numpy.typing import NDArray

Initialiser = Callable[[tuple[int, ...], int, str], "NDArray[np.float32]"]
"""(shape, seed, path) -> float32 array of that shape."""


def constant(value: float) -> Initialiser:
    """Every element ``value``."""

    def make(shape: tuple[int, ...], seed: int, path: str) -> NDArray[np.float32]:
        return np.full(shape, value, np.float32)

    return make


def array(values: NDArray[np.float32]) -> Initialiser:
    """The values of ``values``, which fixes the shape."""
    kept = np.array(values, np.float32)

    def make(shape: tuple[int, ...], seed: int, path: str) -> NDArray[np.float32]:
        return kept

    return make


def he_normal(fan_in: int, gain: float = math.sqrt(2.0)) -> Initialiser:
    """Normal with mean 0 and standard deviation gain / sqrt(fan_in) (He et al. 2015)."""

    def make(shape: tuple[int, ...], seed: int, path: str) -> NDArray[np.float32]:
        normal = random.fill("normal", shape, seed=seed, purpose=random.INITIALISATION, path=path)
        return np.asarray(normal * np.float32(gain / math.sqrt(fan_in)), np.float32)

    return make


def uniform(bound: float) -> Initialiser:
    """Uniform in [-bound, bound)."""

    def make(shape: tuple[int, ...], seed: int, path: str) -> NDArray[np.float32]:
        unit = random.fill("uniform", shape, seed=seed, purpose=random.INITIALISATION, path=path)
        return np.asarray(unit * np.float32(2 * bound) - np.float32(bound), np.float32)

    return make


def gain_of(activation: str | None, alpha: float = 0.01) -> float:
    """Factor on the standard deviation for weights that feed ``activation`` (see the module's text)."""
    if activation is None:
        return math.sqrt(2.0)  # most often a rectifier or a batch normalisation follows as a layer of its own
    gains = {"sigmoid": 1.0, "hard_sigmoid": 1.0, "softmax": 1.0, "tanh": 5 / 3, "selu": 0.75, "leaky_relu": math.sqrt(2 / (1 + alpha**2))}
    return gains.get(activation, math.sqrt(2.0))


def fan_in_of(shape: Sequence[int]) -> int:
    """Inputs that one output sums over, for weights whose last axis counts the outputs."""
    return math.prod(shape[:-1])
