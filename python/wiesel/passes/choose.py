"""Asks the core for the algorithm of every convolution, and adds the steps that bring weights into the form it wants."""

from __future__ import annotations

import math
from typing import Any

from wiesel import _core
from wiesel.graph.ir import Builder, Graph, Node, Value
from wiesel.ops.kinds import DIRECTIONS
from wiesel.passes.rewrite import sort_entries

PACKED_OPERAND = {"conv_fwd": "fwd", "conv_bwd_data": "bwd_data"}
CONVOLUTIONS = (*PACKED_OPERAND, "conv_bwd_weights")
NOT_OF_WEIGHTS = frozenset({"activation", "alpha", "beta", "eps", "in_activation"})
"""Attributes of a convolution that say nothing about its packed weights."""


def choose(graph: Graph, n: int, *, training: bool, isa: str | None = None) -> Graph:
    """Writes ``algorithm`` into the convolutions of ``graph`` and packs weights where the choice asks for it; returns ``graph``.

    A training program runs full batches of ``n``. One for inference serves all from a single sample to ``n``, with the same bits, so its
    algorithms are chosen for the geometric middle of these: quick for many at once is slow for one where transforms of weights count.
    In training, weights are packed in the entry that reads them, every step; otherwise once, in entry prepare, as far as they
    depend on nothing but parameters, states and constants.
    """
    packs: dict[tuple[Any, ...], Value] = {}
    if not training:
        n = math.isqrt(n)
    nodes, graph.nodes = graph.nodes, []
    for node in nodes:
        if node.op.name in CONVOLUTIONS:
            _choose_one(graph, node, n, training, isa, packs)
        graph.nodes.append(node)
    sort_entries(graph)
    return graph


def _choose_one(graph: Graph, node: Node, n: int, training: bool, isa: str | None, packs: dict[tuple[Any, ...], Value]) -> None:
    attrs = node.op.step_attrs(node.attrs)
    choice = _core.choose(
        node.op.name,
        [None if value is None else (value.dtype, value.type.concrete(n)) for value in node.inputs],
        [(value.dtype, value.type.concrete(n)) for value in node.outputs],
        attrs,
        isa,
    )
    node.attrs["algorithm"] = choice["algorithm"]
    direction = PACKED_OPERAND.get(node.op.name)
    if not choice["packed"] or direction is None:
        return
    w = node.inputs[1]
    assert w is not None
    node.attrs.update(kernel_h=w.shape[0], kernel_w=w.shape[1])  # packed weights have no extents of their own
    conv = {name: value for name, value in node.op.step_attrs(node.attrs).items() if name not in NOT_OF_WEIGHTS}
    key = (w, direction, *sorted(conv.items()))
    packed = packs.get(key)
    if packed is None:
        constant = w.kind in ("param", "state", "const") or (w.producer is not None and w.producer.entry == "prepare")
        entry = "prepare" if constant and not training else node.entry
        b = Builder(graph, entry=entry, path=node.path)
        packed = packs[key] = b.op("conv_pack", w, conv=conv, direction=DIRECTIONS[direction], nbytes=choice["packed"])
        packed.name = f"{w.name}:{direction}" if w.name else ""
    inputs = list(node.inputs)
    inputs[1] = packed
    node.inputs = tuple(inputs)
