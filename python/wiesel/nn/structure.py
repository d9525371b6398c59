"""When did a module last change? One clock for all, so that a net's programs can be checked with one comparison."""

from __future__ import annotations

from typing import Any

_now = 0


def touch(thing: Any) -> None:
    """Notes that a module or parameter changed in a way that programs depend on."""
    global _now
    _now += 1
    object.__setattr__(thing, "_stamp", _now)


def now() -> int:
    """The time of the last change anywhere in the process."""
    return _now


def stamp(thing: Any) -> int:
    """The time of the last change of ``thing`` itself."""
    found: int = getattr(thing, "_stamp", 0)
    return found
