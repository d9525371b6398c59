"""Moves what depends on parameters, states and constants alone into entry prepare of an inference program."""

from __future__ import annotations

from collections.abc import Collection

from wiesel.graph.ir import Graph, Value
from wiesel.passes.rewrite import sort_entries


def hoist(graph: Graph, wanted: Collection[Value]) -> Graph:
    """Nodes whose inputs are all fixed between two changes of the weights run once, in ``prepare``. Returns ``graph``.

    Values that a run hands out (``wanted``) stay where they are: a bound array is written in each run.
    """
    constant: set[Value] = {*graph.params.values(), *graph.states.values()}
    bound = set(wanted)
    for node in graph.nodes:
        sources = [value for value in node.inputs if value is not None]
        if all(value in constant or value.kind == "const" for value in sources) and not bound.intersection(node.outputs):
            node.entry = "prepare"
            constant.update(node.outputs)
    sort_entries(graph)
    return graph
