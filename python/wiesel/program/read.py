"""Reads a program back into Python: what a file contains, for tools and tests. The core has its own, stricter reader."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from wiesel import _core
from wiesel.graph.ir import ENTRIES
from wiesel.program.emit import ABSENT, ATTR, HEADER, SIZED_BUFFERS, SLOT_BITS, STEP, TENSOR, VERSION
from wiesel.program.layout import align


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor descriptor. ``offset`` in bytes, ``strides`` in elements; ``slot`` of inputs and outputs, else -1."""

    name: str
    dtype: str
    buffer: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    batch: bool
    slot: int = -1


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step: operands are tensors of the program, None where absent."""

    entry: str
    opcode: str
    path: str
    inputs: tuple[TensorRecord | None, ...]
    outputs: tuple[TensorRecord | None, ...]
    attrs: dict[str, int | float]


@dataclass(frozen=True, slots=True)
class ProgramRecord:
    """A whole program; ``sizes`` are the bytes of its buffers."""

    batch: int
    sizes: dict[str, int]
    tensors: tuple[TensorRecord, ...]
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    steps: tuple[StepRecord, ...]
    consts: bytes


def read_program(payload: bytes | memoryview, file: str = "program") -> ProgramRecord:
    """Decodes the payload of a PROG section. Raises ValueError with ``file`` and the offset where it makes no sense."""
    try:
        return _Reader(memoryview(payload)).read()
    except (struct.error, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: section PROG is malformed: {type(error).__name__}: {error}") from None


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.opcodes = {number: name for name, number in _core.OPCODES.items()}
        self.attrs = {number: name for name, (number, _) in _core.ATTRS.items()}
        self.dtypes = {number: name for name, number in _core.DTYPES.items()}
        self.buffers = {number: name for name, number in _core.BUFFERS.items()}

    def read(self) -> ProgramRecord:
        version, _, batch, *rest = HEADER.unpack_from(self.data)
        if version != VERSION:
            raise ValueError(f"offset 0: program version {version} is not known to this library (it reads {VERSION})")
        sizes = dict(zip(SIZED_BUFFERS, rest[:7], strict=True))
        n_tensors, n_steps, n_inputs, n_outputs, name_bytes, step_bytes = rest[7:]
        at_slots = HEADER.size + TENSOR.size * n_tensors
        at_steps = at_slots + 4 * (n_inputs + n_outputs)
        at_names = at_steps + step_bytes
        self.names = bytes(self.data[at_names : at_names + name_bytes])
        tensors = tuple(self._tensor(HEADER.size + TENSOR.size * i) for i in range(n_tensors))
        slots = struct.unpack_from(f"<{n_inputs + n_outputs}I", self.data, at_slots)
        steps, at = [], at_steps
        for _ in range(n_steps):
            step, at = self._step(at, tensors)
            steps.append(step)
        described = tuple(tensors[i] for i in slots)
        consts = bytes(self.data[align(at_names + name_bytes) :])
        return ProgramRecord(batch, sizes, tensors, described[:n_inputs], described[n_inputs:], tuple(steps), consts)

    def _name(self, offset: int) -> str:
        return self.names[offset : self.names.index(b"\0", offset)].decode()

    def _tensor(self, at: int) -> TensorRecord:
        dtype, rank, buffer, flags, name, offset, *numbers = TENSOR.unpack_from(self.data, at)
        bound = self.buffers[buffer] in ("input", "output")
        return TensorRecord(
            self._name(name),
            self.dtypes[dtype],
            self.buffers[buffer],
            offset >> SLOT_BITS if bound else offset,
            tuple(numbers[:rank]),
            tuple(numbers[6 : 6 + rank]),
            bool(flags & 1),
            offset & ((1 << SLOT_BITS) - 1) if bound else -1,
        )

    def _step(self, at: int, tensors: tuple[TensorRecord, ...]) -> tuple[StepRecord, int]:
        opcode, n_in, n_out, n_attr, entry, _, name, _ = STEP.unpack_from(self.data, at)
        at += STEP.size
        ids = struct.unpack_from(f"<{n_in + n_out}I", self.data, at)
        at += -(-4 * len(ids) // 8) * 8
        attrs: dict[str, Any] = {}
        for _ in range(n_attr):
            key, kind, raw = ATTR.unpack_from(self.data, at)
            attrs[self.attrs[key]] = struct.unpack("<d" if kind else "<q", raw)[0]
            at += ATTR.size
        operands = tuple(None if i == ABSENT else tensors[i] for i in ids)
        return StepRecord(ENTRIES[entry], self.opcodes[opcode], self._name(name), operands[:n_in], operands[n_in:], attrs), at
