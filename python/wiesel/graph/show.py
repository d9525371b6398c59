"""Graphs as readable text, and the log of the passes: ``WIESEL_DEBUG=graph`` logs every stage to the logger ``wiesel.graph``."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from wiesel.graph.ir import Graph, Value

logger = logging.getLogger("wiesel.graph")


def show(graph: Graph) -> str:
    """One line per node: ``%3 = conv_fwd(%x, %conv.weight) stride_h=2 : f32(N, 8, 8, 4)  # features.0``.

    Attributes are left out where they have their default; entries are headed ``forward:``, ``grad:`` …
    """
    labels: dict[Value, str] = {}

    def label(value: Value | None) -> str:
        if value is None:
            return "-"
        if value not in labels:
            if value.kind == "const":
                assert value.data is not None
                labels[value] = f"{value.data.item():g}" if value.data.size == 1 else f"const{value.type.shape}"
            else:
                labels[value] = f"%{value.name or len(labels)}"
        return labels[value]

    lines = []
    for table, kind in ((graph.inputs, "input"), (graph.params, "param"), (graph.states, "state")):
        lines += [f"{kind} %{name}: {value.type}" for name, value in table.items()]
    entry = ""
    for node in graph.nodes:
        if node.entry != entry:
            entry = node.entry
            lines.append(f"{entry}:")
        outputs = ", ".join(label(value) for value in node.outputs)
        types = ", ".join(str(value.type) for value in node.outputs)
        attrs = _attributes(node.attrs, node.op.defaults)
        where = f"  # {node.path}" if node.path else ""
        lines.append(f"  {outputs} = {node.op.name}({', '.join(map(label, node.inputs))}){attrs} : {types}{where}")
    for values, kind in ((graph.outputs, "output"), (graph.grads, "gradient of"), (graph.updates, "update of")):
        lines += [f"{kind} {name}: {label(value)}" for name, value in values.items()]
    return "\n".join(lines)


def _attributes(attrs: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    return "".join(f" {name}={value}" for name, value in attrs.items() if name not in defaults or value != defaults[name])


def log_stage(stage: str, graph: Graph) -> None:
    """Logs the graph after ``stage`` when WIESEL_DEBUG names ``graph``."""
    if "graph" in os.environ.get("WIESEL_DEBUG", "").split(","):
        logger.warning("after %s:\n%s", stage, show(graph))
