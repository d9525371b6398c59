"""Numbers of the enumerations of ``cpp/ops/kinds.h``, looked up in the core when a program is emitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

POOL_KINDS: Mapping[str, int] = {"average": 0, "sum": 1}
DIRECTIONS: Mapping[str, int] = {"fwd": 0, "bwd_data": 1, "bwd_weights": 2}


def unary_number(kind: str) -> int:
    from wiesel import _core

    return _core.UNARY_KINDS[kind]


def binary_number(kind: str) -> int:
    from wiesel import _core

    return _core.BINARY_KINDS[kind]


def reduce_number(kind: str) -> int:
    from wiesel import _core

    return _core.REDUCE_KINDS[kind]


def algorithm_number(algorithm: str) -> int:
    from wiesel import _core

    return _core.ALGORITHMS[algorithm]


def epilogue_attrs(attrs: Mapping[str, Any]) -> dict[str, int | float]:
    """The fused activation of a node as step attributes; nothing when there is none."""
    if attrs["activation"] == "none":
        return {}
    return {"activation": unary_number(attrs["activation"]), "alpha": float(attrs["alpha"]), "beta": float(attrs["beta"])}
