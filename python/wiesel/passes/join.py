"""Concatenation without copies: what is joined along the channels is written where it belongs, what is cut is read where it lies."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence

from wiesel.graph.ir import Graph, Node, Value
from wiesel.ops.arguments import normalize_axes
from wiesel.passes.place import storage_root

LEAST_CHANNELS = 16
"""A part of fewer is copied: a cache line is the least that a task writes at a time and kernels read well."""


def join(graph: Graph, taken: Container[Value]) -> None:
    """Sets ``part_of`` of the inputs of concatenations and of the outputs of slices, where all that write and read them take parts.

    ``taken`` are storage roots with places of their own.
    """
    readers = graph.consumers()
    for node in graph.nodes:
        for value, whole, channel in _parts(node):
            alone = value.part_of is None and value not in taken and storage_root(value) is value and storage_root(whole) not in taken
            if alone and value.shape[-1] >= LEAST_CHANNELS and _is_taken_by_all(value, readers):
                value.part_of = whole, channel


def _parts(node: Node) -> Iterator[tuple[Value, Value, int]]:
    """Values that ``node`` joins or cuts along the last axis: the part, the whole and the first channel."""
    if node.entry == "prepare":
        return
    if node.op.name == "concat":
        y, start = node.outputs[0], 0
        if normalize_axes("concat", node.attrs["axis"], y.type.rank)[0] == y.type.rank - 1:
            for x in node.inputs:
                if x is not None and x.producer is not None and x.producer.entry == node.entry:
                    yield x, y, start
                start += x.shape[-1] if x is not None else 0
    elif node.op.name == "slice":
        x, y = node.inputs[0], node.outputs[0]
        plain = all(step == 1 for step in node.attrs["steps"]) and x is not None and x.shape[:-1] == y.shape[:-1]
        if plain and x is not None and x.producer is not None and x.producer.entry == node.entry:
            yield y, x, node.attrs["starts"][-1]


def _is_taken_by_all(value: Value, readers: Mapping[Value, Sequence[Node]]) -> bool:
    """Whether what makes ``value`` and all that read it take parts. A cut is not kept for a later entry: the whole would be."""
    maker = value.producer
    assert maker is not None
    if value.index not in maker.op.takes_parts(maker)[1]:
        return False
    return all(
        (node.entry == maker.entry or maker.op.name != "slice")
        and all(i in node.op.takes_parts(node)[0] for i, x in enumerate(node.inputs) if x is value)
        for node in readers.get(value, ())
    )
