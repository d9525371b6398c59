"""Softmax and log-softmax over the last axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from wiesel.graph.ir import Builder, Node, Type, Value
from wiesel.ops.arguments import TensorLike, normalize_axes, present, require_dtype, same_shape, shape_of
from wiesel.ops.base import Cost, Op, register
from wiesel.ops.dispatch import call
from wiesel.ops.shape import transpose


class _Softmax(Op):
    defaults: ClassVar[Mapping[str, Any]] = {"log": False}

    def step_attrs(self, attrs: Mapping[str, Any]) -> dict[str, int | float]:
        return {"log": int(attrs["log"])}

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        return Cost(flops=12 * outs[0].elements(1))


@register
class Softmax(_Softmax):
    """x -> y = exp(x - max) / sum(exp(x - max)) over the last axis, or its logarithm."""

    name = "softmax"
    in_place = ((0, 0),)

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x = present(self.name, "x", types[0])
        require_dtype(self.name, "x", x, "f32")
        if x.rank == 0:
            raise ValueError("softmax: x has no axes")
        return (x,)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        return [b.op("softmax_bwd", node.outputs[0], douts[0], log=node.attrs["log"])]

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray) -> tuple[np.ndarray, ...]:
        shifted = x - x.max(axis=-1, keepdims=True)  # no overflow: the largest becomes 0
        total = np.exp(shifted).sum(axis=-1, keepdims=True)
        return (shifted - np.log(total) if attrs["log"] else np.exp(shifted) / total,)


@register
class SoftmaxBwd(_Softmax):
    """y, dy -> dx = y (dy - sum(dy y)), or for the logarithm dy - exp(y) sum(dy)."""

    name = "softmax_bwd"
    in_place = ((1, 0),)

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        y, dy = present(self.name, "y", types[0]), present(self.name, "dy", types[1])
        same_shape(self.name, "dy", dy, y.shape)
        return (dy,)

    def reference(self, attrs: Mapping[str, Any], y: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, ...]:
        if attrs["log"]:
            return (dy - np.exp(y) * dy.sum(axis=-1, keepdims=True),)
        return (y * (dy - (dy * y).sum(axis=-1, keepdims=True)),)


def softmax(x: TensorLike, axis: int = -1) -> Any:
    """Probabilities: ``exp(x) / sum(exp(x))`` along ``axis``, values in [0, 1] that sum to 1. Adding a constant to x changes nothing.

    >>> softmax([[0.0, 0.0, 0.0, 0.0]])
    array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """
    return _along("softmax", x, axis, False)


def log_softmax(x: TensorLike, axis: int = -1) -> Any:
    """``log(softmax(x))`` along ``axis``, without losing small probabilities."""
    return _along("log_softmax", x, axis, True)


def softmax_backward(dy: TensorLike, x: TensorLike, axis: int = -1) -> Any:
    """Gradient of ``softmax``: ``y * (dy - sum(dy * y))`` with ``y = softmax(x)``."""
    rank = len(shape_of(x))
    order = _to_last("softmax", axis, rank)
    if order is None:
        return call("softmax_bwd", [softmax(x), dy], {})
    dx = call("softmax_bwd", [softmax(transpose(x, order)), transpose(dy, order)], {})
    return transpose(dx, order)


def _to_last(op: str, axis: int, rank: int) -> list[int] | None:
    """The order of axes that exchanges ``axis`` with the last one (its own inverse); None when it is the last."""
    found = normalize_axes(op, axis, rank)[0]
    if found == rank - 1:
        return None
    order = list(range(rank))
    order[found], order[-1] = order[-1], order[found]
    return order


def _along(op: str, x: TensorLike, axis: int, log: bool) -> Any:
    order = _to_last(op, axis, len(shape_of(x)))
    if order is None:
        return call("softmax", [x], {"log": log})
    return transpose(call("softmax", [transpose(x, order)], {"log": log}), order)
