"""Random changes of training pictures, applied batch by batch while the batches are prepared."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Augmentation(Protocol):
    """Changes pictures at random. Stateless: all chance comes in as numbers, so batches do not depend on who prepares them."""

    draws: int
    """Uniform random numbers wanted per picture."""

    def __call__(self, source: NDArray[Any], uniform: NDArray[np.float32], out: NDArray[Any]) -> None:
        """Writes the changed pictures of ``source`` (n, h, w, c) to ``out``, by ``uniform`` (n, draws) in [0, 1)."""


class CropFlip:
    """Shifts each picture by up to ``pad`` pixels up, down and sideways, ``fill`` coming in at the edge, and mirrors every second one.

    The usual recipe for CIFAR: random crops of the padded picture (He et al. 2015, arXiv:1512.03385, section 4.2).
    """

    draws = 3

    def __init__(self, pad: int = 4, *, flip: bool = True, fill: int = 0) -> None:
        if pad < 0:
            raise ValueError(f"CropFlip: pad must be 0 or more, got {pad}")
        self.pad = pad
        self.flip = flip
        self.fill = fill

    def __repr__(self) -> str:
        return f"CropFlip({self.pad}, flip={self.flip}, fill={self.fill})"

    def __call__(self, source: NDArray[Any], uniform: NDArray[np.float32], out: NDArray[Any]) -> None:
        height, width = source.shape[1:3]
        if self.pad >= min(height, width):
            raise ValueError(f"CropFlip: pad {self.pad} is too large for pictures of {height} x {width}")
        shifts = (uniform[:, :2] * (2 * self.pad + 1)).astype(np.int64) - self.pad
        mirrored = (uniform[:, 2] < 0.5) & self.flip
        out[...] = self.fill
        for picture, target, (dy, dx), mirror in zip(source, out, shifts.tolist(), mirrored.tolist(), strict=True):
            if mirror:
                picture = picture[:, ::-1]
            ys, xs = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
            yd, xd = slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0))
            target[yd, xd] = picture[ys, xs]
