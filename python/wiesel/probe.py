"""What this machine can do, measured: the figures that profiles and predictions stand on. Nothing is ever chosen by them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

_FLOPS_SECONDS = 0.4
_PRODUCTS_SECONDS = 0.3
_LEVEL_SECONDS = 0.02
_LEVELS = tuple(1 << bits for bits in (16, 18, 20, 22, 24, 26))
_MEMORY = 1 << 28
"""Bytes that no cache holds."""
_MEMORY_SECONDS = 0.15


@dataclass(frozen=True)
class Machine:
    """Measured rates of one instruction set on so many threads. ``str()`` is one line."""

    isa: str
    threads: int
    flops: float
    """Floating-point operations per second of float32 multiply-adds in registers; each counts as two."""
    products: float
    """The same of matrix products with operands in a core's caches, on average over the moment of measuring: they fall further below
    ``flops`` while others keep the memory ports of a shared core busy. What predictions stand on."""
    read: float
    """Bytes per second read from memory, beyond all caches."""
    copy: float
    """Bytes per second read and written, both counted, by ordinary stores (which fetch a line before they write it)."""
    levels: tuple[tuple[int, float], ...]
    """(bytes, bytes per second): copying within so much memory, from caches to memory."""

    @property
    def bandwidth(self) -> float:
        """The roof for bytes: the better of ``read`` and ``copy``."""
        return max(self.read, self.copy)

    @property
    def ridge(self) -> float:
        """Operations per byte from which on arithmetic and not memory is the limit."""
        return self.flops / self.bandwidth

    def bandwidth_of(self, nbytes: float) -> float:
        """Bytes per second of a step that touches ``nbytes``: read off ``levels``, between two of them on a logarithmic scale."""
        sizes, rates = zip(*self.levels, strict=True)
        if nbytes <= sizes[0]:
            return float(rates[0])
        for (small, fast), (large, slow) in zip(self.levels, self.levels[1:], strict=False):
            if nbytes <= large:
                along = math.log(nbytes / small) / math.log(large / small)
                return float(fast * (slow / fast) ** along)
        return float(rates[-1])

    def __str__(self) -> str:
        return (
            f"{self.isa}, {self.threads} thread{'s' * (self.threads > 1)}: {self.flops / 1e9:.0f} GFLOP/s, "
            f"{self.products / 1e9:.0f} in products, "
            f"memory {self.read / 1e9:.1f} GB/s read, {self.copy / 1e9:.1f} GB/s copied"
        )


def machine(isa: str | None = None, threads: int | None = None, *, anew: bool = False) -> Machine:
    """Measures multiply-add peak, rate of products and bandwidths: a second or two, once per process, instruction set and threads.

    ``anew`` measures even if that has been done: a shared machine changes.
    By default those in force (``wl.isa()``, ``wl.num_threads()``). Of ``flops`` and bandwidths the best of many short rounds counts, so a
    machine that does something else meanwhile hardly shows; ``products`` are an average, in which it does. ValueError for an instruction
    set that this machine cannot run.

    >>> import wiesel as wl
    >>> wl.machine().flops > 1e9
    True
    """
    from wiesel import _core

    measure = _measure.__wrapped__ if anew else _measure
    return measure(isa or _core.isa(), threads or _core.num_threads())


@cache
def _measure(isa: str, threads: int) -> Machine:
    from wiesel import _core

    def copied(nbytes: int, seconds: float) -> float:
        return _core.probe_bytes("copy", nbytes, seconds, isa, threads)

    flops = _core.probe_flops(_FLOPS_SECONDS, isa, threads)
    products = _core.probe_products(_PRODUCTS_SECONDS, isa, threads)
    read, copy = _core.probe_bytes("read", _MEMORY, _MEMORY_SECONDS, isa, threads), copied(_MEMORY, _MEMORY_SECONDS)
    levels = [(_MEMORY, copy)]
    for nbytes in reversed(_LEVELS):  # less memory is never slower: where it seems so, handing out the work was measured
        levels.append((nbytes, max(levels[-1][1], copied(nbytes, _LEVEL_SECONDS))))
    return Machine(isa, threads, flops, products, read, copy, tuple(reversed(levels)))
