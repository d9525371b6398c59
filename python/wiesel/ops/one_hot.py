"""Class numbers to rows of zeros with a one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from wiesel.graph.ir import Builder, Node, Type, Value
from wiesel.graph.tensor import Tensor
from wiesel.ops.arguments import TensorLike, present, require_dtype
from wiesel.ops.base import Op, register
from wiesel.ops.dispatch import call


@register
class OneHot(Op):
    """i (…) -> y (…, classes): 1 at the class, 0 elsewhere; all 0 for a number that is no class."""

    name = "one_hot"
    defaults: ClassVar[Mapping[str, Any]] = {"classes": 1}
    dtypes: ClassVar[Mapping[int, Sequence[str]]] = {0: ("i32",)}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        i = present(self.name, "i", types[0])
        require_dtype(self.name, "i", i, "i32")
        return (Type((*i.shape, attrs["classes"])),)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        return [None]

    def step_attrs(self, attrs: Mapping[str, Any]) -> dict[str, int | float]:
        return {}

    def reference(self, attrs: Mapping[str, Any], i: np.ndarray) -> tuple[np.ndarray, ...]:
        return ((i[..., None] == np.arange(attrs["classes"])).astype(np.float64),)


def one_hot(i: TensorLike, classes: int) -> Any:
    """Rows of ``classes`` zeros with a 1 at the class: integers (…) -> (…, classes), float32.

    Raises ValueError for labels in an array that are not 0 … classes - 1.

    >>> one_hot([1, 0], 3)
    array([[0., 1., 0.],
           [1., 0., 0.]], dtype=float32)
    """
    if classes < 1:
        raise ValueError(f"one_hot: classes must be at least 1, got {classes}")
    if not isinstance(i, Tensor):
        check_labels("one_hot", np.asarray(i), classes)
    return call("one_hot", [i], {"classes": int(classes)})


def check_labels(op: str, labels: np.ndarray, classes: int) -> None:
    """Integer labels must be 0 … classes - 1; the error names the first that is not."""
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{op}: class numbers must be integers, got {labels.dtype}")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        where = int(wrong[0])
        raise ValueError(f"{op}: label {labels.reshape(-1)[where]} of sample {where} is no class: there are {classes}, 0 … {classes - 1}")
