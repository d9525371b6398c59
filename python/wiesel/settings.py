"""Process-wide settings: the instruction set in force and the number of threads."""

from __future__ import annotations


def isa() -> str:
    """Name of the instruction set that kernels run on, such as "avx2" or "avx512". ``WIESEL_ISA`` in the environment forces one."""
    from wiesel import _core

    return _core.isa()


def isas() -> list[str]:
    """Instruction sets that this machine can run, slowest first."""
    from wiesel import _core

    return _core.isas()


def num_threads() -> int:
    """Threads that a step uses. The default respects affinity, container quotas and ``OMP_NUM_THREADS``. Bits do not depend on it."""
    from wiesel import _core

    return _core.num_threads()


def set_num_threads(n: int) -> None:
    """Sets the number of threads, at least 1, for programs that run from now on."""
    from wiesel import _core

    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"set_num_threads takes an int, got {n!r}")
    if n < 1:
        raise ValueError(f"set_num_threads: at least 1, got {n}")
    _core.set_num_threads(n)
