"""``call``: one op on symbolic tensors (adds a node) or on arrays (runs at once, through a compiled program from a cache)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiesel.graph.ir import NUMPY_DTYPES
from wiesel.graph.tensor import Tensor

_INT32 = np.iinfo(np.int32)


def call(op_name: str, inputs: Sequence[Any], attrs: Mapping[str, Any] | None = None) -> Any:
    """Applies the op ``op_name`` to ``inputs`` (tensors, arrays, numbers; None for an absent optional one).

    With any symbolic tensor among the inputs a node is added to its trace and a Tensor (or a tuple of them) returned; otherwise
    the op runs at once and returns an array (or a tuple). ``attrs`` are those of ``Op.defaults``.
    """
    for item in inputs:
        if isinstance(item, Tensor):
            return item.trace.call(op_name, inputs, attrs or {})
    return _eager().run(op_name, inputs, attrs or {})


@cache
def _eager() -> ModuleType:
    """The module that runs ops on arrays; imported when first needed, since it compiles programs of these ops."""
    from wiesel.program import eager

    return eager


def to_array(item: Any, allowed: Sequence[str], op_name: str, index: int) -> NDArray[Any]:
    """``item`` as a C-contiguous array of one of the ``allowed`` element types, without losing its meaning.

    Floats of any width become f32 (ValueError where a finite one does not fit), integers stay where they are named, else become
    f32; where only i32 is meant they are checked to fit. Complex numbers, objects and text raise TypeError.
    """
    if type(item) is np.ndarray and item.dtype == NUMPY_DTYPES[allowed[0]] and item.flags.c_contiguous:
        return item
    array = np.asarray(item)
    kind = array.dtype.kind
    if kind not in "fiub":
        raise TypeError(f"{op_name}: input {index} has dtype {array.dtype}; arrays of floats or integers are expected")
    for name in allowed:
        if NUMPY_DTYPES[name] == array.dtype:
            return np.asarray(array, order="C")
    if kind == "f" and "f32" in allowed:
        with np.errstate(over="raise"):
            try:
                return np.asarray(array, dtype=np.float32, order="C")
            except FloatingPointError:
                raise ValueError(f"{op_name}: input {index} holds finite values beyond the range of float32 (3.4e38)") from None
    if kind in "iub" and "i32" in allowed:
        if array.size and array.dtype.itemsize >= 4 and (array.max() > _INT32.max or array.min() < _INT32.min):
            raise ValueError(f"{op_name}: input {index} holds integers beyond the range of int32")
        return np.asarray(array, dtype=np.int32, order="C")
    if "f32" in allowed:
        return np.asarray(array, dtype=np.float32, order="C")
    expected = " or ".join(str(NUMPY_DTYPES[name]) for name in allowed)
    raise TypeError(f"{op_name}: input {index} has dtype {array.dtype}; expected {expected}")
