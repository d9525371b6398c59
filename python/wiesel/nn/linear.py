"""The fully connected layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wiesel import ops
from wiesel.nn import init
from wiesel.nn.activation import activate, check_activation
from wiesel.nn.arguments import positive, refuse_positional
from wiesel.nn.module import Module
from wiesel.ops.arguments import show

if TYPE_CHECKING:
    from wiesel.graph.tensor import Tensor


class Linear(Module):
    """y = x @ weight + bias over the last axis.

    Parameters
    ----------
    out_features : columns of ``weight``, which has shape (in, out_features).
    bias : adds one learned number per output.
    activation : name of a function of ``wiesel.nn`` applied to the output, such as "relu".

    >>> from wiesel import nn
    >>> nn.Linear(1000).build((4096,)).parameter_count
    4097000
    """

    def __init__(self, out_features: int, *extra: object, bias: bool = True, activation: str | None = None) -> None:
        if extra:
            refuse_positional("Linear(out_features, *, bias=True, activation=None)", "Linear(in_features, out_features)", extra)
        self.out_features = positive(out_features, "out_features", "Linear")
        self.has_bias = bool(bias)
        self.activation = check_activation(activation, "Linear")

    def forward(self, x: Tensor) -> Any:
        if len(x.shape) < 2:
            raise ValueError(f"expected x of shape (n, features), got {show(x.shape)}")
        features = x.shape[-1]
        built = self.variable("weight")
        if built and features != built.shape[0]:
            mend = "a Flatten layer before it?" if len(x.shape) > 2 else "the picture size or an earlier layer has changed since"
            raise ValueError(f"built for {built.shape[0]} input features, got {features} in {show(x.shape)}; {mend}")
        shape = (features, self.out_features)
        weight = self.parameter("weight", shape, init.he_normal(features, init.gain_of(self.activation)))
        bias = self.parameter("bias", (self.out_features,), init.constant(0.0)) if self.has_bias else None
        return activate(ops.linear(x, weight, bias), self.activation)
