"""Fewer passes over memory: bias, residual and activation into the epilogue of what makes their input, batch statistics into the
convolution that makes theirs, masks and the sums that it begins with around the backward of batch normalisation, batch normalisation
into the convolutions that read it (training) or into the weights (inference). The result is what the unfused graph computes.

A producer takes over its reader only when nobody else reads the value between them and it is not handed out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wiesel.graph.ir import Builder, Graph, Node, Type, Value
from wiesel.ops.conv import IN_ACTIVATIONS, normalises
from wiesel.passes.rewrite import remove_dead, roots, substitute


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Where an op takes a bias and a residual (positions of inputs; -1: it takes none). All have the attributes of an activation."""

    bias: int
    residual: int


EPILOGUES: Mapping[str, Epilogue] = {
    "conv_fwd": Epilogue(bias=2, residual=3),
    "matmul": Epilogue(bias=2, residual=-1),
    "bn_apply": Epilogue(bias=-1, residual=5),
}

FOLDABLE: Mapping[str, int] = {"conv_fwd": 1, "matmul": 1}
"""Ops with weights whose last axis is the output channel, and the position of the weights."""

BN_MASKS = frozenset({"relu", "relu6", "leaky_relu"})
"""Activations whose derivative ``bn_bwd`` takes from y."""

POOL_MASKS = frozenset({"relu", "relu6"})
"""Activations whose derivative is 0 or 1, so that it may be applied to the parts of a sum or to the sum."""

NORM_AT: Mapping[str, int] = {"conv_fwd": 4, "conv_bwd_weights": 2}
"""Ops that may read their first input through a batch normalisation, and the position of its mean."""

IDEMPOTENT = frozenset({"relu", "relu6", "abs"})


def fuse(graph: Graph, *, training: bool) -> Graph:
    """Rewrites ``graph`` in place and returns it."""
    _merge_equal(graph)
    fuser = _Fuser(graph)
    fuser.clean_unary()
    if not training:
        fuser.fold_batch_norm()
    fuser.fuse_forward()
    fuser.fuse_backward()
    if training:
        fuser.fuse_normalisations()
    remove_dead(graph, roots(graph))
    _drop_indices(graph)
    return graph


def _merge_equal(graph: Graph) -> None:
    """Equal ops on equal inputs in one entry are computed once."""
    known: dict[object, Node] = {}
    merged: dict[Value, Value] = {}
    for node in graph.nodes:
        if merged and any(value in merged for value in node.inputs if value is not None):
            node.inputs = tuple(None if value is None else merged.get(value, value) for value in node.inputs)
        key = (node.op.name, node.entry, node.inputs, *node.attrs.items())
        first = known.setdefault(key, node)
        if first is not node:
            merged.update(zip(node.outputs, first.outputs, strict=True))
    substitute(graph, merged, nodes=())


def _drop_indices(graph: Graph) -> None:
    """A maximum pooling whose positions nobody reads (there is no gradient) does not write them."""
    read = {*graph.consumers(), *roots(graph)}
    for node in graph.nodes:
        if node.op.name == "pool_max" and len(node.outputs) == 2 and node.outputs[1] not in read:
            node.attrs["index"] = False
            node.outputs = node.outputs[:1]


class _Fuser:
    """The graph with what is known about its readers, kept true while nodes are merged."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.kept = set(roots(graph))
        self.readers = graph.consumers()
        self.dead: set[Node] = set()

    def clean_unary(self) -> None:
        """Drops activations that change nothing."""
        mapping: dict[Value, Value] = {}
        for node in self.graph.nodes:
            if node.op.name != "unary":
                continue
            x, kind = node.inputs[0], node.attrs["kind"]
            assert x is not None
            x = mapping.get(x, x)
            before = x.producer
            again = before is not None and before.op.name == "unary" and before.attrs["kind"] == kind and kind in IDEMPOTENT
            if (kind == "none" or again) and x.kind == "node":
                mapping[node.outputs[0]] = x
                self.dead.add(node)
        if mapping:
            substitute(self.graph, mapping)
            self._sweep()
            self.readers = self.graph.consumers()
            self.kept = set(roots(self.graph))

    def fuse_forward(self) -> None:
        for node in self.graph.nodes:
            if node.op.name == "unary":
                self._fuse_activation(node)
            elif node.op.name == "binary" and node.attrs["kind"] == "add":
                self._fuse_bias(node) or self._fuse_residual(node)
        self._sweep()
        for node in self.graph.nodes:
            if node.op.name == "bn_stats":
                self._fuse_statistics(node)
        self._sweep()

    def fuse_backward(self) -> None:
        for node in self.graph.nodes:
            if node.op.name == "unary_bwd" and node.attrs["kind"] in POOL_MASKS:
                self._mask_pooled(node)
        for node in self.graph.nodes:
            if node.op.name == "unary_bwd" and node.attrs["kind"] in BN_MASKS:
                self._fuse_mask(node)
            elif node.op.name == "pool_max" and node.attrs["index"] and not self._is_read(node.outputs[1]):
                node.attrs["index"] = False
                node.outputs = node.outputs[:1]
        self._sweep()
        for node in self.graph.nodes:
            if node.op.name == "unary_bwd":
                self._fuse_sums(node)
            elif node.op.name == "bn_bwd":
                self._fuse_gradient_sums(node)
        self._sweep()

    def fuse_normalisations(self) -> None:
        """A batch normalisation that nothing but convolutions read, which can normalise as they read, is never written."""
        for node in self.graph.nodes:
            if node.op.name == "bn_apply":
                self._fuse_normalisation(node)
        self._sweep()

    def fold_batch_norm(self) -> None:
        """y = gamma (conv(x, w) + b - mean) / sqrt(var + eps) + beta as one convolution: with s = gamma / sqrt(var + eps), weights
        w s and bias (b - mean) s + beta."""
        nodes, self.graph.nodes = self.graph.nodes, []
        for node in nodes:
            if node.op.name == "bn_apply":
                self._fold(node)
            self.graph.nodes.append(node)
        self._sweep()

    def _fold(self, node: Node) -> None:
        x, mean, var, gamma, beta, residual = _padded(node.inputs, 6)
        assert x is not None and mean is not None and var is not None
        conv = self._sole_producer(x, node)
        if conv is None or conv.op.name not in FOLDABLE or _has_epilogue(conv) or conv.attrs.get("trans_b"):
            return
        w = conv.inputs[FOLDABLE[conv.op.name]]
        constants = (w, mean, var, gamma, beta, conv.inputs[2] if len(conv.inputs) > 2 else None)
        if any(value is not None and value.kind not in ("param", "state", "const") for value in constants):
            return
        takes_residual = EPILOGUES[conv.op.name].residual >= 0
        if residual is not None and not takes_residual:
            return
        b = Builder(self.graph, path=node.path)
        deviation = b.op("unary", b.op("unary", var, kind="affine", alpha=1.0, beta=node.attrs["eps"]), kind="sqrt")
        scale = b.op("binary", b.const(1.0) if gamma is None else gamma, deviation, kind="div")
        bias = conv.inputs[2] if len(conv.inputs) > 2 else None
        shifted = b.op("unary", mean, kind="affine", alpha=-1.0) if bias is None else b.op("binary", bias, mean, kind="sub")
        folded_bias = b.op("binary", shifted, scale, kind="mul")
        if beta is not None:
            folded_bias = b.op("binary", folded_bias, beta, kind="add")
        folded_w = b.op("binary", w, scale, kind="mul")
        assert w is not None
        folded_w.name = f"{w.name}:folded" if w.name else ""
        self.dead.add(conv)
        node.op = conv.op
        node.inputs = (conv.inputs[0], folded_w, folded_bias, *((residual,) if takes_residual else ()))
        activation = {name: node.attrs[name] for name in ("activation", "alpha", "beta")}
        node.attrs = {**conv.attrs, **activation}

    def _fuse_activation(self, node: Node) -> None:
        x = node.inputs[0]
        assert x is not None
        producer = self._sole_producer(x, node)
        if producer is None or producer.op.name not in EPILOGUES or producer.attrs["activation"] != "none":
            return
        producer.attrs.update(activation=node.attrs["kind"], alpha=node.attrs["alpha"], beta=node.attrs["beta"])
        self._take_over(producer, node)

    def _fuse_bias(self, node: Node) -> bool:
        for x, bias in (node.inputs, node.inputs[::-1]):
            assert x is not None and bias is not None
            producer = self._sole_producer(x, node)
            if producer is None or producer.op.name not in EPILOGUES or _has_epilogue(producer):
                continue
            position = EPILOGUES[producer.op.name].bias
            if position < 0 or _padded(producer.inputs, position + 1)[position] is not None:
                continue
            if bias.kind not in ("param", "const", "state") or bias.shape != x.shape[-1:]:
                continue
            self._set_input(producer, position, bias, node)
            self._take_over(producer, node)
            return True
        return False

    def _fuse_residual(self, node: Node) -> bool:
        """Into the later of two candidates; it runs where the addition was, when both sums are there."""
        candidates = []
        for x, other in (node.inputs, node.inputs[::-1]):
            assert x is not None and other is not None
            producer = self._sole_producer(x, node)
            if producer is None or x is other or x.type != other.type or producer.op.name not in EPILOGUES or _has_epilogue(producer):
                continue
            if EPILOGUES[producer.op.name].residual >= 0:
                candidates.append((producer, other))
        if not candidates:
            return False
        producer, other = candidates[0]
        if len(candidates) == 2 and self._comes_later(candidates[1][0], producer):
            producer, other = candidates[1]
        self._set_input(producer, EPILOGUES[producer.op.name].residual, other, node)
        node.op, node.attrs, node.inputs = producer.op, producer.attrs, producer.inputs
        node.path = producer.path or node.path
        self.dead.add(producer)
        for value in node.inputs:
            if value is not None:
                self.readers[value] = [node if reader is producer else reader for reader in self.readers.get(value, [])]
        return True

    def _fuse_statistics(self, node: Node) -> None:
        """conv_fwd -> y, bn_stats(y) -> mean, var: gathered while y is still in cache."""
        y = node.inputs[0]
        conv = None if y is None else y.producer
        if conv is None or conv.op.name != "conv_fwd" or conv.attrs["stats"] or conv.entry != node.entry:
            return
        conv.attrs["stats"] = True
        conv.outputs = (*conv.outputs, *node.outputs)
        for index, value in enumerate(node.outputs, 1):
            value.producer, value.index = conv, index
        self.dead.add(node)

    def _comes_later(self, a: Node, b: Node) -> bool:
        return self.graph.nodes.index(a) > self.graph.nodes.index(b)

    def _fuse_mask(self, node: Node) -> None:
        """unary_bwd(y, dy) -> d; bn_bwd(x, d, …): the latter masks dy itself, and hands d out where others read it."""
        y, dy = node.inputs
        masked = node.outputs[0]
        readers = self.readers.get(masked, [])
        if not readers or masked in self.kept:
            return
        first = readers[0]
        inputs = _padded(first.inputs, 7)
        if first.op.name != "bn_bwd" or inputs[1] is not masked or inputs[6] is not None or first.attrs["activation"] != "none":
            return
        # Where y is the batch normalisation of this x and nothing else, it need not be read: the same operations on x give it again.
        again = (
            y is not None
            and not first.attrs["frozen"]
            and _is_batch_norm(y.producer, node.attrs, first.attrs["eps"], (inputs[0], *inputs[2:6]))
        )
        first.inputs = tuple(_trimmed([inputs[0], dy, *inputs[2:6], None if again else y]))
        if again and y is not None:
            self.readers[y] = [reader for reader in self.readers.get(y, []) if reader is not node]
        first.attrs.update(activation=node.attrs["kind"], alpha=node.attrs["alpha"], beta=node.attrs["beta"])
        others = [reader for reader in readers if reader is not first]
        if others:
            first.attrs["residual"] = True
            dresidual = Value(masked.type, "node", masked.name, first, len(first.outputs))
            first.outputs = (*first.outputs, dresidual)
            for reader in others:
                reader.inputs = tuple(dresidual if value is masked else value for value in reader.inputs)
            self.readers[dresidual] = others
        self.dead.add(node)

    def _fuse_sums(self, node: Node) -> None:
        """unary_bwd -> d, reduce(d) over all axes but the last: summed while it is still in cache."""
        d = node.outputs[0]
        for reader in self.readers.get(d, []):
            sums = reader.outputs[0]
            if reader.op.name != "reduce" or reader.attrs["kind"] != "sum" or reader.entry != node.entry or d.type.rank < 2:
                continue
            if tuple(reader.attrs["axes"]) == tuple(range(d.type.rank - 1)) and sums.shape == d.shape[-1:]:
                node.attrs["sums"] = True
                node.outputs = (d, sums)
                sums.producer, sums.index = node, 1
                self.dead.add(reader)
                return

    def _fuse_gradient_sums(self, node: Node) -> None:
        """conv_bwd_data -> dy, bn_bwd(x, dy, …): the sums over dy that the latter begins with are gathered while dy is still in cache."""
        x, dy, mean, var, gamma, beta, y, sums = _padded(node.inputs, 8)
        conv = None if dy is None else dy.producer
        if conv is None or conv.op.name != "conv_bwd_data" or conv.attrs["sums"] or conv.entry != node.entry:
            return
        if node.attrs["frozen"] or y is not None or sums is not None or x is None:
            return
        conv.inputs = tuple(_trimmed([*conv.inputs, x, mean, var, gamma, beta]))
        conv.attrs.update(sums=True, **{name: node.attrs[name] for name in ("eps", "activation", "alpha", "beta")})
        gathered = Value(Type((2 * x.shape[-1],)), "node", "", conv, 1)
        conv.outputs = (*conv.outputs, gathered)
        node.inputs = (x, dy, mean, var, gamma, beta, None, gathered)

    def _fuse_normalisation(self, node: Node) -> None:
        x, mean, var, gamma, beta, residual = _padded(node.inputs, 6)
        y, readers = node.outputs[0], self.readers.get(node.outputs[0], [])
        if x is None or x.producer is None or x.producer.op.name != "conv_fwd" or residual is not None or y in self.kept or not readers:
            return
        if node.attrs["activation"] not in IN_ACTIVATIONS or not all(_may_normalise(reader, y) for reader in readers):
            return
        for reader in readers:
            own = _padded(reader.inputs, NORM_AT[reader.op.name])
            reader.inputs = tuple(_trimmed([x, *own[1:], mean, var, gamma, beta]))
            reader.attrs.update(norm=True, eps=node.attrs["eps"], in_activation=node.attrs["activation"])
        self.dead.add(node)

    def _mask_pooled(self, node: Node) -> None:
        """d = mask(y) * pool_max_bwd(dy, index) with the maxima z of y: the mask of y where a maximum was is that of z, so
        d = pool_max_bwd(mask(z) * dy, index). Masks fewer pixels, and y is not needed for it. The sum of d over all pixels, which is
        the gradient of a bias, is that of mask(z) * dy."""
        y, spread = node.inputs
        assert y is not None
        assert spread is not None
        pool_bwd = self._sole_producer(spread, node)
        if pool_bwd is None or pool_bwd.op.name != "pool_max_bwd":
            return
        dy, index = pool_bwd.inputs
        pool = None if index is None else index.producer
        if dy is None or index is None or pool is None or pool.op.name != "pool_max" or pool.inputs[0] is not y:
            return
        z = pool.outputs[0]
        masked = Value(z.type, "node", "", pool_bwd)
        node.op, pool_bwd.op = pool_bwd.op, node.op
        node.attrs, pool_bwd.attrs = pool_bwd.attrs, node.attrs
        node.path, pool_bwd.path = pool_bwd.path, node.path
        pool_bwd.inputs, pool_bwd.outputs = (z, dy), (masked,)
        node.inputs = (masked, index)
        self.readers[y] = [reader for reader in self.readers[y] if reader is not node]
        self.readers[index] = [node if reader is pool_bwd else reader for reader in self.readers[index]]
        self.readers.setdefault(z, []).append(pool_bwd)
        self.readers[masked] = [node]
        d = node.outputs[0]
        pixels = tuple(range(d.type.rank - 1))
        for reader in self.readers.get(d, []):
            if reader.op.name == "reduce" and reader.attrs["kind"] == "sum" and tuple(reader.attrs["axes"]) == pixels:
                reader.inputs = (masked,)
                self.readers[masked].append(reader)
        self.readers[d] = [reader for reader in self.readers.get(d, []) if reader not in self.readers[masked]]

    def _is_read(self, value: Value) -> bool:
        return value in self.kept or bool(self.readers.get(value))

    def _sole_producer(self, value: Value, reader: Node) -> Node | None:
        """The node that makes ``value``, when ``reader`` alone reads it, once, in the same entry."""
        producer = value.producer
        if producer is None or value in self.kept or producer in self.dead or producer.entry != reader.entry:
            return None
        return producer if len(producer.outputs) == 1 and self.readers.get(value) == [reader] else None

    def _take_over(self, producer: Node, reader: Node) -> None:
        """``producer`` now makes what ``reader`` made, at its own place."""
        producer.outputs = reader.outputs
        for value in producer.outputs:
            value.producer = producer
        producer.path = producer.path or reader.path
        self.dead.add(reader)

    def _set_input(self, node: Node, position: int, value: Value, reader: Node) -> None:
        inputs = _padded(node.inputs, position + 1)
        inputs[position] = value
        node.inputs = tuple(inputs)
        self.readers[value] = [node if r is reader else r for r in self.readers.get(value, [])]

    def _sweep(self) -> None:
        if self.dead:
            self.graph.nodes = [node for node in self.graph.nodes if node not in self.dead]


def _has_epilogue(node: Node) -> bool:
    position = EPILOGUES[node.op.name].residual
    return node.attrs["activation"] != "none" or (0 <= position < len(node.inputs) and node.inputs[position] is not None)


def _is_batch_norm(node: Node | None, activation: Mapping[str, object], eps: float, inputs: tuple[Value | None, ...]) -> bool:
    """Whether ``node`` is bn_apply on x, mean, var, gamma, beta with this activation and no residual."""
    if node is None or node.op.name != "bn_apply" or tuple(_padded(node.inputs, 6)) != (*inputs, None) or node.attrs["eps"] != eps:
        return False
    return all(node.attrs[own] == activation[name] for own, name in (("activation", "kind"), ("alpha", "alpha"), ("beta", "beta")))


def _may_normalise(reader: Node, y: Value) -> bool:
    """Whether ``reader`` can read y through the batch normalisation that makes it."""
    if reader.op.name not in NORM_AT or reader.attrs["norm"] or reader.inputs[0] is not y or reader.inputs.count(y) > 1:
        return False
    w = reader.inputs[1] if reader.op.name == "conv_fwd" else reader.outputs[0]
    assert w is not None
    return normalises(reader.attrs, w.shape[:2], y.shape[-1], w.shape[-1])


def _trimmed(inputs: list[Value | None]) -> list[Value | None]:
    while inputs[-1] is None:
        inputs.pop()
    return inputs


def _padded(inputs: tuple[Value | None, ...], count: int) -> list[Value | None]:
    return [*inputs, *[None] * (count - len(inputs))]
