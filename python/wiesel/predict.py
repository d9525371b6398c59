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

_START = 1e-6
"""Seconds to begin a step."""
_SHARE, _SHARED_FROM = 8e-6, 10e-6
"""Seconds to share a step between threads, and how long it must be on one thread to be shared."""

_EFFICIENCY = {
    "conv_fwd direct": 0.93,
    "conv_bwd_data direct": 0.91,
    "conv_bwd_weights direct": 0.79,
    "conv_fwd planar": 0.44,
    "conv_bwd_data planar": 0.46,
    "conv_bwd_weights planar": 0.47,
    "conv_fwd winograd": 0.88,
    "conv_bwd_data winograd": 0.88,
    "conv_bwd_weights winograd": 0.62,
    "conv_fwd depthwise": 0.24,
    "conv_bwd_data depthwise": 0.24,
    "conv_bwd_weights depthwise": 0.24,
    "matmul direct": 0.7,
    "pool_max direct": 0.05,
    "pool_max_bwd direct": 0.05,
    "pool_avg direct": 0.038,
    "bn_stats direct": 0.052,
}
"""What a class reaches of the rate of products in cache, where nothing else holds it up. Classes that are not here are bound by bytes."""

_PASSES = {
    "bn_bwd direct": 1.6,
    "bn_bwd direct, sums given": 0.75,
    "bn_apply direct": 0.9,
    "sgd_update direct": 0.52,
    "sgd_matmul direct": 0.85,
    "adam_matmul direct": 0.85,
    "matmul direct": 1.5,
    "unary_bwd direct": 0.55,
    "binary direct": 0.6,
    "reduce direct": 1.1,
    "conv_pack direct": 1.7,
    "conv_pack winograd": 1.7,
    "pool_max direct": 1.1,
    "pool_max_bwd direct": 1.25,
    "conv_fwd direct": 1.7,
    "conv_bwd_data direct": 1.35,
    "conv_fwd depthwise": 1.8,
    "conv_bwd_data depthwise": 1.35,
    "conv_bwd_weights depthwise": 1.7,
}
"""How often a class moves its bytes, or as if: gradients of batch normalisation read twice, unless their sums are given; in place, no line
is fetched to be written; convolutions normalise and gather between their sums, and the memory waits meanwhile."""
_SUMS_AT = 7
"""The place of given sums among the inputs of bn_bwd."""

_BETWEEN = 4.0
"""Between the writing of a step's operands and the step, a run touches so many times their bytes: they lie that far from the core."""

_LANES = 16
"""Products take output channels in groups of so many."""
_VECTOR_LANES = {"avx512": 16, "avx2": 8}
_ONE_VECTOR = 1.3
"""Where all output channels fit a vector, products reach less."""
_POOL_LANES = 8
_SHORT = 14.0
"""A direct product of K terms reaches K / (K + this) of its efficiency: tiles begin and end."""
_SHORT_ROWS = 8.0
"""The same for backward-weights with so many rows of dw per output channel."""
_TRANSFORMS = 3.9
"""Multiply-adds per pixel and channel, beside 9 per pixel and pair of channels, that Winograd's transforms are worth; in backward-weights
they hide behind the products."""


def predicted_seconds(steps: Iterable[Step], machine: Machine) -> float:
    """Seconds of a run of these steps."""
    return sum(step_seconds(step, machine) for step in steps)


def step_seconds(step: Step, machine: Machine) -> float:
    """Seconds of one step with its ``flops`` and ``bytes``."""
    moved = step["bytes"] * _PASSES.get(_class(step), 1.0)
    memory = moved / machine.bandwidth_of(step["bytes"] * _BETWEEN) if moved else 0.0
    work = max(_arithmetic(step, machine.isa) / machine.products, memory)
    shared = machine.threads > 1 and work * machine.threads > _SHARED_FROM
    return _START + work + _SHARE * shared


def _algorithm(step: Step) -> str:
    """Without the size of Winograd's tiles."""
    return str(step["algorithm"].rstrip("24"))


def _class(step: Step) -> str:
    sums = step["opcode"] == "bn_bwd" and len(step["inputs"]) > _SUMS_AT
    return f"{step['opcode']} {_algorithm(step)}{', sums given' if sums else ''}"


def _arithmetic(step: Step, isa: str) -> float:
    """Operations as if they ran as products do: those of the direct formula, times what the algorithm makes of them."""
    efficiency = _EFFICIENCY.get(_class(step))
    if efficiency is None:
        return 0.0
    return float(step["flops"] * _expansion(step, isa) / efficiency)


def _expansion(step: Step, isa: str) -> float:
    """What tiles, lanes and transforms make of each operation."""
    opcode, algorithm = step["opcode"], _algorithm(step)
    first, result = step["inputs"][0]["shape"], step["outputs"][0]["shape"]
    weights = opcode == "conv_bwd_weights"
    if algorithm == "winograd":
        tile = int(step["algorithm"][-1])
        waste = math.prod(-(-extent // tile) * tile / extent for extent in (step["inputs"][1]["shape"] if weights else result)[1:3])
        pairs = 2 * 9 * math.prod(result[:-1]) * first[-1] * result[-1]  # of channels, were there one group
        groups = max(1, round(pairs / step["flops"]))
        transforms = 0.0 if weights else _TRANSFORMS * groups * (1 / first[-1] + 1 / result[-1])
        return float(waste * ((tile + 2) ** 2 / tile**2 / 9 + transforms))
    if opcode.startswith("pool"):
        return _filled(first[-1], _POOL_LANES)
    if opcode.startswith("conv") and algorithm == "direct":
        short = _SHORT_ROWS / math.prod(result[:-1]) if weights else _SHORT * 2 * math.prod(result) / step["flops"]
        narrow = _ONE_VECTOR if result[-1] <= _VECTOR_LANES.get(isa, 4) else 1.0
        return float(_filled(result[-1], _LANES) * narrow * (1 + short))
    return 1.0


def _filled(count: int, lanes: int) -> float:
    return -(-count // lanes) * lanes / count
