"""The symbolic tensor that flows through ``forward`` while a network is traced."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from wiesel.graph.ir import BATCH, Type, Value

if TYPE_CHECKING:
    from wiesel.graph.build import Trace

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Tensor:
    """A tensor of a graph under construction: it has a shape and a type, but no numbers yet.

    Every function of ``wiesel.ops`` and the operators ``+ - * / @ > >= < <=`` and unary ``-`` take tensors, arrays and numbers
    alike (NumPy broadcasting). ``shape[0]`` is -1 where it is the free batch extent.
    """

    __slots__ = ("trace", "value")
    __array_ufunc__ = None  # array + tensor is asked of the tensor, not of NumPy

    def __init__(self, value: Value, trace: Trace) -> None:
        self.value = value
        self.trace = trace

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.type.shape

    @property
    def dtype(self) -> str:
        """Short name of the element type: ``"f32"``, ``"u8"``, ``"i32"``."""
        return self.value.type.dtype

    @property
    def type(self) -> Type:
        return self.value.type

    @property
    def ndim(self) -> int:
        return self.value.type.rank

    @property
    def name(self) -> str:
        """Module path, empty for a tensor between two operations of one module."""
        return self.value.name

    def __repr__(self) -> str:
        extents = ", ".join("N" if extent == BATCH else str(extent) for extent in self.shape)
        return f"Tensor({self.name + ': ' if self.name else ''}{self.dtype}({extents}))"

    def __add__(self, other: Any) -> Tensor:
        return _binary("add", self, other)

    def __radd__(self, other: Any) -> Tensor:
        return _binary("add", other, self)

    def __sub__(self, other: Any) -> Tensor:
        return _binary("sub", self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return _binary("sub", other, self)

    def __mul__(self, other: Any) -> Tensor:
        return _binary("mul", self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return _binary("mul", other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return _binary("div", self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _binary("div", other, self)

    def __gt__(self, other: Any) -> Tensor:
        """1.0 where greater, else 0.0; no gradient flows through a comparison."""
        return _binary("greater", self, other)

    def __ge__(self, other: Any) -> Tensor:
        return _binary("greater_equal", self, other)

    def __lt__(self, other: Any) -> Tensor:
        return _binary("greater", other, self)

    def __le__(self, other: Any) -> Tensor:
        return _binary("greater_equal", other, self)

    def __neg__(self) -> Tensor:
        return _call("unary", (self,), {"kind": "affine", "alpha": -1.0, "beta": 0.0})

    def __matmul__(self, other: Any) -> Tensor:
        return _call("matmul", (self, other), {})

    def __rmatmul__(self, other: Any) -> Tensor:
        return _call("matmul", (other, self), {})

    def __bool__(self) -> NoReturn:
        raise TypeError(
            f"{_users_line()}: a tensor has no truth value while the network is traced: the graph is the same for every input. "
            "Compute both sides and combine them, for example with maximum(a, b) or a * (x > 0)"
        )

    def __len__(self) -> NoReturn:
        raise TypeError(f"{_users_line()}: use tensor.shape[0] instead of len(tensor); the batch extent is free (-1)")

    def __iter__(self) -> NoReturn:
        raise TypeError(f"{_users_line()}: a tensor cannot be iterated; take parts with wiesel.ops.slice")

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"{_users_line()}: a tensor has no numbers while the network is traced; inside forward use wiesel.ops, not NumPy")

    def __float__(self) -> NoReturn:
        raise TypeError(f"{_users_line()}: a tensor has no numbers while the network is traced")


def _call(name: str, inputs: Sequence[Any], attrs: dict[str, Any]) -> Tensor:
    from wiesel.ops.dispatch import call

    result: Tensor = call(name, inputs, attrs)
    return result


def _binary(kind: str, a: Any, b: Any) -> Tensor:
    return _call("binary", (a, b), {"kind": kind})


def _users_line() -> str:
    """``file:line`` of the innermost frame that is not the library's own."""
    frame = sys._getframe(1)
    while frame.f_back is not None and os.path.abspath(frame.f_code.co_filename).startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
