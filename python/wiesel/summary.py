"""``net.summary()``: a table of layers with shapes, parameters, multiply-adds, memory, receptive field and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wiesel.graph.ir import BATCH, Graph, Node, Type, Value, types_of
from wiesel.ops.geometry import ReceptiveField
from wiesel.planning import show_bytes

if TYPE_CHECKING:
    from wiesel.nn.module import Module

_LINEAR = ("conv_fwd", "matmul", "conv_bwd_data")
"""Ops that are linear maps with weights."""
_KEEPS_LINEAR = ("reshape", "transpose", "copy")


@dataclass
class Layer:
    """One line: a module without modules below it, or what ``forward`` of a module computes itself."""

    path: str
    kind: str
    output: str = ""
    parameters: int = 0
    trainable: int = 0
    macs: int = 0
    """Multiply-adds of one sample."""
    flops: int = 0
    """Other floating-point operations of one sample."""
    activations: int = 0
    """Bytes of what it computes for one sample."""
    sees: tuple[int, int] | None = None
    """Receptive field (height, width) of one output unit, in input pixels."""
    cost: str = ""
    notes: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class Summary:
    """The layers of a net and their sums."""

    name: str
    inputs: list[str]
    layers: list[Layer]
    memory: int

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def trainable(self) -> int:
        return sum(layer.trainable for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-adds of one sample."""
        return sum(layer.macs for layer in self.layers)

    @property
    def activations(self) -> int:
        """Bytes of all that is computed for one sample."""
        return sum(layer.activations for layer in self.layers)

    def text(self, *, config: bool = False) -> str:
        """The table; ``config`` adds the arguments of every layer."""
        rows = [("layer", "kind", "output", "parameters", "multiply-adds", "sees", "cost per sample")]
        below: list[list[str]] = [[]]
        for layer in self.layers:
            sees = "" if layer.sees is None else f"{layer.sees[0]}×{layer.sees[1]}"
            cells = (layer.path or "(net)", layer.kind, layer.output, f"{layer.parameters:,}", f"{layer.macs:,}", sees, layer.cost)
            rows.append(cells)
            extra = [f"      note: {note}" for note in layer.notes]
            if config and layer.config:
                extra.insert(0, "      " + ", ".join(f"{key}={value!r}" for key, value in layer.config.items()))
            below.append(extra)
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        right = (False, False, False, True, True, True, False)
        lines = [f"{self.name}: input {', '.join(self.inputs)}"]
        for row, extra in zip(rows, below, strict=True):
            cells_text = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
            lines.append("  ".join(cells_text).rstrip())
            lines += extra
        frozen = self.parameters - self.trainable
        lines.append(f"parameters: {self.parameters:,}" + (f", of which {frozen:,} frozen" if frozen else ""))
        lines.append(f"multiply-adds per sample: {self.macs:,}; activations per sample: {show_bytes(self.activations)}")
        lines.append(f"memory of inference on one sample: {show_bytes(self.memory)}")
        return "\n".join(lines)


def summarize(net: Module, *input_shapes: Sequence[int]) -> Summary:
    """The table as data. ``input_shapes`` are those of one sample; by default those that the net was built for."""
    engine = net.engine
    with engine.lock:
        engine.refresh()
        if input_shapes:
            types = [Type((BATCH, *shape)) for shape in input_shapes]
        elif engine.sample_types:
            types = list(engine.sample_types)
        else:
            raise ValueError("the net is not built: give the shape of one sample, e.g. net.summary((28, 28, 1))")
        graph, _ = engine.trace(types)
        from wiesel.program.compile import compile_graph

        assert engine.store is not None
        memory = compile_graph(graph, n=1, layout=engine.store.inference_layout()).program.memory()
        modules = dict(net.named_modules(engine.prefix))
        counted: set[int] = set()
        fields = receptive_fields(graph)
        linear = _linear_chains(graph)
        groups: dict[str, list[Node]] = {}
        for node in graph.nodes:
            groups.setdefault(_owner(node.path, modules), []).append(node)
        for path, module in modules.items():  # layers that compute nothing (Identity, Dropout) have their line too
            if path not in groups and not module.children() and module is not net:
                groups[path] = []
        order = {path: i for i, path in enumerate(modules)}
        layers = [
            _layer(path, modules[path], nodes, fields, linear, counted, graph)
            for path, nodes in sorted(groups.items(), key=lambda item: order.get(item[0], -1))
        ]
        total = sum(memory.values())
        return Summary(type(net).__name__, [str(type) for type in types], layers, total)


def _owner(path: str, modules: dict[str, Module]) -> str:
    while path not in modules and "." in path:
        path = path.rpartition(".")[0]
    return path if path in modules else next(iter(modules))


def _layer(
    path: str,
    module: Module,
    nodes: Sequence[Node],
    fields: dict[Value, tuple[ReceptiveField, ReceptiveField]],
    linear: set[Node],
    counted: set[int],
    graph: Graph,
) -> Layer:
    layer = Layer(path, type(module).__name__, config=module.config())
    if not module.children():
        from wiesel.nn.parameter import Parameter

        for _, variable in module.named_variables():
            if isinstance(variable, Parameter) and id(variable) not in counted:
                counted.add(id(variable))
                layer.parameters += variable.size
                layer.trainable += variable.size * variable.trainable
    for node in nodes:
        cost = node.op.cost(node.attrs, types_of(node.inputs), [v.type for v in node.outputs])
        layer.macs += cost.macs
        layer.flops += cost.flops
        if not node.op.alias:
            layer.activations += node.outputs[0].type.nbytes(1) if node.outputs[0].type.has_batch else 0
        if node in linear:
            layer.notes.append("linear right after linear: without an activation between them the two could be one layer")
        layer.cost = layer.cost or _cost_text(node)
        layer.notes += _kernel_notes(node)
    if nodes:
        last = nodes[-1].outputs[0]
        named = graph.names.get(path)
        shown = named if named is not None else last
        layer.output = str(shown.type).removeprefix("f32")
        if shown in fields and shown.type.rank == 4:
            rows, columns = fields[shown]
            layer.sees = (rows.size, columns.size)
    return layer


def _cost_text(node: Node) -> str:
    """How the work of a convolution comes about: positions times taps times depths. A stride S divides by S² (S-38)."""
    if node.op.name != "conv_fwd" or node.inputs[0] is None or node.inputs[1] is None:
        return ""
    (_, ih, iw, _), (kh, kw, depth, filters) = node.inputs[0].shape, node.inputs[1].shape
    sh, sw = node.attrs["stride_h"], node.attrs["stride_w"]
    area = f"{ih}·{iw}" + (f"/({sh}·{sw})" if sh * sw > 1 else "")
    return f"≈ {area} · {kh}·{kw}·{depth} · {filters}"


def _kernel_notes(node: Node) -> list[str]:
    if node.op.name != "conv_fwd" or node.inputs[1] is None:
        return []
    kh, kw = node.inputs[1].shape[:2]
    even = [f"{k}" for k in (kh, kw) if k % 2 == 0]
    if not even:
        return []
    return [f'a {kh}×{kw} filter has no central pixel; "same" padding puts the extra zero behind (bottom, right)']


def filter_centre(kernel: tuple[int, int]) -> tuple[int, int] | None:
    """The central pixel (row, column) of an odd filter; None for an even one.

    >>> filter_centre((3, 5))
    (1, 2)
    """
    return (kernel[0] // 2, kernel[1] // 2) if kernel[0] % 2 and kernel[1] % 2 else None


def receptive_fields(graph: Graph) -> dict[Value, tuple[ReceptiveField, ReceptiveField]]:
    """For values of rank 4 the part of the first input that one unit sees, along height and width; the largest of several ways."""
    found: dict[Value, tuple[ReceptiveField, ReceptiveField]] = {}
    for value in graph.inputs.values():
        if value.type.rank == 4:
            found[value] = (ReceptiveField(), ReceptiveField())
    for node in graph.nodes:
        sources = [found[v] for v in node.inputs if v is not None and v in found]
        if not sources:
            continue
        rows, columns = max(sources, key=lambda pair: (pair[0].size, pair[1].size))
        attrs = node.attrs
        if node.op.name != "conv_bwd_data" and "kernel_h" in attrs:
            rows = rows.through(attrs["kernel_h"], attrs["stride_h"], attrs["dilation_h"], attrs["pad_top"])
            columns = columns.through(attrs["kernel_w"], attrs["stride_w"], attrs["dilation_w"], attrs["pad_left"])
        for value in node.outputs:
            if value.type.rank == 4:
                found[value] = (rows, columns)
    return found


def _linear_chains(graph: Graph) -> set[Node]:
    """Linear nodes that directly follow a linear node (through reshapes and added biases) and are its only reader."""
    readers = graph.consumers()
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op.name not in _LINEAR:
            continue
        value = node.inputs[0]
        while value is not None and value.producer is not None and len(readers.get(value, ())) == 1:
            before = value.producer
            if before.op.name in _LINEAR and before.attrs.get("activation", "none") == "none":
                found.add(node)
                break
            if before.op.name not in _KEEPS_LINEAR:
                break
            value = before.inputs[0]
    return found
