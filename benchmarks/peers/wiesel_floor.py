"""How fast a training step could be at best: for each layer and direction the larger of arithmetic and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wiesel import nn
from wiesel.graph.ir import BATCH, Node, Type, Value

CACHE = 4 << 20  # bytes; a smaller tensor is taken to stay in cache
WINOGRAD = 2.7  # F(4x4, 3x3) over direct convolution, at equal multiply-add rate
LEAST_TILES = 32
PASSES = 5  # over large weights: forward; then once more, with the momentum, each read and written


def floor_of(net: nn.Module, shape: tuple[int, ...]) -> list[tuple[float, float]]:
    """(operations, bytes) of each part of a step on a batch of ``shape``; the floor is Σ max(operations / peak, bytes / bandwidth).

    Operations count 2 a multiply-add, by the direct formula, or as many as take the same time where Winograd's F(4x4, 3x3) applies.
    Every float32 tensor beyond 4 MB moves through memory once for each use. Normalised and activated tensors are never written: the
    batch statistics are gathered as the convolution writes, and all that reads its output normalises as it loads; so does what reads
    the gradient. Inputs of concatenation are written in place.
    """
    graph, _ = net.engine.trace([Type((BATCH, *shape[1:]))], training=True)
    return Floor(graph.nodes, shape[0]).parts


def at_best(parts: Sequence[tuple[float, float]], flops: float, bandwidth: float) -> float:
    """Seconds that (operations, bytes) take one after the other, each at 95 % of the peak or at full bandwidth.

    >>> at_best([(95e9, 1e9), (0, 20e9)], 100e9, 10e9)
    3.0
    """
    return sum(max(operations / (0.95 * flops), size / bandwidth) for operations, size in parts)


class Floor:
    """Walks the forward pass and adds the backward directions of each node."""

    def __init__(self, nodes: list[Node], n: int) -> None:
        self._n = n
        self._loaded: dict[int, Value] = {}
        """What is computed while loading, by identity, and the tensor that it is computed from."""
        self._normalised = {id(node.inputs[0]) for node in nodes if node.op.name == "bn_apply"}
        self.parts: list[tuple[float, float]] = []
        for node in nodes:
            self._add(node)

    def _add(self, node: Node) -> None:
        kind, x, y = node.op.name, node.inputs[0], node.outputs[0]
        assert x is not None
        source = self._source(x)
        read, written = self._bytes(source.type.shape), self._bytes(y.type.shape)
        if kind in ("conv_fwd", "matmul"):
            self._linear(node, source, read, written)
        elif kind in ("normalize", "bn_apply", "unary", "reshape"):
            self._loaded[id(y)] = x
        elif kind == "binary":
            self.parts += [(0, 3 * written), (0, written)]  # both operands in, the sum out; its gradient is added to the branches'
        elif kind in ("pool_max", "pool_avg", "lrn"):
            again = read if kind == "lrn" else 0
            statistics = 2 * read if id(source) in self._normalised else 0
            self.parts += [(0, read + written), (0, read + written + again), (0, statistics)]

    def _linear(self, node: Node, source: Value, read: float, written: float) -> None:
        """Forward, backward-data (unless the source is the net's input), backward-weights and update."""
        y, w = node.outputs[0], node.inputs[1]
        assert w is not None
        weights = self._bytes(w.type.shape)
        operations = self._operations(node, w.type.shape, y.type.shape)
        gradient = written * (2 if id(y) in self._normalised else 1)  # with the normalisation's own, which needs y too
        self.parts.append((operations, read + weights + written))
        if source.producer is not None:
            statistics = read if id(source) in self._normalised else 0
            self.parts.append((operations, gradient + read + statistics))
        self.parts.append((operations, read + gradient))
        self.parts.append((0, (PASSES - 1) * weights))

    def _operations(self, node: Node, w: tuple[int, ...], y: tuple[int, ...]) -> float:
        direct = 2.0 * int(np.prod(w)) * self._n
        if node.op.name == "matmul":
            return direct
        oh, ow = y[1:3]
        a: dict[str, Any] = node.attrs
        plain = all(a[name] == 1 for name in ("stride_h", "stride_w", "dilation_h", "dilation_w"))
        tiles = self._n * -(-oh // 4) * -(-ow // 4)
        winograd = plain and w[:2] == (3, 3) and min(w[2], w[3] // a["groups"]) >= 32 and tiles >= LEAST_TILES
        return direct * oh * ow / (WINOGRAD if winograd else 1.0)

    def _source(self, x: Value) -> Value:
        while id(x) in self._loaded:
            x = self._loaded[id(x)]
        return x

    def _bytes(self, shape: tuple[int, ...]) -> float:
        """Of a tensor if it goes through memory, else 0."""
        size = 4 * int(np.prod([self._n if extent == BATCH else extent for extent in shape]))
        return float(size) if size > CACHE else 0.0
