"""Layers that rearrange, join or pass on tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wiesel import ops
from wiesel.graph.ir import BATCH
from wiesel.nn.module import Module

if TYPE_CHECKING:
    from wiesel.graph.tensor import Tensor


class Flatten(Module):
    """(n, h, w, c) -> (n, h·w·c), in the order of memory: row, column, channel; feature (y·w + x)·c + channel."""

    def forward(self, x: Tensor) -> Any:
        return ops.flatten(x)


class Reshape(Module):
    """(n, …) -> (n, *shape); one extent may be -1.

    >>> import numpy as np
    >>> from wiesel import nn
    >>> nn.Reshape(2, 3)(np.zeros((5, 6))).shape
    (5, 2, 3)
    """

    def __init__(self, *shape: int) -> None:
        self.shape = tuple(int(extent) for extent in shape)

    def forward(self, x: Tensor) -> Any:
        return ops.reshape(x, (BATCH, *self.shape))


class Identity(Module):
    """y = x."""

    def forward(self, x: Tensor) -> Any:
        return x


class Concat(Module):
    """Joins its inputs along an axis, by default the channels ("depth concatenation").

    >>> import numpy as np
    >>> from wiesel import nn
    >>> nn.Concat()(np.zeros((1, 2, 2, 3)), np.zeros((1, 2, 2, 5))).shape
    (1, 2, 2, 8)
    """

    def __init__(self, *, axis: int = -1) -> None:
        self.axis = int(axis)

    def forward(self, *tensors: Tensor) -> Any:
        return ops.concat(tensors, axis=self.axis)


class Add(Module):
    """The sum of its inputs, by NumPy's broadcasting: the shortcut of a residual block."""

    def forward(self, *tensors: Tensor) -> Any:
        total = tensors[0]
        for tensor in tensors[1:]:
            total = total + tensor
        return total
