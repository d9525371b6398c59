"""One op on arrays: a small program per (op, attributes, shapes), compiled once and kept in a cache with a byte limit."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiesel import _core
from wiesel.graph.ir import NUMPY_DTYPES, Builder, Graph, Type, Value
from wiesel.ops.base import find
from wiesel.ops.dispatch import to_array
from wiesel.program.compile import ENTRY_BITS, compile_graph

CACHE_BYTES = int(os.environ.get("WIESEL_OP_CACHE_BYTES", 256 << 20))
"""Most bytes of programs and their arenas kept for repeated calls of single ops (``WIESEL_OP_CACHE_BYTES``). When it is reached, the
least recently used go until an eighth of it is free."""

_DTYPE_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}
_F32 = ("f32",)


@dataclass(slots=True)
class _Entry:
    instance: _core.Instance
    simple: bool
    """One input, one output: what ``Instance.call`` is for."""
    nbytes: int
    used: int = 0
    """Time of the last use, in calls."""


_cache: dict[tuple[Any, ...], _Entry] = {}
_cached_bytes = 0
_lock = threading.Lock()
_clock = itertools.count()


def run(op_name: str, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> NDArray[Any] | tuple[NDArray[Any], ...]:
    """The outputs of ``op_name`` for arrays, as one array or a tuple of them. May be called by several threads at once."""
    if len(inputs) == 1 and type(inputs[0]) is np.ndarray:  # the quick way: nothing to convert, program known
        x = inputs[0]
        entry = _cache.get((op_name, (x.dtype.num, x.shape), *attrs, *attrs.values()))
        if entry is not None and entry.simple:
            result = entry.instance.call(x)
            if result is not None:
                entry.used = next(_clock)
                return result
    op = find(op_name)
    arrays = [None if item is None else to_array(item, op.dtypes.get(i, _F32), op_name, i) for i, item in enumerate(inputs)]
    key = (op_name, *[None if a is None else (a.dtype.num, a.shape) for a in arrays], *attrs, *attrs.values())
    entry = _cache.get(key)
    if entry is None:
        entry = _compile(op_name, arrays, attrs)
        _keep(key, entry)
    entry.used = next(_clock)
    results = tuple(entry.instance.new_outputs())
    entry.instance.run(ENTRY_BITS["forward"], [a for a in arrays if a is not None], results)
    return results[0] if len(results) == 1 else results


def cache_info() -> dict[str, int]:
    """Programs in the cache and their bytes, and the limit; bytes of large outputs that nobody holds and the next ones will use."""
    return {"programs": len(_cache), "bytes": _cached_bytes, "limit": CACHE_BYTES, "outputs": _core.kept_bytes()}


def clear_cache() -> None:
    """Gives the memory of all kept programs and outputs back."""
    global _cached_bytes
    with _lock:
        _cache.clear()
        _cached_bytes = 0
    _core.drop_kept()


def _keep(key: tuple[Any, ...], entry: _Entry) -> None:
    global _cached_bytes
    if entry.nbytes > CACHE_BYTES:
        return
    with _lock:
        if key in _cache:
            return
        _cache[key] = entry
        _cached_bytes += entry.nbytes
        if _cached_bytes > CACHE_BYTES:
            for old in sorted(_cache, key=lambda k: _cache[k].used):
                if old != key and _cached_bytes > CACHE_BYTES - CACHE_BYTES // 8:
                    _cached_bytes -= _cache.pop(old).nbytes


def _compile(op_name: str, arrays: Sequence[NDArray[Any] | None], attrs: Mapping[str, Any]) -> _Entry:
    graph = Graph()
    values: list[Value | None] = []
    for i, array in enumerate(arrays):
        if array is None:
            values.append(None)
            continue
        if 0 in array.shape:
            raise ValueError(f"{op_name}: input {i} is empty: shape {array.shape}")
        value = Value(Type(array.shape, _DTYPE_NAMES[array.dtype]), "input", f"{op_name}.{i}")
        graph.inputs[value.name] = value
        values.append(value)
    made = Builder(graph, path=op_name).op(op_name, *values, **attrs)
    outputs = made if isinstance(made, tuple) else (made,)
    graph.outputs = {f"output.{i}": value for i, value in enumerate(outputs)}
    compiled = compile_graph(graph, training=True)
    memory = compiled.program.memory()
    nbytes = 4096 + 4 * len(compiled.container) + memory["arena"] + memory["workspace"] + memory["prepared"] + memory["consts"]
    return _Entry(compiled.instance(), len(values) == 1 and values[0] is not None and len(outputs) == 1, nbytes)
