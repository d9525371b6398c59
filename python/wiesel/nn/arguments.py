"""Shared handling of layer arguments: pairs, ranges, and positional arguments in another library's order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, TypeAlias

Pair: TypeAlias = "int | tuple[int, int]"
Padding: TypeAlias = "int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]] | str"


def refuse_positional(ours: str, torchs: str, given: Sequence[object]) -> NoReturn:
    """Raises the TypeError for positional arguments after the leading ones; shows torch's form and ours."""
    raise TypeError(
        f"{ours.split('(')[0]} got {len(given)} positional argument(s) too many: {', '.join(map(repr, given))}\n"
        f"  torch's form: {torchs}\n"
        f"  here:         {ours}\n"
        "  Input sizes are inferred when the net is built; everything else is given by keyword."
    )


def pair(value: Any, name: str, layer: str, *, least: int = 1) -> tuple[int, int]:
    """``value`` as (height, width); an int counts for both. Raises TypeError or ValueError that names layer and argument."""
    both = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (tuple, list)) else None
    if both is None or len(both) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) for v in both):
        raise TypeError(f"{layer}: {name} must be an int or a pair of ints, got {value!r}")
    if min(both) < least:
        raise ValueError(f"{layer}: {name} must be at least {least}, got {value!r}")
    return both


def positive(value: Any, name: str, layer: str) -> int:
    """``value`` as an int of at least 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{layer}: {name} must be an int, got {value!r}")
    number = int(value.__index__())
    if number < 1:
        raise ValueError(f"{layer}: {name} must be at least 1, got {number}")
    return number


def share(value: Any, name: str, layer: str) -> float:
    """``value`` as a float in [0, 1)."""
    number = float(value)
    if not 0.0 <= number < 1.0:
        raise ValueError(f"{layer}: {name} must be in [0, 1), got {value!r}")
    return number


def one_of(value: str, allowed: Sequence[str], name: str, layer: str) -> str:
    if value not in allowed:
        raise ValueError(f"{layer}: {name} must be one of {', '.join(map(repr, allowed))}; got {value!r}")
    return value
