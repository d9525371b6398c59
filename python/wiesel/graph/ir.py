"""Types, values, nodes and graphs: what tracing builds, passes rewrite and ``program.emit`` turns into a program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from wiesel.ops.base import Op

BATCH = -1
"""The batch extent: a program is planned for N and runs any n <= N. Only the leading extent may be BATCH."""

MAX_RANK = 6

ENTRIES = ("prepare", "forward", "grad", "update")
"""Entries of a program in the order in which they run; ``prepare`` makes folded and packed copies of parameters and states."""

NUMPY_DTYPES: Mapping[str, np.dtype] = {
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "u8": np.dtype(np.uint8),
    "i8": np.dtype(np.int8),
    "i32": np.dtype(np.int32),
}


@dataclass(frozen=True, slots=True)
class Type:
    """Extents and element type of a value."""

    shape: tuple[int, ...]
    dtype: str = "f32"

    def __post_init__(self) -> None:
        if len(self.shape) > MAX_RANK:
            raise ValueError(f"a tensor has at most {MAX_RANK} axes, got shape {self.shape}")
        for axis, extent in enumerate(self.shape):
            if extent < 1 and not (axis == 0 and extent == BATCH):
                raise ValueError(f"every extent must be at least 1, got shape {self.shape}")

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def has_batch(self) -> bool:
        return bool(self.shape) and self.shape[0] == BATCH

    def concrete(self, n: int) -> tuple[int, ...]:
        """The shape with the batch extent replaced by ``n``."""
        return (n, *self.shape[1:]) if self.has_batch else self.shape

    def elements(self, n: int) -> int:
        count = 1
        for extent in self.concrete(n):
            count *= extent
        return count

    def nbytes(self, n: int) -> int:
        return self.elements(n) * NUMPY_DTYPES[self.dtype].itemsize

    def __str__(self) -> str:
        extents = ", ".join("N" if e == BATCH else str(e) for e in self.shape)
        return f"{self.dtype}({extents})"


def dense_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a tensor in row order; that of the leading axis does not depend on the batch extent."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


@dataclass(eq=False, slots=True)
class Value:
    """One tensor of a graph. Identity is the object.

    ``kind`` is ``"input"``, ``"param"``, ``"state"`` (running statistics), ``"grad"`` (what a gradient buffer holds), ``"const"``
    or ``"node"``.
    """

    type: Type
    kind: str
    name: str = ""
    producer: Node | None = None
    index: int = 0
    data: np.ndarray | None = None  # of a const
    part_of: tuple[Value, int] | None = None  # set by ``passes/join.py``: it is these channels of another value, from the given one on

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def dtype(self) -> str:
        return self.type.dtype

    def __repr__(self) -> str:
        return f"%{self.name or hex(id(self))[-5:]}: {self.type}"


@dataclass(eq=False, slots=True)
class Node:
    """One application of an op. ``inputs`` may hold None for absent optional operands."""

    op: Op
    inputs: tuple[Value | None, ...]
    attrs: dict[str, Any]
    outputs: tuple[Value, ...] = ()
    path: str = ""
    entry: str = "forward"  # one of ENTRIES


@dataclass(slots=True)
class Graph:
    """Nodes in an order that computes every value before its use.

    ``outputs`` are the fetches: values that a run hands out, by name. ``names`` are all values that have a module path.
    ``grads`` maps a parameter's name to the value of its gradient (filled by autodiff), ``updates`` a state's name to the
    value that it takes after the forward entry.
    """

    inputs: dict[str, Value] = field(default_factory=dict)
    params: dict[str, Value] = field(default_factory=dict)
    states: dict[str, Value] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    outputs: dict[str, Value] = field(default_factory=dict)
    grads: dict[str, Value] = field(default_factory=dict)
    updates: dict[str, Value] = field(default_factory=dict)
    names: dict[str, Value] = field(default_factory=dict)

    def consumers(self) -> dict[Value, list[Node]]:
        """For every value the nodes that read it, in order."""
        readers: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                if value is not None:
                    readers.setdefault(value, []).append(node)
        return readers

    def copy(self) -> Graph:
        """The same graph in new nodes and values, for a pass to rewrite; constants' arrays and ops are shared."""
        new: dict[Value, Value] = {}

        def of(value: Value) -> Value:
            found = new.get(value)
            if found is None:
                found = new[value] = Value(value.type, value.kind, value.name, None, value.index, value.data)
            return found

        def table(values: Mapping[str, Value]) -> dict[str, Value]:
            return {name: of(value) for name, value in values.items()}

        nodes = []
        for node in self.nodes:
            inputs = tuple(None if value is None else of(value) for value in node.inputs)
            copied = Node(node.op, inputs, dict(node.attrs), tuple(of(value) for value in node.outputs), node.path, node.entry)
            for value in copied.outputs:
                value.producer = copied
            nodes.append(copied)
        return Graph(
            table(self.inputs), table(self.params), table(self.states), nodes,
            table(self.outputs), table(self.grads), table(self.updates), table(self.names),
        )  # fmt: skip

    def find(self, name: str) -> Value:
        """The value called ``name``: an output or anything with a module path. KeyError lists near names."""
        value = self.outputs.get(name) or self.names.get(name)
        if value is None:
            import difflib

            near = difflib.get_close_matches(name, [*self.outputs, *self.names], n=5, cutoff=0.4)
            raise KeyError(f"no tensor is called {name!r}; near names: {', '.join(near) or ', '.join([*self.outputs, *self.names][:8])}")
        return value

    def values(self) -> Iterator[Value]:
        yield from self.inputs.values()
        yield from self.params.values()
        yield from self.states.values()
        seen: set[int] = set()
        for node in self.nodes:
            for value in node.inputs:
                if value is not None and value.kind == "const" and id(value) not in seen:
                    seen.add(id(value))
                    yield value
            yield from node.outputs


class Builder:
    """Appends nodes to a graph. Gradient rules and passes use it; users meet it through ``graph.tensor.Tensor``."""

    def __init__(self, graph: Graph, *, entry: str = "forward", path: str = "") -> None:
        self.graph = graph
        self.entry = entry
        self.path = path

    def op(self, name: str, *inputs: Value | None, **attrs: Any) -> Any:
        """Adds ``name`` applied to ``inputs``; returns its value, or the tuple of its values when the op has several."""
        from wiesel.ops.base import find

        op = find(name)
        attrs = op.complete(attrs)
        types = op.infer(attrs, [None if v is None else v.type for v in inputs])
        node = Node(op, tuple(inputs), attrs, path=self.path, entry=self.entry)
        node.outputs = tuple(Value(t, "node", "", node, i) for i, t in enumerate(types))
        self.graph.nodes.append(node)
        return node.outputs[0] if len(node.outputs) == 1 else node.outputs

    def const(self, array: Any, dtype: str = "f32") -> Value:
        data = np.array(array, dtype=NUMPY_DTYPES[dtype], order="C")
        return Value(Type(data.shape, dtype), "const", data=data)


def types_of(values: Sequence[Value | None]) -> list[Type | None]:
    return [None if v is None else v.type for v in values]
