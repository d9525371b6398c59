"""Element-wise functions of one tensor: activations, exp, log, sqrt, square, abs, and ``alpha * x + beta``.

Conventions where the derivative does not exist (S-75): ReLU, ReLU6 and leaky ReLU use the derivative from the left (0, 0 and alpha
at 0; at 6 ReLU6 uses 0), hard-sigmoid and hard-swish use 0 below -3 and 0 or 1 from 3 on, the derivative of abs at 0 is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from wiesel.graph.ir import Builder, Node, Type, Value
from wiesel.ops.arguments import TensorLike, present, require_dtype, same_shape
from wiesel.ops.base import Cost, Op, register
from wiesel.ops.dispatch import call
from wiesel.ops.kinds import unary_number

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
"""Constants of Klambauer et al. 2017, with which activations keep mean 0 and variance 1."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One function: ``f(x, alpha, beta)``, and its derivative in terms of what the gradient rule keeps (``saves``: x, y or n, nothing)."""

    saves: str
    f: Callable[[Any, float, float], Any]
    df: Callable[[Any, float, float], Any]
    flops: int = 1


def _sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _normal_cdf(x: Any) -> Any:
    erf = np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2))
    return (0.5 * (1 + erf)).astype(x.dtype)


def _normal_density(x: Any) -> Any:
    return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _elu(x: Any, alpha: float) -> Any:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


KINDS: Mapping[str, Kind] = {
    "none": Kind("n", lambda x, a, b: x, lambda s, a, b: np.ones_like(s), 0),
    "relu": Kind("y", lambda x, a, b: np.maximum(x, 0), lambda y, a, b: np.where(y <= 0, 0, 1)),
    "relu6": Kind("y", lambda x, a, b: np.minimum(np.maximum(x, 0), 6), lambda y, a, b: np.where((y <= 0) | (y >= 6), 0, 1), 2),
    "leaky_relu": Kind("y", lambda x, a, b: np.where(x > 0, x, a * x), lambda y, a, b: np.where(y > 0, 1, a), 2),
    "sigmoid": Kind("y", lambda x, a, b: _sigmoid(x), lambda y, a, b: y * (1 - y), 10),
    "tanh": Kind("y", lambda x, a, b: np.tanh(x), lambda y, a, b: 1 - y * y, 10),
    "elu": Kind("y", lambda x, a, b: _elu(x, a), lambda y, a, b: np.where(y > 0, 1, y + a), 10),
    "selu": Kind(
        "y",
        lambda x, a, b: SELU_SCALE * _elu(x, SELU_ALPHA),
        lambda y, a, b: np.where(y > 0, SELU_SCALE, y + SELU_SCALE * SELU_ALPHA),
        10,
    ),
    "gelu": Kind("x", lambda x, a, b: x * _normal_cdf(x), lambda x, a, b: _normal_cdf(x) + x * _normal_density(x), 12),
    "silu": Kind("x", lambda x, a, b: x * _sigmoid(x), lambda x, a, b: _sigmoid(x) * (1 + x * (1 - _sigmoid(x))), 11),
    "softplus": Kind("x", lambda x, a, b: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), lambda x, a, b: _sigmoid(x), 14),
    "hard_swish": Kind(
        "x",
        lambda x, a, b: x * np.clip(x + 3, 0, 6) / 6,
        lambda x, a, b: np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5)),
        5,
    ),
    "hard_sigmoid": Kind("x", lambda x, a, b: np.clip(x + 3, 0, 6) / 6, lambda x, a, b: np.where((x <= -3) | (x >= 3), 0, 1 / 6), 4),
    "exp": Kind("y", lambda x, a, b: np.exp(x), lambda y, a, b: y, 8),
    "log": Kind("x", lambda x, a, b: np.log(x), lambda x, a, b: 1 / x, 8),
    "sqrt": Kind("y", lambda x, a, b: np.sqrt(x), lambda y, a, b: 0.5 / y, 4),
    "square": Kind("x", lambda x, a, b: x * x, lambda x, a, b: 2 * x),
    "abs": Kind("x", lambda x, a, b: np.abs(x), lambda x, a, b: np.sign(x)),
    "affine": Kind("n", lambda x, a, b: a * x + b, lambda s, a, b: np.full_like(s, a), 2),
}
"""Every function, by the name it has in ``cpp/ops/kinds.h``."""

PIECEWISE_LINEAR = frozenset({"none", "relu", "relu6", "leaky_relu", "hard_sigmoid", "abs", "affine"})


class _Unary(Op):
    defaults: ClassVar[Mapping[str, Any]] = {"kind": "none", "alpha": 0.0, "beta": 0.0}
    in_place = ((0, 0),)

    def complete(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        found = super().complete(attrs)
        if found["kind"] not in KINDS:
            raise ValueError(f"{self.name}: no function named {found['kind']!r}; known: {', '.join(sorted(KINDS))}")
        return found

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        return range(len(node.inputs)), (0,)

    def step_attrs(self, attrs: Mapping[str, Any]) -> dict[str, int | float]:
        return {"kind": unary_number(attrs["kind"]), "alpha": float(attrs["alpha"]), "beta": float(attrs["beta"])}

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        return Cost(flops=outs[0].elements(1) * KINDS[attrs["kind"]].flops)


@register
class Unary(_Unary):
    """x -> y = kind(x)."""

    name = "unary"

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x = present(attrs["kind"], "x", types[0])
        require_dtype(attrs["kind"], "x", x, "f32")
        return (x,)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        dy, attrs = douts[0], node.attrs
        saves = KINDS[attrs["kind"]].saves
        if attrs["kind"] == "none":
            return [dy]
        if attrs["kind"] == "affine":
            return [b.op("unary", dy, kind="affine", alpha=attrs["alpha"])]
        return [b.op("unary_bwd", node.outputs[0] if saves == "y" else node.inputs[0], dy, **attrs)]

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.asarray(KINDS[attrs["kind"]].f(x, attrs["alpha"], attrs["beta"]), dtype=x.dtype),)


@register
class UnaryBwd(_Unary):
    """s, dy -> dx = dy * kind'(x), where s is the output or the input, as ``Kind.saves`` says.

    With ``sums`` also the sum of dx over all axes but the last, the gradient of a bias.
    """

    name = "unary_bwd"
    defaults: ClassVar[Mapping[str, Any]] = {**_Unary.defaults, "sums": False}
    in_place = ((1, 0),)

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        s, dy = present(self.name, "s", types[0]), present(self.name, "dy", types[1])
        require_dtype(self.name, "dy", dy, "f32")
        same_shape(self.name, "dy", dy, s.shape)
        return (dy, Type(dy.shape[-1:])) if attrs["sums"] else (dy,)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        if node.attrs["sums"]:
            raise ValueError("unary_bwd: differentiate before sums are fused")
        if needed[0] and node.attrs["kind"] not in PIECEWISE_LINEAR:
            raise NotImplementedError(f"the second derivative of {node.attrs['kind']} is not available")
        return [None, b.op("unary_bwd", node.inputs[0], douts[0], **node.attrs) if needed[1] else None]

    def reference(self, attrs: Mapping[str, Any], s: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, ...]:
        dx = (dy * KINDS[attrs["kind"]].df(s, attrs["alpha"], attrs["beta"])).astype(dy.dtype)
        return (dx, dx.sum(tuple(range(dx.ndim - 1)))) if attrs["sums"] else (dx,)


def activation(x: TensorLike, kind: str, *, alpha: float | None = None) -> Any:
    """The activation called ``kind``: any name of ``KINDS``, with its default parameter unless ``alpha`` is given.

    >>> activation([-1.0, 2.0], "relu")
    array([0., 2.], dtype=float32)
    """
    return call("unary", [x], activation_attrs(kind, alpha))


def activation_attrs(kind: str, alpha: float | None = None) -> dict[str, Any]:
    """Attributes of ``unary`` for an activation; ValueError for one that does not exist or a parameter that it cannot have."""
    if kind not in KINDS:
        raise ValueError(f"no activation named {kind!r}; known: {', '.join(sorted(KINDS))}")
    default = {"leaky_relu": 0.01, "elu": 1.0}.get(kind)
    if alpha is not None and default is None:
        raise ValueError(f"{kind} has no parameter alpha")
    if alpha is not None and not 0 < alpha < math.inf:
        raise ValueError(f"{kind}: alpha must be a positive number, got {alpha}")
    if default is None:
        return {"kind": kind}
    return {"kind": kind, "alpha": default if alpha is None else float(alpha)}


def activation_backward(dy: TensorLike, x: TensorLike, kind: str, *, alpha: float | None = None) -> Any:
    """``dx = dy * kind'(x)`` for any activation by name: the gradient of its input from that of its output.

    >>> activation_backward([1.0, 1.0, 1.0], [-1.0, 0.0, 2.0], "relu")
    array([0., 0., 1.], dtype=float32)
    """
    attrs = activation_attrs(kind, alpha)
    if kind == "none":
        return call("unary", [dy], attrs)
    saved = call("unary", [x], attrs) if KINDS[kind].saves == "y" else x
    return call("unary_bwd", [saved, dy], attrs)


def relu(x: TensorLike) -> Any:
    """``max(0, x)``, element by element; NaN passes through. The derivative at 0 is 0.

    Nair and Hinton 2010.

    >>> relu([-2.0, 0.0, 3.0])
    array([0., 0., 3.], dtype=float32)
    """
    return call("unary", [x], {"kind": "relu"})


def relu_backward(dy: TensorLike, x: TensorLike) -> Any:
    """Gradient of ``relu``: ``dy`` where ``x > 0``, else 0."""
    return activation_backward(dy, x, "relu")


def relu6(x: TensorLike) -> Any:
    """``min(max(x, 0), 6)`` (MobileNet, Howard et al. 2017).

    >>> relu6([-1.0, 3.0, 8.0])
    array([0., 3., 6.], dtype=float32)
    """
    return call("unary", [x], {"kind": "relu6"})


def leaky_relu(x: TensorLike, alpha: float = 0.01) -> Any:
    """``x`` where positive, else ``alpha * x`` with ``alpha > 0`` (Maas et al. 2013).

    >>> leaky_relu([-2.0, 2.0], alpha=0.5)
    array([-1.,  2.], dtype=float32)
    """
    return activation(x, "leaky_relu", alpha=alpha)


def prelu(x: TensorLike, alpha: TensorLike) -> Any:
    """``max(0, x) + alpha * min(0, x)`` with a learned ``alpha`` of shape (c,), or (1,) for one slope (He et al. 2015).

    Composed of existing ops, so both gradients follow: ``dalpha`` sums ``dy * min(0, x)`` over everything but the channels.

    >>> prelu([[-2.0, -2.0]], [0.5, 0.25])
    array([[-1. , -0.5]], dtype=float32)
    """
    negative_part = call("binary", [relu(x), x], {"kind": "sub"})  # max(0, -x)
    return call("binary", [relu(x), call("binary", [negative_part, alpha], {"kind": "mul"})], {"kind": "sub"})


def sigmoid(x: TensorLike) -> Any:
    """``1 / (1 + exp(-x))``; no overflow for any x. Its derivative is at most 0.25, which is why long chains of it vanish.

    >>> sigmoid([-1000.0, 0.0, 1000.0])
    array([0. , 0.5, 1. ], dtype=float32)
    """
    return call("unary", [x], {"kind": "sigmoid"})


def sigmoid_backward(dy: TensorLike, x: TensorLike) -> Any:
    """Gradient of ``sigmoid``: ``dy * y * (1 - y)`` with ``y = sigmoid(x)``."""
    return activation_backward(dy, x, "sigmoid")


def tanh(x: TensorLike) -> Any:
    """Hyperbolic tangent.

    >>> tanh([0.0, 20.0])
    array([0., 1.], dtype=float32)
    """
    return call("unary", [x], {"kind": "tanh"})


def tanh_backward(dy: TensorLike, x: TensorLike) -> Any:
    """Gradient of ``tanh``: ``dy * (1 - y * y)`` with ``y = tanh(x)``."""
    return activation_backward(dy, x, "tanh")


def elu(x: TensorLike, alpha: float = 1.0) -> Any:
    """``x`` where positive, else ``alpha * (exp(x) - 1)`` with ``alpha > 0`` (Clevert et al. 2015)."""
    return activation(x, "elu", alpha=alpha)


def selu(x: TensorLike) -> Any:
    """``scale * elu(x, alpha)`` with scale 1.0507 and alpha 1.6733 (Klambauer et al. 2017)."""
    return call("unary", [x], {"kind": "selu"})


def gelu(x: TensorLike) -> Any:
    """``x * Phi(x)``, Phi the normal distribution function, exact (Hendrycks and Gimpel 2016)."""
    return call("unary", [x], {"kind": "gelu"})


def silu(x: TensorLike) -> Any:
    """``x * sigmoid(x)``, also called swish (Elfwing et al. 2017)."""
    return call("unary", [x], {"kind": "silu"})


def softplus(x: TensorLike) -> Any:
    """``log(1 + exp(x))``, a smooth ReLU; no overflow for any x."""
    return call("unary", [x], {"kind": "softplus"})


def hard_swish(x: TensorLike) -> Any:
    """``x * relu6(x + 3) / 6`` (MobileNet v3, Howard et al. 2019)."""
    return call("unary", [x], {"kind": "hard_swish"})


def hard_sigmoid(x: TensorLike) -> Any:
    """``relu6(x + 3) / 6`` (Howard et al. 2019)."""
    return call("unary", [x], {"kind": "hard_sigmoid"})


def exp(x: TensorLike) -> Any:
    """``e ** x``."""
    return call("unary", [x], {"kind": "exp"})


def log(x: TensorLike) -> Any:
    """Natural logarithm: -inf at 0, NaN below."""
    return call("unary", [x], {"kind": "log"})


def sqrt(x: TensorLike) -> Any:
    """Square root: NaN below 0; the derivative at 0 is infinite."""
    return call("unary", [x], {"kind": "sqrt"})


def square(x: TensorLike) -> Any:
    """``x * x``."""
    return call("unary", [x], {"kind": "square"})


def abs(x: TensorLike) -> Any:
    """Absolute value. The derivative at 0 is 0."""
    return call("unary", [x], {"kind": "abs"})


def affine(x: TensorLike, alpha: float, beta: float = 0.0) -> Any:
    """``alpha * x + beta`` with two numbers, rounded once.

    >>> affine([1.0, 2.0], 2.0, 1.0)
    array([3., 5.], dtype=float32)
    """
    return call("unary", [x], {"kind": "affine", "alpha": float(alpha), "beta": float(beta)})


def negative(x: TensorLike) -> Any:
    """``-x``."""
    return affine(x, -1.0)
