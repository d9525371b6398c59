"""A net that is a graph instead of Python classes: what ``wl.load`` returns for nets of own classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wiesel.graph.ir import NUMPY_DTYPES, Graph, Type, Value
from wiesel.nn.init import constant
from wiesel.nn.module import Module
from wiesel.nn.parameter import Parameter, State
from wiesel.nn.tracing import active

if TYPE_CHECKING:
    from wiesel.graph.tensor import Tensor


class Namespace(Module):
    """A name in the module path of a ``GraphModule``: holds the parameters whose path begins with it."""

    def __init__(self) -> None:
        self.frozen = False  # ``freeze()`` sets it: batch normalisations here keep their running statistics


class GraphModule(Module):
    """Replays a traced graph: trainable, with the parameter names of the net that was traced, freezable, savable.

    ``description`` holds the graph twice, as traced for inference and for training (``describe_net`` makes it). Its input shapes
    are those it was traced with.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_description", check_description(description))
        for kind in ("params", "states"):
            for name, shape in self._description[kind].items():
                *path, last = name.split(".")
                owner: Module = self
                for part in path:
                    if part not in owner.children():
                        setattr(owner, part, Namespace())
                    owner = owner.children()[part]
                setattr(owner, last, Parameter(shape=tuple(shape)) if kind == "params" else State(tuple(shape), constant(0.0)))

    def config(self) -> dict[str, Any]:
        return {}

    @property
    def description(self) -> Mapping[str, Any]:
        """What the graph is, as plain data."""
        found: Mapping[str, Any] = self._description
        return found

    def forward(self, *inputs: Tensor) -> Any:
        trace = active()
        assert trace is not None
        described = self._description["training" if trace.training else "inference"]
        if len(inputs) != len(described["inputs"]):
            raise ValueError(f"this net takes {len(described['inputs'])} inputs, got {len(inputs)}")
        known: list[Any] = []
        for tensor, (shape, dtype) in zip(inputs, described["inputs"], strict=True):
            if list(tensor.shape) != list(shape) or tensor.dtype != dtype:
                kind = ValueError if list(tensor.shape) != list(shape) else TypeError
                raise kind(f"this net was saved as a graph for inputs {Type(tuple(shape), dtype)}, got {tensor.type}")
            known.append(tensor)
        base = trace.path
        for name in (*self._description["params"], *self._description["states"]):
            known.append(self._tensor_of(name))
        for const in described["consts"]:
            known.append(trace.const(np.asarray(const["data"], NUMPY_DTYPES[const["dtype"]]).reshape(const["shape"]), const["dtype"]))
        running: dict[int, Any] = {}  # statistics of a batch, by number, that a frozen batch normalisation replaces by its running ones
        for node in described["nodes"]:
            trace.builder.path = ".".join(p for p in (base, node["path"]) if p)
            operands, attrs = [None if i is None else known[i] for i in node["inputs"]], from_plain(node["attrs"])
            if node["op"] == "bn_running" and self._frozen(node["path"]):
                running.update(zip(node["inputs"][:2], operands[3:], strict=True))
                known.extend(operands[3:])  # as they are
                continue
            if node["op"] == "bn_apply" and node["inputs"][1] in running:
                operands[1:3] = (running[i] for i in node["inputs"][1:3])
                attrs["frozen"] = True
            result = trace.call(node["op"], operands, attrs)
            outputs = result if isinstance(result, tuple) else (result,)
            for tensor, name in zip(outputs, node["names"], strict=True):
                if name:
                    trace.name(tensor, ".".join(p for p in (base, name) if p))
            known.extend(outputs)
        trace.builder.path = base
        if trace.update_states:
            for name, index in described["updates"].items():
                trace.update_state(self._tensor_of(name), known[index])
        return _build(described["outputs"], known)

    def _tensor_of(self, name: str) -> Any:
        *path, last = name.split(".")
        owner: Module = self
        for part in path:
            owner = owner.children()[part]
        return getattr(owner, last)

    def _frozen(self, path: str) -> bool:
        owner: Module | None = self
        for part in path.split("."):
            owner = owner.children().get(part) if owner is not None else None
        return isinstance(owner, Namespace) and owner.frozen


def _build(structure: Any, known: list[Any]) -> Any:
    if isinstance(structure, int):
        return known[structure]
    if isinstance(structure, dict):
        return {key: _build(part, known) for key, part in structure.items()}
    return tuple(_build(part, known) for part in structure)


def describe_net(net: Module, types: list[Type]) -> dict[str, Any]:
    """The graphs of ``net`` for inputs of these types, as plain data (JSON)."""
    found: dict[str, Any] = {
        "params": {name: list(v.shape) for name, v in net.parameters().items()},
        "states": {name: list(v.shape) for name, v in net.named_variables() if isinstance(v, State)},
    }
    for training in (False, True):
        graph, outputs = net.engine.trace(types, training=training)
        found["training" if training else "inference"] = _describe(graph, found, outputs.described(), net.engine.prefix)
    return found


def _describe(graph: Graph, tables: Mapping[str, Any], structure: Any, prefix: str) -> dict[str, Any]:
    within = f"{prefix}." if prefix else ""
    index: dict[Value, int] = {value: i for i, value in enumerate(graph.inputs.values())}
    count = len(index)
    for table, values in ((tables["params"], graph.params), (tables["states"], graph.states)):
        for name in table:
            value = values.get(within + name)
            if value is not None:
                index[value] = count
            count += 1
    consts = []
    for node in graph.nodes:
        for value in node.inputs:
            if value is not None and value.kind == "const" and value not in index:
                assert value.data is not None
                index[value] = count
                count += 1
                consts.append({"shape": list(value.shape), "dtype": value.dtype, "data": value.data.ravel().tolist()})
    nodes = []
    for node in graph.nodes:
        nodes.append(
            {
                "op": node.op.name,
                "path": node.path.removeprefix(within),
                "inputs": [None if v is None else index[v] for v in node.inputs],
                "attrs": to_plain(node.attrs),
                "names": [v.name.removeprefix(within) for v in node.outputs],
            }
        )
        for value in node.outputs:
            index[value] = count
            count += 1

    def place(part: Any) -> Any:
        if isinstance(part, str):
            return index[graph.outputs[part]]
        return {k: place(v) for k, v in part.items()} if isinstance(part, dict) else [place(v) for v in part]

    return {
        "inputs": [[list(v.shape), v.dtype] for v in graph.inputs.values()],
        "consts": consts,
        "nodes": nodes,
        "updates": {name.removeprefix(within): index[value] for name, value in graph.updates.items()},
        "outputs": place(structure),
    }


def to_plain(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON: tuples as lists, numbers and strings as they are."""

    def plain(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return [plain(v) for v in value]
        if isinstance(value, np.generic):
            return value.item()
        return value

    return {key: plain(value) for key, value in attrs.items()}


def from_plain(attrs: Mapping[str, Any]) -> dict[str, Any]:
    def back(value: Any) -> Any:
        return tuple(back(v) for v in value) if isinstance(value, list) else value

    return {key: back(value) for key, value in attrs.items()}


def check_description(described: Any) -> Mapping[str, Any]:
    """Refuses data that is no description of a graph, before anything is built from it."""
    if not isinstance(described, Mapping) or not {"params", "states", "inference", "training"} <= described.keys():
        raise ValueError("not the description of a graph: params, states, inference and training are expected")
    for kind in ("params", "states"):
        table = described[kind]
        if not isinstance(table, Mapping):
            raise ValueError(f"graph: {kind} must be a table of shapes")
        for name, shape in table.items():
            if not isinstance(shape, list) or not all(isinstance(e, int) and 1 <= e <= 1 << 40 for e in shape) or len(shape) > 6:
                raise ValueError(f"graph: {name} has the impossible shape {shape!r}")
            if not name or any(not part for part in name.split(".")):
                raise ValueError(f"graph: {name!r} is no parameter name")
    for mode in ("inference", "training"):
        _check_graph(described[mode], mode, len(described["params"]) + len(described["states"]), set(described["states"]))
    return described


def _check_graph(graph: Any, mode: str, variables: int, states: set[str]) -> None:
    from wiesel.ops.base import all_ops

    if not isinstance(graph, Mapping) or not {"inputs", "consts", "nodes", "updates", "outputs"} <= graph.keys():
        raise ValueError(f"graph ({mode}): inputs, consts, nodes, updates and outputs are expected")
    if not all(isinstance(graph[key], list) for key in ("inputs", "consts", "nodes")) or not isinstance(graph["updates"], Mapping):
        raise ValueError(f"graph ({mode}): inputs, consts and nodes must be lists, updates a table")
    for item in graph["inputs"]:
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], list) or item[1] not in NUMPY_DTYPES:
            raise ValueError(f"graph ({mode}): {item!r} is no input type")
        Type(tuple(item[0]), item[1])
    for const in graph["consts"]:
        if not isinstance(const, Mapping) or not {"shape", "dtype", "data"} <= const.keys() or const["dtype"] not in NUMPY_DTYPES:
            raise ValueError(f"graph ({mode}): a constant needs shape, dtype and data")
        if Type(tuple(const["shape"]), const["dtype"]).elements(1) != len(const["data"]):
            raise ValueError(f"graph ({mode}): a constant of shape {const['shape']} has {len(const['data'])} values")
    count = len(graph["inputs"]) + variables + len(graph["consts"])
    ops = all_ops()
    for node in graph["nodes"]:
        if not isinstance(node, Mapping) or not {"op", "path", "inputs", "attrs", "names"} <= node.keys():
            raise ValueError(f"graph ({mode}): a node needs op, path, inputs, attrs and names")
        if node["op"] not in ops:
            raise ValueError(f"graph ({mode}): no op is called {node['op']!r}")
        if not isinstance(node["attrs"], Mapping) or not isinstance(node["names"], list) or not isinstance(node["inputs"], list):
            raise ValueError(f"graph ({mode}): a node of {node['op']} is malformed")
        for i in node["inputs"]:
            if i is not None and not (isinstance(i, int) and 0 <= i < count):
                raise ValueError(f"graph ({mode}): a node of {node['op']} reads value {i!r}, which is not computed before it")
        count += len(node["names"])
    if not graph["updates"].keys() <= states or not all(isinstance(i, int) and 0 <= i < count for i in graph["updates"].values()):
        raise ValueError(f"graph ({mode}): an update names no state or no value")

    def check(part: Any) -> None:
        if isinstance(part, int) and not isinstance(part, bool):
            if not 0 <= part < count:
                raise ValueError(f"graph ({mode}): output {part} does not exist")
        elif isinstance(part, (dict, list)) and part:
            for member in part.values() if isinstance(part, dict) else part:
                check(member)
        else:
            raise ValueError(f"graph ({mode}): {part!r} is no output")

    check(graph["outputs"])
