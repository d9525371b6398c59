"""Gradients that are used where they are made: a large dense weight is updated block by block of its gradient, which is never written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

from wiesel.graph.ir import Builder, Graph, Node
from wiesel.passes.rewrite import sort_entries
from wiesel.program.layout import Layout, Segment

LEAST_BYTES = 4 << 20
"""A smaller weight is in cache for its update anyway."""

Take: TypeAlias = Callable[[Segment], Mapping[str, Any] | None]
"""The attributes of ``update_matmul`` (see there) with which a parameter is updated; None: its gradient is to be written."""


def take_gradients(graph: Graph, layout: Layout, take: Take) -> Collection[str]:
    """Replaces products in ``graph.grads`` by steps of entry update; returns the names of the parameters, which are no longer in there."""
    taken: list[str] = []
    readers = graph.consumers()
    for name, value in list(graph.grads.items()):
        node, segment = value.producer, layout.params[name]
        alone = value not in readers and value not in graph.outputs.values() and list(graph.grads.values()).count(value) == 1
        if node is None or not alone or not _is_product(node) or 4 * segment.count < LEAST_BYTES:
            continue
        attrs = take(segment)
        if attrs is None:
            continue
        Builder(graph, entry="update", path=node.path).op("update_matmul", *node.inputs[:2], count=segment.count, **attrs)
        graph.nodes.remove(node)
        del graph.grads[name]
        taken.append(name)
    sort_entries(graph)
    return taken


def _is_product(node: Node) -> bool:
    """Whether ``node`` is xᵀ dy of two matrices."""
    plain = node.op.name == "matmul" and node.attrs["trans_a"] and not node.attrs["trans_b"]
    return plain and all(value is not None and value.type.rank == 2 for value in node.inputs)
