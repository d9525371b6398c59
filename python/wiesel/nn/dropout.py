"""Dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wiesel import ops
from wiesel.nn.arguments import share
from wiesel.nn.module import Module

if TYPE_CHECKING:
    from wiesel.graph.tensor import Tensor


class Dropout(Module):
    """In training sets a share ``rate`` of the values to zero, chosen anew each step, and scales the rest by 1 / (1 - rate)
    (Srivastava et al. 2014; "inverted" scaling, so that the expectation stays). In inference nothing happens, and no step is made.

    Which values: a function of (seed, step, layer path, sample, element) alone.

    >>> from wiesel import nn
    >>> nn.Dropout(0.25).rate
    0.25
    """

    def __init__(self, rate: float = 0.5) -> None:
        self.rate = share(rate, "rate", "Dropout")

    def forward(self, x: Tensor) -> Any:
        return ops.dropout(x, self.rate) if self.training and self.rate > 0.0 else x
