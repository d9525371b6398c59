"""Random numbers as a function of (seed, purpose, stream, step, …), see docs/naming.md: the same on every machine and for any threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INITIALISATION, SHUFFLE, DROPOUT, AUGMENTATION, SPLIT = range(5)
"""Purposes: two uses of one seed never see the same numbers."""


def stream(path: str) -> int:
    """FNV-1a (32 bits) of a layer's path: a layer's numbers depend on its name, not on the order of construction. 0 without a path.

    >>> stream("features.0")
    2845026132
    """
    if not path:
        return 0
    value = 0x811C9DC5
    for byte in path.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def fill(
    kind: Literal["uniform", "normal"], shape: tuple[int, ...], *, seed: int, purpose: int, path: str = "", step: int = 0
) -> NDArray[np.float32]:
    """Numbers in [0, 1) ("uniform") or of the standard normal distribution ("normal"), float32.

    >>> import wiesel.random as random
    >>> random.fill("uniform", (2, 3), seed=0, purpose=random.SPLIT).shape
    (2, 3)
    """
    from wiesel import _core

    return _core.random_fill(kind, seed, purpose, stream(path), step, shape)


def permutation(n: int, *, seed: int, purpose: int, path: str = "", step: int = 0) -> NDArray[np.int64]:
    """A permutation of 0 … n-1.

    >>> import wiesel.random as random
    >>> sorted(random.permutation(4, seed=0, purpose=random.SHUFFLE).tolist())
    [0, 1, 2, 3]
    """
    from wiesel import _core

    return _core.random_permutation(n, seed, purpose, stream(path), step)
