"""What passes share: order of nodes, dead code, replacing values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from wiesel.graph.ir import ENTRIES, Graph, Node, Value

_RANK = {entry: rank for rank, entry in enumerate(ENTRIES)}


def sort_entries(graph: Graph) -> None:
    """Nodes entry by entry; within an entry the order stays."""
    graph.nodes.sort(key=lambda node: _RANK[node.entry])


def last_readers(readers: Iterable[Node], position: Mapping[Node, int]) -> int:
    """Position of the last reader, -1 without any."""
    return max((position[node] for node in readers), default=-1)


def roots(graph: Graph) -> list[Value]:
    """Values that a run must compute: outputs, gradients, new states."""
    return [*graph.outputs.values(), *graph.grads.values(), *graph.updates.values()]


def remove_dead(graph: Graph, wanted: Iterable[Value]) -> None:
    """Drops nodes that contribute to none of the ``wanted`` values."""
    needed = set(wanted)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(value in needed for value in node.outputs):
            kept.append(node)
            needed.update(value for value in node.inputs if value is not None)
    kept.reverse()
    graph.nodes = kept


def substitute(graph: Graph, mapping: Mapping[Value, Value], nodes: Sequence[Node] | None = None) -> None:
    """Replaces values wherever they are read or handed out; chains in ``mapping`` are followed."""

    def final(value: Value) -> Value:
        while value in mapping:
            value = mapping[value]
        return value

    if not mapping:
        return
    for node in graph.nodes if nodes is None else nodes:
        if any(value in mapping for value in node.inputs if value is not None):
            node.inputs = tuple(None if value is None else final(value) for value in node.inputs)
    for table in (graph.outputs, graph.grads, graph.updates, graph.names):
        for name, value in table.items():
            if value in mapping:
                table[name] = final(value)
