"""Matrix products and the dense layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wiesel.graph.ir import BATCH, Builder, Node, Type, Value
from wiesel.ops import reduce, unary
from wiesel.ops.arguments import TensorLike, channel_vector, present, require_dtype, shape_of, show
from wiesel.ops.base import Cost, Op, register
from wiesel.ops.dispatch import call
from wiesel.ops.kinds import epilogue_attrs
from wiesel.ops.shape import broadcast_shapes, broadcast_strides, unbroadcast

if TYPE_CHECKING:
    from wiesel.program.emit import Emitter


@register
class Matmul(Op):
    """a (…, m, k), b (…, k, n), [bias (n)] -> y (…, m, n) = activation(a b + bias).

    With ``trans_a`` a lies as (…, k, m), with ``trans_b`` b lies as (…, n, k). The axes in front broadcast.
    """

    name = "matmul"
    defaults: ClassVar[Mapping[str, Any]] = {"trans_a": False, "trans_b": False, "activation": "none", "alpha": 0.0, "beta": 0.0}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        a, b = present(self.name, "a", types[0]), present(self.name, "b", types[1])
        for name, t in (("a", a), ("b", b)):
            require_dtype(self.name, name, t, "f32")
            if t.rank < 2:
                raise ValueError(f"matmul: {name} must have at least two axes, got {show(t.shape)}; reshape it to a row or a column")
        m, ka = a.shape[-2:] if not attrs["trans_a"] else a.shape[:-3:-1]
        kb, n = b.shape[-2:] if not attrs["trans_b"] else b.shape[:-3:-1]
        if ka != kb:
            sizes = f"{show((ka,))} against {show((kb,))} elements to sum"
            raise ValueError(f"matmul: a {show(a.shape)} and b {show(b.shape)} do not fit: {sizes}")
        front = broadcast_shapes(self.name, a.shape[:-2], b.shape[:-2])
        shape = (*front, m, n)
        if BATCH in shape[1:]:
            raise ValueError(f"matmul: a {show(a.shape)} and b {show(b.shape)}: the batch extent must stay the leading axis of the product")
        channel_vector(self.name, "bias", types[2] if len(types) > 2 else None, n)
        return (Type(shape),)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        if node.attrs["activation"] != "none":
            raise ValueError("matmul: differentiate before activations are fused")
        left, right, dy = node.inputs[0], node.inputs[1], douts[0]
        assert left is not None and right is not None and dy is not None
        ta, tb = node.attrs["trans_a"], node.attrs["trans_b"]
        found: list[Value | None] = [None] * len(node.inputs)
        if needed[0]:  # da = dy bᵀ, or its transpose
            da = b.op("matmul", right, dy, trans_a=tb, trans_b=True) if ta else b.op("matmul", dy, right, trans_b=not tb)
            found[0] = unbroadcast(b, da, left.type)
        if needed[1]:  # db = aᵀ dy, or its transpose
            db = b.op("matmul", dy, left, trans_a=True, trans_b=ta) if tb else b.op("matmul", left, dy, trans_a=not ta)
            found[1] = unbroadcast(b, db, right.type)
        if len(needed) > 2 and needed[2]:
            found[2] = b.op("reduce", dy, kind="sum", axes=tuple(range(dy.type.rank - 1)))
        return found

    def lower(self, em: Emitter, node: Node) -> None:
        y = node.outputs[0]
        operands: list[int | None] = []
        for value in node.inputs[:2]:
            assert value is not None
            shape = (*y.shape[:-2], *value.shape[-2:])
            operands.append(em.tensor(value) if shape == value.shape else em.view(value, shape, broadcast_strides(value.shape, shape), 0))
        operands += [None if value is None else em.tensor(value) for value in node.inputs[2:]]
        em.step(self.name, operands, [em.tensor(y)], **self.step_attrs(node.attrs))

    def step_attrs(self, attrs: Mapping[str, Any]) -> dict[str, int | float]:
        return {"trans_a": int(attrs["trans_a"]), "trans_b": int(attrs["trans_b"]), **epilogue_attrs(attrs)}

    def reference(self, attrs: Mapping[str, Any], a: np.ndarray, b: np.ndarray, bias: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        y = (a.swapaxes(-1, -2) if attrs["trans_a"] else a) @ (b.swapaxes(-1, -2) if attrs["trans_b"] else b)
        if bias is not None:
            y = y + bias
        return (np.asarray(unary.KINDS[attrs["activation"]].f(y, attrs["alpha"], attrs["beta"]), dtype=y.dtype),)

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        a = Type(present(self.name, "a", types[0]).shape)
        summed = a.shape[-2] if attrs["trans_a"] else a.shape[-1]
        return Cost(macs=outs[0].elements(1) * (1 if summed == BATCH else summed))


def matmul(a: TensorLike, b: TensorLike) -> Any:
    """Matrix product over the last two axes; those in front broadcast, as in ``numpy.matmul``. Both operands have at least two axes.

    >>> matmul([[1.0, 2.0]], [[3.0], [4.0]])
    array([[11.]], dtype=float32)
    """
    return call("matmul", [a, b], {})


def matmul_backward(dy: TensorLike, a: TensorLike, b: TensorLike) -> tuple[Any, Any]:
    """Gradients ``(da, db)`` of ``matmul`` of two matrices: ``dy bᵀ`` and ``aᵀ dy``."""
    return call("matmul", [dy, b], {"trans_b": True}), call("matmul", [a, dy], {"trans_a": True})


def linear(x: TensorLike, w: TensorLike, b: TensorLike | None = None) -> Any:
    """Fully connected layer: ``y = x w + b`` with x (…, in), w (in, out), b (out,) or None; y is (…, out).

    >>> linear([[1.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5])
    array([[1.5, 2.5]], dtype=float32)
    """
    _check_linear("linear", shape_of(x), shape_of(w))
    return call("matmul", [x, w] if b is None else [x, w, b], {})


def linear_backward(dy: TensorLike, x: TensorLike, w: TensorLike) -> tuple[Any, Any, Any]:
    """Gradients ``(dx, dw, db)`` of ``linear`` on (n, in): ``dy wᵀ``, ``xᵀ dy`` and the sum of dy over the batch.

    >>> dx, dw, db = linear_backward([[1.0]], [[2.0, 3.0]], [[4.0], [5.0]])
    >>> dx, dw.ravel(), db
    (array([[4., 5.]], dtype=float32), array([2., 3.], dtype=float32), array([1.], dtype=float32))
    """
    xs = shape_of(x)
    _check_linear("linear_backward", xs, shape_of(w))
    if len(xs) != 2:
        raise ValueError(f"linear_backward: expected x of shape (n, in), got {show(xs)}; use flatten(x)")
    return (*matmul_backward(dy, x, w), reduce.sum(dy, 0))


def _check_linear(op: str, x: tuple[int, ...], w: tuple[int, ...]) -> None:
    if len(w) != 2:
        raise ValueError(f"{op}: expected w of shape (in, out), got {show(w)}")
    if len(x) < 2:
        mend = "; the batch axis is missing: use x[None]" if x == w[:1] else ""
        raise ValueError(f"{op}: expected x of shape (n, in), got {show(x)}{mend}")
    if x[-1] == w[0]:
        return
    features = 1
    for extent in x[1:]:
        features *= extent
    mend = "; use flatten(x)" if len(x) > 2 and features == w[0] else ""
    if x[-1] == w[1] and len(x) == 2:
        mend = "; w lies as (in, out) here, not (out, in): use w.T"
    raise ValueError(f"{op}: w takes {w[0]} features but x of shape {show(x)} has {x[-1]}{mend}")
