"""Element-wise functions of two tensors, with NumPy's broadcasting. The gradient of an operand is summed over what was repeated.

Where both operands of maximum or minimum are equal, the gradient goes to the first (S-75). Comparisons give 1.0 or 0.0, without gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wiesel.graph.ir import Builder, Node, Type, Value
from wiesel.ops.arguments import TensorLike, present, require_dtype
from wiesel.ops.base import Op, register
from wiesel.ops.dispatch import call
from wiesel.ops.kinds import binary_number
from wiesel.ops.shape import broadcast_shapes, broadcast_strides, unbroadcast

if TYPE_CHECKING:
    from wiesel.program.emit import Emitter

KINDS: Mapping[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "greater_equal": np.greater_equal,
    "greater": np.greater,
    "equal": np.equal,
}
"""Every function, by the name it has in ``cpp/ops/kinds.h``."""


@register
class Binary(Op):
    """a, b -> y = kind(a, b)."""

    name = "binary"
    defaults: ClassVar[Mapping[str, Any]] = {"kind": "add"}
    in_place = ((0, 0), (1, 0))

    def complete(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        found = super().complete(attrs)
        if found["kind"] not in KINDS:
            raise ValueError(f"binary: no function named {found['kind']!r}; known: {', '.join(sorted(KINDS))}")
        return found

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        a, b = present(attrs["kind"], "a", types[0]), present(attrs["kind"], "b", types[1])
        require_dtype(attrs["kind"], "a", a, "f32")
        require_dtype(attrs["kind"], "b", b, "f32")
        return (Type(broadcast_shapes(attrs["kind"], a.shape, b.shape)),)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        left, right = node.inputs
        dy, kind = douts[0], node.attrs["kind"]
        assert left is not None and right is not None and dy is not None
        dleft: Value | None = None
        dright: Value | None = None
        if kind in ("add", "sub"):
            dleft, dright = dy, dy
            if kind == "sub" and needed[1]:
                small = unbroadcast(b, dy, right.type)  # negate what is left after the sum
                return [unbroadcast(b, dy, left.type) if needed[0] else None, b.op("unary", small, kind="affine", alpha=-1.0)]
        elif kind == "mul":
            dleft = b.op("binary", dy, right, kind="mul") if needed[0] else None
            dright = b.op("binary", dy, left, kind="mul") if needed[1] else None
        elif kind == "div":
            dleft = b.op("binary", dy, right, kind="div")  # also the start of the other one: -dy y / b
            if needed[1]:
                dright = b.op("unary", b.op("binary", dleft, node.outputs[0], kind="mul"), kind="affine", alpha=-1.0)
        elif kind in ("maximum", "minimum"):
            first = (left, right) if kind == "maximum" else (right, left)
            mask = b.op("binary", *first, kind="greater_equal")
            dleft = b.op("binary", dy, mask, kind="mul") if needed[0] else None
            if needed[1]:
                dright = b.op("binary", dy, b.op("unary", mask, kind="affine", alpha=-1.0, beta=1.0), kind="mul")
        return [
            unbroadcast(b, dleft, left.type) if needed[0] and dleft is not None else None,
            unbroadcast(b, dright, right.type) if needed[1] and dright is not None else None,
        ]

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        return [i for i, value in enumerate(node.inputs) if value is not None and value.shape == node.outputs[0].shape], (0,)

    def lower(self, em: Emitter, node: Node) -> None:
        y = node.outputs[0]
        operands = []
        for value in node.inputs:
            assert value is not None
            same = value.shape == y.shape
            operands.append(em.tensor(value) if same else em.view(value, y.shape, broadcast_strides(value.shape, y.shape), 0))
        em.step("binary", operands, [em.tensor(y)], kind=binary_number(node.attrs["kind"]))

    def reference(self, attrs: Mapping[str, Any], a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.asarray(KINDS[attrs["kind"]](a, b), dtype=np.result_type(a, b)),)


def add(a: TensorLike, b: TensorLike) -> Any:
    """``a + b`` with NumPy's broadcasting.

    >>> add([[1.0], [2.0]], [10.0, 20.0])
    array([[11., 21.],
           [12., 22.]], dtype=float32)
    """
    return call("binary", [a, b], {"kind": "add"})


def subtract(a: TensorLike, b: TensorLike) -> Any:
    """``a - b`` with NumPy's broadcasting."""
    return call("binary", [a, b], {"kind": "sub"})


def multiply(a: TensorLike, b: TensorLike) -> Any:
    """``a * b`` with NumPy's broadcasting."""
    return call("binary", [a, b], {"kind": "mul"})


def divide(a: TensorLike, b: TensorLike) -> Any:
    """``a / b`` with NumPy's broadcasting; infinite or NaN where b is 0."""
    return call("binary", [a, b], {"kind": "div"})


def maximum(a: TensorLike, b: TensorLike) -> Any:
    """The larger of ``a`` and ``b``, with NumPy's broadcasting; of equal ones ``a`` gets the gradient."""
    return call("binary", [a, b], {"kind": "maximum"})


def minimum(a: TensorLike, b: TensorLike) -> Any:
    """The smaller of ``a`` and ``b``, with NumPy's broadcasting; of equal ones ``a`` gets the gradient."""
    return call("binary", [a, b], {"kind": "minimum"})


def greater(a: TensorLike, b: TensorLike) -> Any:
    """1.0 where ``a > b``, else 0.0. No gradient."""
    return call("binary", [a, b], {"kind": "greater"})


def greater_equal(a: TensorLike, b: TensorLike) -> Any:
    """1.0 where ``a >= b``, else 0.0. No gradient."""
    return call("binary", [a, b], {"kind": "greater_equal"})


def less(a: TensorLike, b: TensorLike) -> Any:
    """1.0 where ``a < b``, else 0.0. No gradient."""
    return call("binary", [b, a], {"kind": "greater"})


def less_equal(a: TensorLike, b: TensorLike) -> Any:
    """1.0 where ``a <= b``, else 0.0. No gradient."""
    return call("binary", [b, a], {"kind": "greater_equal"})


def equal(a: TensorLike, b: TensorLike) -> Any:
    """1.0 where ``a == b``, else 0.0. No gradient."""
    return call("binary", [a, b], {"kind": "equal"})
