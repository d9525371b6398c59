"""Runs a graph with the ops' NumPy references, node by node: the oracle of the tests, in float32 or float64."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from wiesel.graph.ir import Graph, Value


def run_reference(graph: Graph, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Values of ``graph.outputs``, ``graph.grads`` and ``graph.updates`` for inputs, parameters and states given by name.

    Gradients are returned under ``"grad:" + name``, new states under ``"state:" + name``.
    """
    known: dict[Value, np.ndarray] = {}
    for table in (graph.inputs, graph.params, graph.states):
        for name, value in table.items():
            known[value] = np.asarray(arrays[name])

    def get(value: Value | None) -> np.ndarray | None:
        if value is None:
            return None
        return value.data if value.kind == "const" else known[value]

    for node in graph.nodes:
        results = node.op.reference(node.attrs, *(get(v) for v in node.inputs))
        for value, array in zip(node.outputs, results, strict=True):
            known[value] = array
    found = {name: get(value) for name, value in graph.outputs.items()}
    found |= {"grad:" + name: get(value) for name, value in graph.grads.items()}
    found |= {"state:" + name: get(value) for name, value in graph.updates.items()}
    return found  # type: ignore[return-value]
