"""Pixels to floats: the first op of a net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from wiesel.graph.ir import Builder, Node, Type, Value
from wiesel.ops.arguments import TensorLike, channel_vector, present, require_dtype
from wiesel.ops.base import Op, register
from wiesel.ops.dispatch import call


@register
class Normalize(Op):
    """x, mean (c), scale (c) -> y = (x - mean) * scale, channels last; x is uint8 or float32."""

    name = "normalize"
    dtypes: ClassVar[Mapping[int, Sequence[str]]] = {0: ("u8", "f32")}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x = present(self.name, "x", types[0])
        require_dtype(self.name, "x", x, "u8", "f32")
        if x.rank == 0:
            raise ValueError("normalize: x needs a channel axis")
        for name, t in (("mean", types[1]), ("scale", types[2])):
            channel_vector(self.name, name, present(self.name, name, t), x.shape[-1])
        return (Type(x.shape),)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        if any(needed[1:]):
            raise ValueError("normalize: mean and scale are constants; use subtract and multiply where they are learned")
        return [b.op("binary", douts[0], node.inputs[2], kind="mul"), None, None]

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, ...]:
        return ((x - mean) * scale,)


def normalize(x: TensorLike, mean: TensorLike, scale: TensorLike) -> Any:
    """``(x - mean) * scale`` per channel, from uint8 (or float32) pixels to float32.

    ``mean`` and ``scale`` are (c,); in units of the pixels, so 0…255 to 0…1 is mean 0 and scale 1/255.

    >>> normalize(np.array([[0, 255]], np.uint8), [0.0, 0.0], [1 / 255, 1 / 255])
    array([[0., 1.]], dtype=float32)
    """
    return call("normalize", [x, mean, scale], {})
