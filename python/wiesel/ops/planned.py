"""Ops that no user calls: passes add them to say where a value shall lie or in which form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wiesel.graph.ir import Type
from wiesel.ops.base import Op, register

if TYPE_CHECKING:
    from wiesel.graph.ir import Node
    from wiesel.program.emit import Emitter


@register
class Copy(Op):
    """y = x, elsewhere: for a value that is wanted in two places (fetched twice, gradient of two parameters)."""

    name = "copy"
    dtypes = {0: ("f32", "u8", "i8", "i32", "f64")}  # noqa: RUF012

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        (x,) = types
        assert x is not None
        return (x,)

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        return (0,), ()

    def reference(self, attrs: Mapping[str, Any], *arrays: np.ndarray | None) -> tuple[np.ndarray, ...]:
        (x,) = arrays
        assert x is not None
        return (x.copy(),)


@register
class Accumulate(Op):
    """sum = s * sum + x in place, s being the scalar slot ``accumulate``: gradients over several micro-steps."""

    name = "accumulate"
    in_place = ((1, 0),)

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x, total = types
        assert x is not None
        assert x == total
        return (x,)

    def reference(self, attrs: Mapping[str, Any], *arrays: np.ndarray | None) -> tuple[np.ndarray, ...]:
        x, total = arrays
        assert x is not None
        assert total is not None
        return (x + total,)


@register
class ConvPack(Op):
    """Weights in the form that one algorithm of one convolution wants, as bytes. ``conv`` are that convolution's step attributes."""

    name = "conv_pack"
    defaults = {"conv": {}, "direction": 0, "nbytes": 0}  # noqa: RUF012

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        return (Type((attrs["nbytes"],), "u8"),)

    def lower(self, em: Emitter, node: Node) -> None:
        (w,) = node.inputs
        assert w is not None
        em.step("conv_pack", [em.tensor(w)], [em.tensor(node.outputs[0])], direction=node.attrs["direction"], **node.attrs["conv"])


@register
class UpdateMatmul(Op):
    """x (n, k), dy (n, m) -> nothing: the parameter of ``count`` = k * m floats at byte ``offset`` is updated with the gradient xᵀ dy.

    ``opcode`` is sgd_matmul or adam_matmul, ``moments`` are the byte offsets of the optimizer's memory, ``step`` its attributes.
    """

    name = "update_matmul"
    defaults = {"opcode": "", "count": 0, "offset": 0, "moments": (), "step": {}}  # noqa: RUF012

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x, dy = types
        assert x is not None and dy is not None
        assert x.shape[0] == dy.shape[0] and x.shape[1] * dy.shape[1] == attrs["count"]
        return ()

    def lower(self, em: Emitter, node: Node) -> None:
        x, dy = node.inputs
        assert x is not None and dy is not None
        count = node.attrs["count"]
        updated = [em.flat("params", node.attrs["offset"], count), *(em.flat("opt", offset, count) for offset in node.attrs["moments"])]
        em.step(node.attrs["opcode"], [em.tensor(x), em.tensor(dy), *updated], updated, **node.attrs["step"])
        em.charge(8 * len(updated) * count, 2 * count)
