"""Sum, mean and maximum over axes. Where a maximum occurs several times its gradient is shared equally (S-75)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wiesel.graph.ir import BATCH, Builder, Node, Type, Value
from wiesel.ops.arguments import TensorLike, normalize_axes, present, require_dtype, shape_of
from wiesel.ops.base import Cost, Op, register
from wiesel.ops.dispatch import call
from wiesel.ops.kinds import reduce_number

if TYPE_CHECKING:
    from wiesel.program.emit import Emitter

KINDS: Mapping[str, Any] = {"sum": np.sum, "mean": np.mean, "max": np.max}
"""Every function, by the name it has in ``cpp/ops/kinds.h``."""


@register
class Reduce(Op):
    """x -> y = kind(x) over ``axes`` (a sorted tuple), which have extent 1 in y or are dropped. The mean divides by the batch that runs."""

    name = "reduce"
    defaults: ClassVar[Mapping[str, Any]] = {"kind": "sum", "axes": (), "keepdims": False}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        if attrs["kind"] not in KINDS:
            raise ValueError(f"reduce: no function named {attrs['kind']!r}; known: {', '.join(sorted(KINDS))}")
        x = present(attrs["kind"], "x", types[0])
        require_dtype(attrs["kind"], "x", x, "f32")
        axes = normalize_axes(attrs["kind"], attrs["axes"], x.rank)
        kept = _kept_shape(x.shape, axes)
        return (Type(kept if attrs["keepdims"] else tuple(e for i, e in enumerate(kept) if i not in axes)),)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        x, y, dy, kind = node.inputs[0], node.outputs[0], douts[0], node.attrs["kind"]
        assert x is not None and dy is not None
        kept = _kept_shape(x.shape, normalize_axes(kind, node.attrs["axes"], x.type.rank))
        if dy.shape != kept:
            dy = b.op("reshape", dy, shape=kept)
        if kind == "mean":
            dy = _divide_by_count(b, dy, x, kept)
        if kind == "max":
            y_kept = y if y.shape == kept else b.op("reshape", y, shape=kept)
            hits = b.op("binary", x, y_kept, kind="equal")
            count = b.op("reduce", hits, kind="sum", axes=node.attrs["axes"], keepdims=True)
            return [b.op("binary", hits, b.op("binary", dy, count, kind="div"), kind="mul")]
        if kept == x.shape:
            return [dy]
        like = (x,) if x.type.has_batch and kept[0] != BATCH else ()
        return [b.op("broadcast", dy, *like, shape=x.shape)]

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        return (0,), ()

    def lower(self, em: Emitter, node: Node) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        axes = normalize_axes(self.name, node.attrs["axes"], x.type.rank)
        kept = _kept_shape(x.shape, axes)
        out = em.tensor(y) if y.shape == kept else em.view(y, kept)
        em.step("reduce", [em.tensor(x)], [out], kind=reduce_number(node.attrs["kind"]), axes=sum_of_bits(axes))

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.asarray(KINDS[attrs["kind"]](x, axis=tuple(attrs["axes"]), keepdims=attrs["keepdims"])),)

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        return Cost(flops=present(self.name, "x", types[0]).elements(1))


def sum_of_bits(axes: Sequence[int]) -> int:
    """The attribute ``axes``: bit i is set for axis i."""
    bits = 0
    for axis in axes:
        bits |= 1 << axis
    return bits


def _kept_shape(shape: tuple[int, ...], axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(1 if axis in axes else extent for axis, extent in enumerate(shape))


def _divide_by_count(b: Builder, dy: Value, x: Value, kept: tuple[int, ...]) -> Value:
    """dy over the number of elements that each mean was taken of; that of the batch axis is known only while the program runs."""
    fixed = math.prod(e for e, k in zip(x.shape, kept, strict=True) if e != k and e != BATCH)
    if x.type.has_batch and kept[0] != BATCH:
        ones = b.op("fill", x, shape=(BATCH,), value=float(fixed))
        count = b.op("reduce", ones, kind="sum", axes=(0,))
        return b.op("binary", dy, count, kind="div")  # type: ignore[no-any-return]
    return b.op("unary", dy, kind="affine", alpha=1.0 / fixed)  # type: ignore[no-any-return]


def _reduce(x: TensorLike, kind: str, axis: int | Sequence[int] | None, keepdims: bool) -> Any:
    axes = normalize_axes(kind, axis, len(shape_of(x)))
    return call("reduce", [x], {"kind": kind, "axes": axes, "keepdims": bool(keepdims)})


def sum(x: TensorLike, axis: int | Sequence[int] | None = None, *, keepdims: bool = False) -> Any:
    """The sum over ``axis`` (an int, several, or None for all), added in a fixed order.

    >>> sum([[1.0, 2.0], [3.0, 4.0]], axis=1)
    array([3., 7.], dtype=float32)
    """
    return _reduce(x, "sum", axis, keepdims)


def mean(x: TensorLike, axis: int | Sequence[int] | None = None, *, keepdims: bool = False) -> Any:
    """The mean over ``axis`` (an int, several, or None for all).

    >>> mean([[1.0, 2.0], [3.0, 4.0]], axis=0)
    array([2., 3.], dtype=float32)
    """
    return _reduce(x, "mean", axis, keepdims)


def max(x: TensorLike, axis: int | Sequence[int] | None = None, *, keepdims: bool = False) -> Any:
    """The maximum over ``axis`` (an int, several, or None for all). Where it occurs k times, each gets 1/k of the gradient.

    >>> max([[1.0, 2.0], [3.0, 4.0]], axis=1)
    array([2., 4.], dtype=float32)
    """
    return _reduce(x, "max", axis, keepdims)
