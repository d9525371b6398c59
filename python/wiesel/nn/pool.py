"""Pooling layers. They have no parameters and leave the depth unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wiesel import ops
from wiesel.nn.arguments import pair, refuse_positional
from wiesel.nn.module import Module

if TYPE_CHECKING:
    from wiesel.graph.tensor import Tensor
    from wiesel.ops.geometry import Fit, Padding


class _Pool(Module):
    """A window that slides over height and width: size and stride (by default the size: windows side by side)."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        *extra: object,
        stride: int | tuple[int, int] | None = None,
        padding: Padding = 0,
        fit: Fit = "floor",
    ) -> None:
        name = type(self).__name__
        if extra:
            refuse_positional(f"{name}(kernel_size, *, stride=kernel_size, padding=0)", f"{name}(kernel_size, stride, padding)", extra)
        self.kernel_size = pair(kernel_size, "kernel_size", name)
        self.stride = self.kernel_size if stride is None else pair(stride, "stride", name)
        self.padding = padding
        self.fit = fit


class MaxPool2d(_Pool):
    """The largest value in each window; on ties the first in row order gets the gradient. Padding never wins.

    Parameters
    ----------
    kernel_size : int or (height, width).
    stride : by default kernel_size; smaller ones overlap, as in AlexNet (size 3, stride 2).
    padding, fit : as in ``Conv2d``.

    >>> import numpy as np
    >>> from wiesel import nn
    >>> nn.MaxPool2d(2)(np.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])[None, ..., None])[0, ..., 0]
    array([[6., 8.],
           [3., 4.]], dtype=float32)
    """

    def forward(self, x: Tensor) -> Any:
        return ops.max_pool2d(x, self.kernel_size, stride=self.stride, padding=self.padding, fit=self.fit)


class AvgPool2d(_Pool):
    """The mean of each window. ``count_padding`` tells whether padding counts as zeros (the default, as in torch) or not at all.

    Other parameters as in ``MaxPool2d``.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        *extra: object,
        stride: int | tuple[int, int] | None = None,
        padding: Padding = 0,
        fit: Fit = "floor",
        count_padding: bool = True,
    ) -> None:
        super().__init__(kernel_size, *extra, stride=stride, padding=padding, fit=fit)
        self.count_padding = bool(count_padding)

    def forward(self, x: Tensor) -> Any:
        return ops.avg_pool2d(x, self.kernel_size, stride=self.stride, padding=self.padding, fit=self.fit, count_padding=self.count_padding)


class SumPool2d(_Pool):
    """The sum of each window: the average times the window's area. Parameters as in ``MaxPool2d``."""

    def forward(self, x: Tensor) -> Any:
        return ops.sum_pool2d(x, self.kernel_size, stride=self.stride, padding=self.padding, fit=self.fit)


class GlobalAvgPool2d(Module):
    """The mean over height and width: (n, h, w, c) -> (n, c)."""

    def forward(self, x: Tensor) -> Any:
        return ops.global_avg_pool2d(x)


class GlobalMaxPool2d(Module):
    """The maximum over height and width: (n, h, w, c) -> (n, c)."""

    def forward(self, x: Tensor) -> Any:
        return ops.global_max_pool2d(x)
