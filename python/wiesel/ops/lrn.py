"""Local response normalisation (Krizhevsky et al. 2012): each channel is divided by the energy of its neighbours.

y[c] = x[c] / s[c] ** beta,   s[c] = k + alpha / size * sum of x[j]**2 for j from c - size // 2 to c + (size - 1) // 2
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from wiesel.graph.ir import Builder, Node, Type, Value
from wiesel.ops.arguments import TensorLike, present, require_dtype, same_shape
from wiesel.ops.base import Cost, Op, register
from wiesel.ops.dispatch import call

_DEFAULTS: Mapping[str, Any] = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0}


def _window_sum(x: np.ndarray, before: int, after: int) -> np.ndarray:
    """For each channel the sum over ``before`` channels in front of it, itself, and ``after`` behind it."""
    channels = x.shape[-1]
    wide = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, after)])
    return np.asarray(sum(wide[..., i : i + channels] for i in range(before + 1 + after)))


def _energy(attrs: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    size = attrs["size"]
    return np.asarray(attrs["k"] + attrs["alpha"] / size * _window_sum(x * x, size // 2, (size - 1) // 2))


@register
class Lrn(Op):
    """x -> y."""

    name = "lrn"
    defaults: ClassVar[Mapping[str, Any]] = _DEFAULTS

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x = present(self.name, "x", types[0])
        require_dtype(self.name, "x", x, "f32")
        if x.rank < 2:
            raise ValueError(f"local_response_norm: expected x of shape (n, …, c), got {x}")
        return (x,)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        return [b.op("lrn_bwd", node.inputs[0], node.outputs[0], douts[0], **node.attrs)]

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        return (0,), (0,)

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray) -> tuple[np.ndarray, ...]:
        return (x * _energy(attrs, x) ** -attrs["beta"],)

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        return Cost(flops=outs[0].elements(1) * (attrs["size"] + 20))


@register
class LrnBwd(Op):
    """x, y, dy -> dx[i] = dy[i] * s[i]**-beta - 2 alpha beta / size * x[i] * sum of dy[c] y[c] / s[c] over the c whose window holds i."""

    name = "lrn_bwd"
    defaults: ClassVar[Mapping[str, Any]] = _DEFAULTS

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x = present(self.name, "x", types[0])
        for name, t in (("y", types[1]), ("dy", types[2])):
            same_shape(self.name, name, present(self.name, name, t), x.shape)
        return (x,)

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        return (0, 1, 2), (0,)

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray, y: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, ...]:
        size, energy = attrs["size"], _energy(attrs, x)
        through = _window_sum(dy * y / energy, (size - 1) // 2, size // 2)  # the window, seen from the other side
        return (dy * energy ** -attrs["beta"] - 2 * attrs["alpha"] * attrs["beta"] / size * x * through,)

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        return Cost(flops=outs[0].elements(1) * (2 * attrs["size"] + 20))


def local_response_norm(x: TensorLike, size: int = 5, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """``y[c] = x[c] / (k + alpha / size * sum of x**2 over size neighbouring channels) ** beta``, channels last.

    The division of alpha by the size is torch's convention (AlexNet's paper has alpha for the plain sum).

    >>> local_response_norm([[3.0, 0.0]], size=1, alpha=1.0, beta=1.0, k=1.0).round(4)
    array([[0.3, 0. ]], dtype=float32)
    """
    return call("lrn", [x], _attrs("local_response_norm", size, alpha, beta, k))


def local_response_norm_backward(
    dy: TensorLike, x: TensorLike, size: int = 5, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Any:
    """Gradient of ``local_response_norm`` for x."""
    attrs = _attrs("local_response_norm_backward", size, alpha, beta, k)
    return call("lrn_bwd", [x, call("lrn", [x], attrs), dy], attrs)


def _attrs(op: str, size: int, alpha: float, beta: float, k: float) -> dict[str, Any]:
    if size < 1:
        raise ValueError(f"{op}: size must be at least 1, got {size}")
    if not k > 0 or not alpha >= 0:
        raise ValueError(f"{op}: k must be positive and alpha not negative, got k={k}, alpha={alpha}")
    return {"size": int(size), "alpha": float(alpha), "beta": float(beta), "k": float(k)}
