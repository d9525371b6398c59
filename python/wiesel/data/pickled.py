"""Reads the pickles that CIFAR-10 is published in, without running anything that a file says.

``pickle.load`` calls whatever the file names. This reader knows the few opcodes that a dict of lists, strings, numbers and plain
NumPy arrays is written with (protocols 2 to 4), and builds exactly these. A global is a word to be recognised, never something
to import: three of NumPy's mean "an array follows", every other one is an error. All lengths are checked against the bytes at hand
before memory is taken. Errors name the file and the offset.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ARRAY = {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}
_KNOWN = {*_ARRAY, ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
_DTYPES = {"u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "b1"}


class _Mark:
    """Where a list of arguments begins on the stack."""


@dataclass(frozen=True)
class _Global:
    module: str
    name: str


@dataclass
class _DType:
    code: str
    order: str = "|"


@dataclass
class _Array:
    """An array that is announced; its data arrives with BUILD, which puts it in the place of this, on the stack and in the memo."""

    memo_keys: list[int] = field(default_factory=list)


_INERT = (_Mark, _Global, _DType, _Array)


def loads(blob: bytes, *, source: str = "pickle") -> Any:
    """The object in ``blob``: dicts, lists, tuples, ``str``/``bytes``, numbers, None and NumPy arrays; nothing else.

    Python 2's byte strings come back as ``str`` when they are ASCII, else as ``bytes``. ``source`` names the file in errors.

    Raises ValueError with the offset when the bytes end early, an opcode is unknown or the file asks for any other object.

    >>> import pickle
    >>> loads(pickle.dumps({"labels": [3, 1]}, protocol=2))
    {'labels': [3, 1]}
    """
    return _Reader(blob, source).run()


class _Reader:
    def __init__(self, blob: bytes, source: str) -> None:
        self.blob = blob
        self.source = source
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def fail(self, why: str) -> ValueError:
        return ValueError(f"{self.source}: {why} at offset {self.at}")

    def take(self, count: int) -> bytes:
        if count < 0 or count > len(self.blob) - self.at:
            raise self.fail(f"the file ends early: {count} bytes wanted, {len(self.blob) - self.at} left")
        part = self.blob[self.at : self.at + count]
        self.at += count
        return part

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        end = self.blob.find(b"\n", self.at, self.at + 1000)
        if end < 0:
            raise self.fail("a line without an end")
        text = self.blob[self.at : end]
        self.at = end + 1
        return text.decode("latin-1")

    def pop(self) -> Any:
        if not self.stack:
            raise self.fail("an opcode wants more values than there are")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        for i in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[i], _Mark):
                items = self.stack[i + 1 :]
                del self.stack[i:]
                return items
        raise self.fail("an opcode wants a mark that is not there")

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise self.fail(f"an opcode wants a {kind.__name__.lstrip('_')} that is not there")
        return self.stack[-1]

    def text(self, raw: bytes) -> str | bytes:
        return raw.decode("ascii") if raw.isascii() else raw

    def values(self, items: list[Any]) -> list[Any]:
        """``items``, which go into a list, a dict or out: none may be a word of the format itself."""
        if any(isinstance(item, _INERT) for item in items):
            raise self.fail("a type where a value belongs")
        return items

    def protocol(self) -> None:
        version = self.number("<B")
        if not 2 <= version <= 4:
            raise self.fail(f"pickle protocol {version}, the reader knows 2 to 4")

    def append(self, items: list[Any]) -> None:
        self.top(list).extend(self.values(items))

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        if len(items) % 2 or not all(isinstance(k, (str, bytes, int)) for k in items[::2]):
            raise self.fail("a dict with keys that are not plain")
        target.update(zip(items[::2], self.values(items[1::2]), strict=True))

    def find(self, module: str, name: str) -> _Global:
        if (module, name) not in _KNOWN:
            raise self.fail(f"the file asks for {module}.{name}; only plain values and NumPy arrays are read")
        return _Global(module, name)

    def reduce(self) -> Any:
        args, what = self.pop(), self.pop()
        if not isinstance(what, _Global) or not isinstance(args, tuple):
            raise self.fail("a call of something that is not an array")
        if (what.module, what.name) in _ARRAY:
            return _Array()
        if what.name == "encode" and len(args) == 2 and isinstance(args[0], str) and args[1] == "latin1":
            return args[0].encode("latin-1")  # how Python 3 writes bytes into protocol 2
        if what.name == "dtype" and args and isinstance(args[0], str) and args[0] in _DTYPES:
            return _DType(args[0])
        raise self.fail(f"{what.module}.{what.name} with arguments that are not a plain array's")

    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1] if self.stack else None
        if isinstance(target, _DType) and isinstance(state, tuple) and len(state) > 1 and state[1] in ("|", "<", ">", "="):
            target.order = state[1]
        elif isinstance(target, _Array) and isinstance(state, tuple) and len(state) == 5:
            self.stack[-1] = self.array(*state[1:])
            for key in target.memo_keys:
                self.memo[key] = self.stack[-1]
        else:
            raise self.fail("a state that is not a plain array's")

    def array(self, shape: Any, dtype: Any, fortran: Any, raw: Any) -> NDArray[Any]:
        if isinstance(raw, str):
            raw = raw.encode("latin-1")
        extents_ok = isinstance(shape, tuple) and len(shape) <= 32 and all(isinstance(e, int) and e >= 0 for e in shape)
        if not (extents_ok and isinstance(dtype, _DType) and isinstance(raw, bytes) and isinstance(fortran, bool)):
            raise self.fail("an array whose header is malformed")
        element = np.dtype(dtype.order.replace("|", "=") + dtype.code)
        expected = element.itemsize
        for extent in shape:
            expected *= extent
        if expected != len(raw):
            raise self.fail(f"an array of shape {shape} and type {dtype.code} needs {expected} bytes, the file has {len(raw)}")
        array: NDArray[Any] = np.frombuffer(raw, element).reshape(shape, order="F" if fortran else "C")
        return array

    def run(self) -> Any:
        while True:
            opcode = self.take(1)
            if opcode == b".":
                result = self.pop()
                if self.stack:
                    raise self.fail("values are left over")
                return self.values([result])[0]
            step = _OPCODES.get(opcode)
            if step is None:
                raise self.fail(f"opcode {opcode!r} is not one that plain values need")
            try:
                step(self)
            except UnicodeDecodeError:
                raise self.fail("text that is not UTF-8") from None

    def get(self, key: int) -> None:
        if key not in self.memo:
            raise self.fail(f"memo {key} was never written")
        self.stack.append(self.memo[key])

    def put(self, key: int) -> None:
        if not self.stack:
            raise self.fail("nothing to remember")
        self.memo[key] = self.stack[-1]
        if isinstance(self.stack[-1], _Array):
            self.stack[-1].memo_keys.append(key)


def _push(value: Callable[[_Reader], Any]) -> Callable[[_Reader], None]:
    def step(r: _Reader) -> None:
        r.stack.append(value(r))

    return step


def _tuple(count: int) -> Callable[[_Reader], None]:
    def step(r: _Reader) -> None:
        items = [r.pop() for _ in range(count)]
        r.stack.append(tuple(reversed(items)))

    return step


def _long(r: _Reader) -> int:
    return int.from_bytes(r.take(r.number("<B")), "little", signed=True)


def _stack_global(r: _Reader) -> None:
    name, module = r.pop(), r.pop()
    r.stack.append(r.find(str(module), str(name)))


def _set_item(r: _Reader) -> None:
    value, key = r.pop(), r.pop()
    r.set_items([key, value])


_OPCODES: dict[bytes, Callable[[_Reader], object]] = {
    b"\x80": _Reader.protocol,
    b"\x95": lambda r: r.number("<Q"),  # FRAME: a hint
    b"(": _push(lambda r: _Mark()),
    b"N": _push(lambda r: None),
    b"\x88": _push(lambda r: True),
    b"\x89": _push(lambda r: False),
    b"J": _push(lambda r: r.number("<i")),
    b"K": _push(lambda r: r.number("<B")),
    b"M": _push(lambda r: r.number("<H")),
    b"\x8a": _push(_long),
    b"G": _push(lambda r: r.number(">d")),
    b"T": _push(lambda r: r.text(r.take(r.number("<i")))),
    b"U": _push(lambda r: r.text(r.take(r.number("<B")))),
    b"X": _push(lambda r: r.take(r.number("<I")).decode("utf-8")),
    b"\x8c": _push(lambda r: r.take(r.number("<B")).decode("utf-8")),
    b"B": _push(lambda r: r.take(r.number("<I"))),
    b"C": _push(lambda r: r.take(r.number("<B"))),
    b"}": _push(lambda r: {}),
    b"]": _push(lambda r: []),
    b")": _push(lambda r: ()),
    b"t": lambda r: r.stack.append(tuple(r.pop_to_mark())),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"a": lambda r: r.append([r.pop()]),
    b"e": lambda r: r.append(r.pop_to_mark()),
    b"s": _set_item,
    b"u": lambda r: r.set_items(r.pop_to_mark()),
    b"q": lambda r: r.put(r.number("<B")),
    b"r": lambda r: r.put(r.number("<I")),
    b"\x94": lambda r: r.put(len(r.memo)),
    b"h": lambda r: r.get(r.number("<B")),
    b"j": lambda r: r.get(r.number("<I")),
    b"c": _push(lambda r: r.find(r.line(), r.line())),
    b"\x93": _stack_global,
    b"R": _push(_Reader.reduce),
    b"b": _Reader.build,
}
