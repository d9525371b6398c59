"""How long a program will take, before it runs: a roofline per step with class efficiencies (docs/decisions/0005-predicted-time.md).

A step takes the longer of its arithmetic and its bytes, plus a start-up. Only figures of the machine that ``wl.machine`` measures come in,
and nothing is decided by what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wiesel.probe import Machine

Step = Mapping[str, Any]
"""A step as ``Compiled.steps`` tells it."""

_START = 1.5e-6
"""Seconds to begin a step and to hand out its work."""

_EFFICIENCY = {
    "conv_fwd direct": 0.78,
    "conv_bwd_data direct": 0.75,
    "conv_bwd_weights direct": 0.62,
    "conv_fwd planar": 0.22,
    "conv_bwd_data planar": 0.25,
    "conv_bwd_weights planar": 0.20,
    "conv_fwd winograd": 0.585,
    "conv_bwd_data winograd": 0.585,
    "conv_bwd_weights winograd": 0.37,
    "matmul direct": 0.55,
}
"""Share of the multiply-add peak that the products of a class reach where nothing else holds them up. Other classes are bound by bytes."""

_SHORT = 30.0
"""A direct product of K terms reaches K / (K + this) of its efficiency: tiles begin and end."""
_LANES = 16
"""Channels are computed in groups of so many."""
_TRANSFORMS = 3.9
"""Multiply-adds per pixel and channel, beside 9 per pixel and pair of channels, that Winograd's transforms are worth."""

_PASSES = {"bn_bwd": 1.75, "pool_max": 1.6, "pool_max_bwd": 1.9, "pool_avg": 1.6, "reduce": 1.4, "conv_pack": 3.0}
"""How often a class moves its bytes, or as slow as if: gradients of batch normalisation read twice, pooling compares besides."""


def predicted_seconds(steps: Iterable[Step], machine: Machine) -> float:
    """Seconds of a run of these steps."""
    return sum(step_seconds(step, machine) for step in steps)


def step_seconds(step: Step, machine: Machine) -> float:
    """Seconds of one step with its ``flops`` and ``bytes``."""
    moved = step["bytes"] * _PASSES.get(step["opcode"], 1.0)
    memory = moved / machine.bandwidth_of(step["bytes"]) if moved else 0.0
    return _START + max(_arithmetic(step) / machine.flops, memory)


def _arithmetic(step: Step) -> float:
    """Operations as if they ran at the peak: those of the direct formula, times what the algorithm makes of them."""
    opcode, algorithm = step["opcode"], step["algorithm"].rstrip("24")
    efficiency = _EFFICIENCY.get(f"{opcode} {algorithm}")
    if efficiency is None:
        return 0.0
    return float(step["flops"] * _expansion(step, algorithm) / efficiency)


def _expansion(step: Step, algorithm: str) -> float:
    first, second, result = (operand["shape"] for operand in (*step["inputs"][:2], step["outputs"][0]))
    opcode = step["opcode"]
    if algorithm == "winograd":
        tile = int(step["algorithm"][-1])
        inner, outer = (first[-1], second[-1]) if opcode == "conv_bwd_weights" else (first[-1], result[-1])
        rows, columns = second[1:3] if opcode == "conv_bwd_weights" else result[1:3]
        waste = math.prod(-(-extent // tile) * tile / extent for extent in (rows, columns))
        products = (tile + 2) ** 2 / tile**2 / 9
        return float(waste * (products + _TRANSFORMS * (1 / inner + 1 / outer)))
    if algorithm == "direct" and opcode != "matmul":
        lanes = result[-1]
        terms = step["flops"] / 2 / math.prod(result)
        return float(-(-lanes // _LANES) * _LANES / lanes * (1 + _SHORT / terms))
    return 1.0
