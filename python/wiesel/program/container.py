"""The one file format: a container with sections, of which arrays, JSON and a program are payloads. See docs/program-format.md.

Readers check every offset, size and count before they use it; whatever is wrong raises ValueError with the file's name and the
offset in it. ``save`` replaces a file in one step: the old contents survive a full disk or a lost power supply.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiesel.graph.ir import MAX_RANK, NUMPY_DTYPES
from wiesel.program.layout import ALIGNMENT, align

MAGIC = b"\x89WSL\r\n\x1a\n"
VERSION = 0
TAGS = ("GRPH", "WGHT", "PROG", "TRNR", "META")

MAX_SECTIONS = 16
MAX_JSON_BYTES = 16 << 20
MAX_JSON_DEPTH = 64
MAX_ARRAYS = 65_536
MAX_NAME_BYTES = 512
MAX_EXTENT = 1 << 40

_HEADER = struct.Struct("<8sIIQII")
_ENTRY = struct.Struct("<4sIQQQ")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_DTYPE_NUMBERS = {"f32": 0, "f64": 1, "u8": 4, "i8": 5, "i32": 6}
_DTYPE_NAMES = {number: name for name, number in _DTYPE_NUMBERS.items()}


def write_container(sections: Mapping[str, bytes]) -> bytes:
    """The bytes of a file with these sections, in the order given."""
    offset = align(_HEADER.size + _ENTRY.size * len(sections))
    table, chunks, position = [], [], _HEADER.size + _ENTRY.size * len(sections)
    for tag, payload in sections.items():
        if tag not in TAGS:
            raise ValueError(f"unknown section {tag!r}; known: {', '.join(TAGS)}")
        chunks += [b"\0" * (offset - position), payload]
        table.append(_ENTRY.pack(tag.encode(), zlib.crc32(payload), offset, len(payload), 0))
        position = offset + len(payload)
        offset = align(position)
    entries = b"".join(table)
    header = _HEADER.pack(MAGIC, VERSION, len(sections), position, zlib.crc32(entries), 0)
    return b"".join((header, entries, *chunks))


def read_container(data: bytes | memoryview, file: str = "container") -> dict[str, memoryview]:
    """The sections of a file by tag, checked for order, bounds and checksums."""
    view = memoryview(data)

    def fail(offset: int, what: str) -> ValueError:
        return ValueError(f"{file}: offset {offset}: {what}")

    if len(view) < _HEADER.size:
        raise fail(len(view), f"the file ends inside its header ({len(view)} of {_HEADER.size} bytes)")
    magic, version, count, size, table_crc, zero = _HEADER.unpack_from(view)
    if magic != MAGIC:
        raise fail(0, "not a wiesel file (wrong magic)")
    if version != VERSION:
        raise fail(8, f"version {version} is not known to this library (it reads {VERSION})")
    if not 1 <= count <= MAX_SECTIONS:
        raise fail(12, f"{count} sections; 1 to {MAX_SECTIONS} are allowed")
    if size != len(view):
        raise fail(16, f"the header says {size} bytes, the file has {len(view)}" + ("; it was cut off" if size > len(view) else ""))
    if zero:
        raise fail(28, "reserved bytes are not 0")
    end = _HEADER.size + _ENTRY.size * count
    if end > len(view):
        raise fail(len(view), "the file ends inside its section table")
    if zlib.crc32(view[_HEADER.size : end]) != table_crc:
        raise fail(_HEADER.size, "the section table does not match its checksum")
    sections: dict[str, memoryview] = {}
    for i in range(count):
        at = _HEADER.size + _ENTRY.size * i
        tag, crc, offset, length, reserved = _ENTRY.unpack_from(view, at)
        name = tag.decode("ascii", "replace")
        if name not in TAGS:
            raise fail(at, f"unknown section {name!r}")
        if name in sections:
            raise fail(at, f"a second section {name}")
        if offset % ALIGNMENT or offset < end or offset + length > len(view):
            raise fail(at + 8, f"section {name} lies at {offset} with {length} bytes: outside the file, unaligned or overlapping")
        if reserved:
            raise fail(at + 24, "reserved bytes are not 0")
        if any(view[end:offset]):
            raise fail(end, "the gap between sections is not 0")
        payload = view[offset : offset + length]
        if zlib.crc32(payload) != crc:
            raise fail(offset, f"section {name} does not match its checksum; the file is damaged")
        sections[name] = payload
        end = offset + length
    if any(view[end:]):
        raise fail(end, "bytes after the last section")
    return sections


def pack_json(value: Any) -> bytes:
    """A GRPH or META payload."""
    payload = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    if len(payload) > MAX_JSON_BYTES:
        raise ValueError(f"{len(payload)} bytes of JSON; a section holds at most {MAX_JSON_BYTES}")
    if _depth(payload) > MAX_JSON_DEPTH:
        raise ValueError(f"JSON nested deeper than {MAX_JSON_DEPTH} levels")
    return payload


def unpack_json(payload: bytes | memoryview, file: str = "container", section: str = "META") -> Any:
    raw = bytes(payload)
    if len(raw) > MAX_JSON_BYTES:
        raise ValueError(f"{file}: section {section} has {len(raw)} bytes of JSON; at most {MAX_JSON_BYTES} are allowed")
    if _depth(raw) > MAX_JSON_DEPTH:
        raise ValueError(f"{file}: section {section}: JSON nested deeper than {MAX_JSON_DEPTH} levels")
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except ValueError as error:
        raise ValueError(f"{file}: section {section} is not valid JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _depth(raw: bytes) -> int:
    """Deepest nesting of brackets outside strings."""
    deepest = depth = 0
    text = raw
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    for i, part in enumerate(text.split(b'"')):
        if i % 2:
            continue
        for byte in part.translate(None, _NOT_BRACKETS):
            depth += 1 if byte in b"[{" else -1
            deepest = max(deepest, depth)
    return deepest


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """A WGHT or TRNR payload."""
    if len(arrays) > MAX_ARRAYS:
        raise ValueError(f"{len(arrays)} arrays; a section holds at most {MAX_ARRAYS}")
    heads: list[bytes] = []
    contents: list[NDArray[Any]] = []
    size = 8
    numbers = {NUMPY_DTYPES[name]: number for name, number in _DTYPE_NUMBERS.items()}
    for name, array in arrays.items():
        encoded = name.encode()
        if not 1 <= len(encoded) <= MAX_NAME_BYTES:
            raise ValueError(f"the name {name[:40]!r}… has {len(encoded)} bytes; 1 to {MAX_NAME_BYTES} are allowed")
        data = np.asarray(array, order="C")
        if data.dtype not in numbers:
            raise TypeError(f"{name}: arrays of {data.dtype} cannot be saved; use {', '.join(sorted(str(d) for d in numbers))}")
        if data.ndim > MAX_RANK or 0 in data.shape:
            raise ValueError(f"{name}: shape {data.shape} cannot be saved: at most {MAX_RANK} axes, none of them empty")
        extents = struct.pack(f"<BB{data.ndim}Q", numbers[data.dtype], data.ndim, *data.shape)
        head = struct.pack("<H", len(encoded)) + encoded + extents
        heads.append(head)
        contents.append(data)
        size += len(head) + 16
    chunks: list[bytes] = []
    position = offset = align(size)
    out = [struct.pack("<II", len(arrays), 0)]
    for head, data in zip(heads, contents, strict=True):
        out.append(head + struct.pack("<QQ", offset, data.nbytes))
        chunks += [b"\0" * (offset - position), data.tobytes()]
        position = offset + data.nbytes
        offset = align(position)
    out.append(b"\0" * (align(size) - size))
    return b"".join((*out, *chunks))


def unpack_arrays(payload: bytes | memoryview, file: str = "container", section: str = "WGHT") -> dict[str, NDArray[Any]]:
    """The arrays of a payload by name: read-only views of it."""
    view = memoryview(payload)

    def fail(offset: int, what: str) -> ValueError:
        return ValueError(f"{file}: section {section}, offset {offset}: {what}")

    def need(offset: int, count: int) -> int:
        if offset + count > len(view):
            raise fail(offset, "the section ends inside its table of arrays")
        return offset + count

    need(0, 8)
    count, zero = struct.unpack_from("<II", view, 0)
    if zero or count > MAX_ARRAYS:
        raise fail(0, f"{count} arrays; at most {MAX_ARRAYS} are allowed")
    at = 8
    found: dict[str, tuple[str, tuple[int, ...], int, int, int]] = {}
    for _ in range(count):
        start = at
        at = need(at, 2)
        (length,) = struct.unpack_from("<H", view, start)
        if not 1 <= length <= MAX_NAME_BYTES:
            raise fail(start, f"a name of {length} bytes; 1 to {MAX_NAME_BYTES} are allowed")
        name_at, at = at, need(at, length)
        try:
            name = bytes(view[name_at:at]).decode("utf-8")
        except UnicodeDecodeError:
            raise fail(name_at, "a name is not UTF-8") from None
        if name in found:
            raise fail(start, f"a second array {name!r}")
        head_at, at = at, need(at, 2)
        number, rank = view[head_at], view[head_at + 1]
        if number not in _DTYPE_NAMES:
            raise fail(head_at, f"array {name!r} has the unknown element type {number}")
        if rank > MAX_RANK:
            raise fail(head_at + 1, f"array {name!r} has {rank} axes; at most {MAX_RANK} are allowed")
        shape_at, at = at, need(at, 8 * rank + 16)
        *shape, offset, nbytes = struct.unpack_from(f"<{rank + 2}Q", view, shape_at)
        expected = NUMPY_DTYPES[_DTYPE_NAMES[number]].itemsize
        for extent in shape:
            if not 1 <= extent <= MAX_EXTENT:
                raise fail(shape_at, f"array {name!r} has extent {extent}; 1 to {MAX_EXTENT} are allowed")
            expected *= extent
        if nbytes != expected:
            raise fail(shape_at + 8 * rank + 8, f"array {name!r} of shape {tuple(shape)} has {nbytes} bytes, expected {expected}")
        found[name] = (_DTYPE_NAMES[number], tuple(shape), offset, nbytes, shape_at + 8 * rank)
    end = at
    arrays: dict[str, NDArray[Any]] = {}
    for name, (dtype, shape_of, offset, nbytes, where) in found.items():
        if offset % ALIGNMENT or offset < end or offset + nbytes > len(view):
            raise fail(where, f"array {name!r} lies at {offset} with {nbytes} bytes: outside the section, unaligned or overlapping")
        array = np.frombuffer(view[offset : offset + nbytes], dtype=NUMPY_DTYPES[dtype]).reshape(shape_of)
        array.flags.writeable = False
        arrays[name] = array
        end = offset + nbytes
    return arrays


def save(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes ``data`` to ``path`` so that at every moment the file is whole: the old one or the new one."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):  # the folder's entry is durable only after its own fsync
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def load(path: str | os.PathLike[str]) -> dict[str, memoryview]:
    """The sections of the file at ``path``."""
    with open(path, "rb") as file:
        return read_container(file.read(), str(path))
