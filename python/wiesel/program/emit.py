"""Writes a program: the mirror of docs/program-format.md. Ops lower themselves onto an ``Emitter``."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from wiesel import _core
from wiesel.graph.ir import BATCH, ENTRIES, NUMPY_DTYPES, Value, dense_strides
from wiesel.program.layout import align

VERSION = 0
ABSENT = 0xFFFFFFFF
SLOT_BITS = 16

HEADER = struct.Struct("<IIq7QIIIIQQ24x")
TENSOR = struct.Struct("<BBBBIq6q6qfi")
STEP = struct.Struct("<HBBBBHII")
ATTR = struct.Struct("<HB5x8s")
_INT_ATTR = struct.Struct("<HB5xq")
_REAL_ATTR = struct.Struct("<HB5xd")

SIZED_BUFFERS = ("arena", "params", "grads", "state", "opt", "prepared", "consts")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lies: a buffer and an offset in bytes; of inputs and outputs the slot as well."""

    buffer: str
    offset: int = 0
    slot: int = 0

    @property
    def encoded(self) -> int:
        return self.slot | self.offset << SLOT_BITS if self.buffer in ("input", "output") else self.offset


@dataclass(frozen=True, slots=True)
class Work:
    """What a step does: floating-point operations (a multiply-add is two; by the direct formula) and bytes of its operands, each once.

    ``flops + n * sample_flops`` and ``bytes + n * sample_bytes`` for a batch of n.
    """

    flops: int = 0
    sample_flops: int = 0
    bytes: int = 0
    sample_bytes: int = 0

    def at(self, n: int) -> tuple[int, int]:
        """(flops, bytes) for a batch of ``n``."""
        return self.flops + n * self.sample_flops, self.bytes + n * self.sample_bytes


@dataclass(slots=True)
class Emitter:
    """Collects tensors and steps and encodes them.

    ``places`` tells where every value lies; ``sizes`` the bytes of the buffers, of which ``opt`` grows with what ``flat`` names.
    Ids are the numbers that steps name their operands by. Equal descriptors share one id.
    """

    n: int
    places: Mapping[Value, Place]
    sizes: dict[str, int] = field(default_factory=dict)
    _tensors: list[bytes] = field(default_factory=list)
    _ids: dict[bytes, int] = field(default_factory=dict)
    _by_value: dict[Value, int] = field(default_factory=dict)
    _moved: list[tuple[int, int]] = field(default_factory=list)  # per tensor: bytes, bytes per sample
    _steps: dict[str, list[bytes]] = field(default_factory=lambda: {entry: [] for entry in ENTRIES})
    _works: dict[str, list[Work]] = field(default_factory=lambda: {entry: [] for entry in ENTRIES})
    _names: dict[str, int] = field(default_factory=lambda: {"": 0})
    _names_size: int = 1
    _has_batch: bool = False
    _entry: str = "forward"
    _path: str = ""

    def tensor(self, value: Value) -> int:
        """The id of ``value`` at its place."""
        found = self._by_value.get(value)
        if found is None:
            found = self._by_value[value] = self._describe(value, value.type.shape, self.strides(value), 0)
        return found

    def strides(self, value: Value) -> tuple[int, ...]:
        """Strides of ``value`` in elements: dense, or those of the larger tensor that it is a part of."""
        while value.part_of is not None:
            value, _ = value.part_of
        return dense_strides(value.shape)

    def optional(self, value: Value | None) -> int | None:
        return None if value is None else self.tensor(value)

    def view(self, value: Value, shape: Sequence[int], strides: Sequence[int] | None = None, offset: int = 0) -> int:
        """The storage of ``value`` under other extents.

        ``shape`` may start with BATCH; ``strides`` and ``offset`` are in elements, dense and 0 by default. A stride of 0 repeats;
        the strides of a batch tensor must not depend on the batch extent, which only a leading batch axis ensures.
        """
        return self._describe(value, tuple(shape), None if strides is None else tuple(strides), offset)

    def flat(self, buffer: str, offset: int, count: int, name: str = "") -> int:
        """``count`` floats at byte ``offset`` of a shared buffer (``params``, ``grads``, ``state``, ``opt``): for update steps."""
        if buffer == "opt":
            self.sizes["opt"] = max(self.sizes.get("opt", 0), align(offset + 4 * count))
        return self._add("f32", (count,), (1,), Place(buffer, offset), False, name)

    def scalar(self, buffer: str, offset: int, name: str = "") -> int:
        """One float (rank 0) at byte ``offset`` of a shared buffer."""
        if buffer == "opt":
            self.sizes["opt"] = max(self.sizes.get("opt", 0), align(offset + 4))
        return self._add("f32", (), (), Place(buffer, offset), False, name)

    def step(
        self, opcode: str, inputs: Sequence[int | None], outputs: Sequence[int | None], unread: Sequence[int] = (), /, **attrs: int | float
    ) -> None:
        """Appends a step to the present entry. Absent operands are None; trailing absent inputs may be left out.

        ``unread`` are inputs of which it looks at the extents only.
        """
        operands = [ABSENT if i is None else i for i in (*inputs, *outputs)]
        encoded = struct.pack(f"<{len(operands)}I", *operands)
        if len(operands) % 2:
            encoded += b"\0\0\0\0"
        packed_attrs = []
        for name, value in attrs.items():
            number, kind = _core.ATTRS[name]
            packed_attrs.append(_REAL_ATTR.pack(number, 1, value) if kind == "real" else _INT_ATTR.pack(number, 0, value))
        head = STEP.pack(
            _core.OPCODES[opcode], len(inputs), len(outputs), len(attrs), ENTRIES.index(self._entry), 0, self._name(self._path), 0
        )
        self._steps[self._entry].append(b"".join((head, encoded, *packed_attrs)))
        moved = [self._moved[t] for t in (*(t for i, t in enumerate(inputs) if i not in unread), *outputs) if t is not None]
        self._works[self._entry].append(Work(bytes=sum(m[0] for m in moved), sample_bytes=sum(m[1] for m in moved)))

    def charge(self, flops: int, sample_flops: int = 0) -> None:
        """Says that the last step of the present entry does so many floating-point operations, and so many more per sample."""
        works = self._works[self._entry]
        works[-1] = replace(works[-1], flops=flops, sample_flops=sample_flops)

    @property
    def works(self) -> tuple[Work, ...]:
        """What each step does, in the order of the program."""
        return tuple(work for entry in ENTRIES for work in self._works[entry])

    @property
    def step_count(self) -> int:
        """Steps written so far."""
        return sum(map(len, self._steps.values()))

    @contextmanager
    def within(self, entry: str, path: str = "") -> Iterator[None]:
        """Steps written inside belong to ``entry`` and carry the module path ``path``."""
        before = self._entry, self._path
        self._entry, self._path = entry, path
        try:
            yield
        finally:
            self._entry, self._path = before

    def finish(self, inputs: Sequence[int], outputs: Sequence[int], consts: bytes = b"") -> bytes:
        """The payload of a PROG section; ``inputs`` and ``outputs`` are the tensors that describe the slots."""
        steps = [step for entry in ENTRIES for step in self._steps[entry]]
        step_table = b"".join(steps)
        names = "".join(name + "\0" for name in self._names).encode()
        sizes = {**self.sizes, "consts": align(len(consts))}
        header = HEADER.pack(
            VERSION, 0, self.n if self._has_batch else 0, *(align(sizes.get(b, 0)) for b in SIZED_BUFFERS),
            len(self._tensors), len(steps), len(inputs), len(outputs), len(names), len(step_table),
        )  # fmt: skip
        slots = struct.pack(f"<{len(inputs) + len(outputs)}I", *inputs, *outputs)
        body = b"".join((header, *self._tensors, slots, step_table, names))
        return b"".join((body, b"\0" * (align(len(body)) - len(body)), consts, b"\0" * (align(len(consts)) - len(consts))))

    def _describe(self, value: Value, shape: tuple[int, ...], strides: tuple[int, ...] | None, offset: int) -> int:
        place = self.places[value]
        batch = bool(shape) and shape[0] == BATCH
        dims = (self.n, *shape[1:]) if batch else shape
        if offset:
            place = Place(place.buffer, place.offset + offset * NUMPY_DTYPES[value.type.dtype].itemsize, place.slot)
        return self._add(value.type.dtype, dims, dense_strides(dims) if strides is None else strides, place, batch, value.name)

    def _add(self, dtype: str, dims: tuple[int, ...], strides: tuple[int, ...], place: Place, batch: bool, name: str) -> int:
        rank = len(dims)
        self._has_batch |= batch
        gap = (0,) * (6 - rank)
        record = TENSOR.pack(
            _core.DTYPES[dtype], rank, _core.BUFFERS[place.buffer], batch, self._name(name), place.encoded,
            *dims, *gap, *strides, *gap, 1.0, 0,
        )  # fmt: skip
        found = self._ids.get(record)
        if found is None:
            found = self._ids[record] = len(self._tensors)
            self._tensors.append(record)
            extents = [extent for extent, stride in zip(dims, strides, strict=True) if stride][1 if batch else 0 :]
            moved = math.prod(extents) * NUMPY_DTYPES[dtype].itemsize
            self._moved.append((0, moved) if batch else (moved, 0))
        return found

    def _name(self, name: str) -> int:
        found = self._names.get(name)
        if found is None:
            found = self._names[name] = self._names_size
            self._names_size += len(name.encode()) + 1
        return found


def encode_consts(values: Sequence[Value]) -> tuple[dict[Value, Place], bytes]:
    """Places and bytes of constants, each on its own cache line; equal ones share."""
    places: dict[Value, Place] = {}
    known: dict[tuple[str, tuple[int, ...], bytes], Place] = {}
    chunks: list[bytes] = []
    offset = 0
    for value in values:
        assert value.data is not None
        data = np.asarray(value.data).tobytes()
        key = (value.type.dtype, value.type.shape, data)
        if key not in known:
            known[key] = Place("consts", offset)
            size = align(len(data))
            chunks.append(data + b"\0" * (size - len(data)))
            offset += size
        places[value] = known[key]
    return places, b"".join(chunks)
