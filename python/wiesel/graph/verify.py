"""Checks that hold for every graph, after tracing and between passes; and the order of nodes that come without one."""

from __future__ import annotations

from collections.abc import Sequence

from wiesel.graph.ir import BATCH, ENTRIES, Graph, Node, Value, types_of

_RANK = {entry: rank for rank, entry in enumerate(ENTRIES)}


class GraphError(ValueError):
    """A graph that breaks a rule of the representation; the message names the node and the rule."""


def verify(graph: Graph, *, types: bool = True) -> Graph:
    """Raises GraphError unless every value is made once and before its use, entries are in order, and types are those that ops infer.

    ``types=False`` leaves out the last check. Returns ``graph``.
    """
    known: set[Value] = {*graph.inputs.values(), *graph.params.values(), *graph.states.values()}
    for table, kind in ((graph.inputs, "input"), (graph.params, "param"), (graph.states, "state")):
        for name, value in table.items():
            if value.kind != kind:
                raise GraphError(f"{kind} {name!r} is a value of kind {value.kind!r}")
    made: set[Value] = set()
    rank = 0
    for node in graph.nodes:
        if _RANK[node.entry] < rank:
            raise GraphError(f"{describe(node)} of entry {node.entry!r} comes after entry {ENTRIES[rank]!r}")
        rank = _RANK[node.entry]
        for i, source in enumerate(node.inputs):
            if source is not None and source.kind not in ("const", "grad") and source not in known:
                raise GraphError(f"{describe(node)} reads input {i} ({source!r}) before it is computed")
        for i, output in enumerate(node.outputs):
            if output in made:
                raise GraphError(f"{describe(node)} computes {output!r} a second time")
            if output.producer is not node or output.index != i:
                raise GraphError(f"output {i} of {describe(node)} ({output!r}) names another producer")
            made.add(output)
            known.add(output)
        if types:
            _check_types(node)
    for table, kind in ((graph.outputs, "output"), (graph.grads, "gradient"), (graph.updates, "state update")):
        for name, value in table.items():
            if value.kind != "const" and value not in known:
                raise GraphError(f"the {kind} {name!r} is never computed")
    for name, value in graph.grads.items():
        if name in graph.params and value.type != graph.params[name].type:
            raise GraphError(f"parameter {name!r} has type {graph.params[name].type}, its gradient {value.type}")
    return graph


def _check_types(node: Node) -> None:
    inferred = node.op.infer(node.attrs, types_of(node.inputs))
    actual = tuple(value.type for value in node.outputs)
    if inferred != actual:
        raise GraphError(f"{describe(node)} infers {', '.join(map(str, inferred))}, its outputs are {', '.join(map(str, actual))}")
    if any(t.has_batch for t in actual) and not any(v is not None and v.type.has_batch for v in node.inputs):
        raise GraphError(f"{describe(node)} makes a batch extent ({BATCH}) out of inputs that have none")


def describe(node: Node) -> str:
    return f"{node.op.name} in {node.path!r}" if node.path else node.op.name


def order_nodes(nodes: Sequence[Node]) -> list[Node]:
    """``nodes`` in an order that computes every value before its use, keeping theirs where it allows.

    Raises ValueError that names the layers of a cycle.
    """
    pending: dict[Node, int] = {}
    readers: dict[Value, list[Node]] = {}
    produced = {value for node in nodes for value in node.outputs}
    for node in nodes:
        sources = {value for value in node.inputs if value is not None and value in produced}
        pending[node] = len(sources)
        for value in sources:
            readers.setdefault(value, []).append(node)
    ready = [node for node in reversed(nodes) if pending[node] == 0]
    ordered: list[Node] = []
    while ready:
        node = ready.pop()
        ordered.append(node)
        freed = []
        for value in node.outputs:
            for reader in readers.get(value, ()):
                pending[reader] -= 1
                if pending[reader] == 0:
                    freed.append(reader)
        ready.extend(reversed(freed))
    if len(ordered) < len(nodes):
        placed = set(ordered)
        loop = _cycle([node for node in nodes if node not in placed])
        raise ValueError(f"the network has a cycle: {' -> '.join(loop)}; a feed-forward graph has no loops")
    return ordered


def _cycle(blocked: Sequence[Node]) -> list[str]:
    """Names of the nodes of one cycle among nodes that all wait for each other."""
    waiting = set(blocked)
    node, seen = blocked[0], list[Node]()
    while node not in seen:
        seen.append(node)
        node = next(v.producer for v in node.inputs if v is not None and v.producer is not None and v.producer in waiting)
    loop = [*seen[seen.index(node) :], node]
    return [repr(n.path or n.op.name) for n in reversed(loop)]
