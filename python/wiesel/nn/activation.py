"""Activations: as layers, and by name in the ``activation`` argument of other layers. The formulas are those of ``wiesel.ops``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wiesel import ops
from wiesel.nn import init
from wiesel.nn.module import Module

if TYPE_CHECKING:
    from wiesel.graph.tensor import Tensor

ACTIVATIONS = (
    "relu", "relu6", "leaky_relu", "sigmoid", "tanh", "elu", "selu", "gelu", "silu", "softplus", "hard_swish",
    "hard_sigmoid", "softmax", "log_softmax",
)  # fmt: skip
"""Names that ``activation=`` takes; each is a function of ``wiesel.ops``, used with its default constants."""


def check_activation(name: Any, layer: str) -> str | None:
    if name is None or name in ACTIVATIONS:
        return name  # type: ignore[no-any-return]
    raise ValueError(f"{layer}: activation must be None or one of {', '.join(ACTIVATIONS)}; got {name!r}")


def activate(x: Tensor, name: str | None) -> Any:
    """``x`` through the activation called ``name``; None leaves it."""
    return x if name is None else getattr(ops, name)(x)


class _Elementwise(Module):
    """An activation without parameters: ``function`` of ``wiesel.ops``."""

    function: str

    def forward(self, x: Tensor) -> Any:
        return activate(x, self.function)


class ReLU(_Elementwise):
    """max(0, x). At 0 the gradient is 0; NaN passes through."""

    function = "relu"


class ReLU6(_Elementwise):
    """min(max(0, x), 6), as in MobileNet."""

    function = "relu6"


class LeakyReLU(Module):
    """x where x > 0, slope · x elsewhere."""

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = float(slope)

    def forward(self, x: Tensor) -> Any:
        return ops.leaky_relu(x, self.slope)


class PReLU(Module):
    """x where x > 0, weight · x elsewhere, with one learned slope per channel (He et al. 2015) or, ``shared=True``, one for all."""

    def __init__(self, *, initial: float = 0.25, shared: bool = False) -> None:
        self.initial = float(initial)
        self.shared = bool(shared)

    def forward(self, x: Tensor) -> Any:
        slope = self.parameter("weight", (1 if self.shared else x.shape[-1],), init.constant(self.initial))
        return ops.prelu(x, slope)


class Sigmoid(_Elementwise):
    """1 / (1 + exp(-x))."""

    function = "sigmoid"


class Tanh(_Elementwise):
    """tanh(x)."""

    function = "tanh"


class ELU(Module):
    """x where x > 0, alpha · (exp(x) - 1) elsewhere (Clevert et al. 2015)."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = float(alpha)

    def forward(self, x: Tensor) -> Any:
        return ops.elu(x, self.alpha)


class SELU(_Elementwise):
    """Scaled ELU with the constants of Klambauer et al. 2017."""

    function = "selu"


class GELU(_Elementwise):
    """x · Φ(x), Φ the normal distribution function, computed exactly."""

    function = "gelu"


class SiLU(_Elementwise):
    """x · sigmoid(x)."""

    function = "silu"


class Softplus(_Elementwise):
    """log(1 + exp(x)), without overflow."""

    function = "softplus"


class HardSwish(_Elementwise):
    """x · min(max(0, x + 3), 6) / 6, as in MobileNet v3."""

    function = "hard_swish"


class HardSigmoid(_Elementwise):
    """min(max(0, x + 3), 6) / 6."""

    function = "hard_sigmoid"


class Softmax(_Elementwise):
    """exp(x) / Σ exp(x) over the last axis. A net for ``loss="cross_entropy"`` ends before it: that loss takes logits."""

    function = "softmax"


class LogSoftmax(_Elementwise):
    """log of the softmax over the last axis."""

    function = "log_softmax"
