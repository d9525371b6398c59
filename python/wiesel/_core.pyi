"""The compiled core: kernel selection, choice of algorithms, programs and their instances. Bound in src/."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

OPCODES: dict[str, int]  # cpp/ops/ops.inc
ATTRS: dict[str, tuple[int, str]]  # cpp/ops/attrs.inc: name -> (number, "int" | "real")
UNARY_KINDS: dict[str, int]  # cpp/ops/kinds.h
UNARY_SAVES: dict[str, str]  # kind -> "x" (its gradient reads the input), "y" (the output) or "n" (neither)
BINARY_KINDS: dict[str, int]
REDUCE_KINDS: dict[str, int]
ALGORITHMS: dict[str, int]
DTYPES: dict[str, int]  # cpp/base/dtype.h
BUFFERS: dict[str, int]  # cpp/base/tensor.h
SLOTS: dict[str, int]  # cpp/ops/kinds.h: seed, step, micro_step, sample, accumulate, first_group, count
VERSION: str

def isa() -> str:
    """The instruction set in force. Raises ValueError, with the runnable ones, when WIESEL_ISA names another."""

def isas() -> list[str]:
    """Instruction sets that this machine can run, slowest first (the first is "ref")."""

MOST_KEPT: int
"""Bytes of large outputs that nobody holds any more are kept for the next ones, up to this."""

def kept_bytes() -> int: ...
def drop_kept() -> None: ...
def default_threads() -> int: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...

class Choice(TypedDict):
    algorithm: str
    kernel: str
    blocking: str
    refused: list[str]
    workspace: int
    packed: int

def choose(
    opcode: str,
    inputs: Sequence[tuple[str, tuple[int, ...]] | None],
    outputs: Sequence[tuple[str, tuple[int, ...]] | None],
    attrs: dict[str, int | float],
    isa: str | None = None,
    threads: int = 0,
) -> Choice:
    """The core's one decision: algorithm, kernel, scratch and packed bytes for a step with operands (dtype, extents), dense."""

class Buffer:
    """Zeroed memory, 64-byte aligned (2 MB with huge pages when large). Freed with the last view."""

    def __init__(self, nbytes: int) -> None: ...
    @property
    def nbytes(self) -> int: ...
    def view(self, offset: int, shape: tuple[int, ...], dtype: str, writable: bool = False) -> NDArray[Any]:
        """A NumPy view that keeps the buffer alive."""

class Program:
    """A parsed and verified program; immutable, shareable. Raises ValueError that names the file offset on a malformed byte."""

    def __init__(self, data: bytes | memoryview) -> None: ...
    @property
    def batch(self) -> int: ...
    def memory(self, isa: str | None = None, threads: int = 0) -> dict[str, int]:
        """Bytes: "arena", "workspace", "prepared", and of the shared buffers "params", "grads", "state", "opt", "consts"."""

    def steps(self, isa: str | None = None, threads: int = 0) -> list[dict[str, Any]]:
        """Per step: entry, opcode, path, what ``choose`` says of it, and inputs and outputs (name, dtype, shape, buffer, batch: whether
        the first extent is that of the batch)."""

class Instance:
    """A program with its memory. Calls are serialised; the GIL is released inside.

    With ``threads=0`` it is planned for ``num_threads()``, and a later, smaller number of threads holds for it too.
    """

    def __init__(
        self,
        program: Program,
        params: Buffer | None = None,
        grads: Buffer | None = None,
        state: Buffer | None = None,
        opt: Buffer | None = None,
        isa: str | None = None,
        threads: int = 0,
    ) -> None: ...
    def run(
        self,
        entries: int,
        inputs: Sequence[NDArray[Any]],
        outputs: Sequence[NDArray[Any]],
        n: int = 0,
        scalars: NDArray[np.int64] | None = None,
        step_seconds: NDArray[np.float64] | None = None,
        combining_seconds: NDArray[np.float64] | None = None,
    ) -> None:
        """Runs the entries whose bits are set (1 prepare, 2 forward, 4 grad, 8 update), in order.

        ``inputs`` and ``outputs`` are C-contiguous arrays of the slots' dtypes and extents (leading extent n; 0 takes it from the first
        array that has the batch). No output shares memory with another array. Entry prepare alone needs no arrays. ``scalars`` holds
        SLOTS["count"] values of 8 bytes; doubles are written through ``scalars.view(float64)``. To ``step_seconds`` each step's time is
        added, to ``combining_seconds`` (only together with it) the part in which partial sums are added up in order; without them no clock
        is read.
        Raises KeyboardInterrupt between two steps (never inside update), ValueError on arrays that do not fit.
        """

    def call(self, x: NDArray[Any]) -> NDArray[Any] | None:
        """The quick way for one input and one output: forward on ``x`` into a new array; None when ``x`` needs converting first."""

    def new_outputs(self, n: int = 1) -> list[NDArray[Any]]:
        """Arrays for the outputs of a run on ``n`` samples, not initialised. Large ones take the memory of earlier ones that are gone."""

    @property
    def arena_high_water(self) -> int:
        """Bytes of the arena that runs have touched, for tests of the plan. The first reading fills it with a canary (and gives 0)."""

def probe_products(seconds: float, isa: str | None = None, threads: int = 0) -> float:
    """Operations per second of matrix products in a core's caches, on average over ``seconds``."""

def probe_flops(seconds: float, isa: str | None = None, threads: int = 0) -> float:
    """Floating-point operations per second of multiply-adds in registers (two each): the best of what fits into ``seconds``."""

def probe_bytes(kind: str, nbytes: int, seconds: float, isa: str | None = None, threads: int = 0) -> float:
    """Bytes per second, the best within ``seconds``: "read" of ``nbytes``, or "copy" of half of them to the other half: both count."""

def heap_allocations() -> int:
    """Calls of operator new, malloc, calloc, realloc, posix_memalign and mmap by this extension since the process started."""

def random_fill(kind: str, seed: int, purpose: int, stream: int, step: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Counter-based random numbers (docs/naming.md): kind "uniform" in [0, 1), "normal", both float32."""

def random_permutation(n: int, seed: int, purpose: int, stream: int, step: int) -> NDArray[np.int64]: ...
def crc32(data: bytes | memoryview) -> int: ...
def stop_requested_hook(hook: Callable[[], bool] | None) -> None:
    """For tests: asked between two steps, in place of the signal check."""
