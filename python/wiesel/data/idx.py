"""The idx format of MNIST and its relatives: a big-endian header (zero, zero, element type, rank, extents), then the elements."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ELEMENTS = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The array in an idx file, gzipped or not, in the machine's byte order.

    Raises FileNotFoundError, or ValueError with file and offset: wrong magic number, unknown element type, more or fewer bytes
    than the header announces, damaged gzip stream.

    Format: http://yann.lecun.com/exdb/mnist/ ("The idx file format").
    """
    path = Path(path)
    blob = path.read_bytes()
    if blob[:2] == b"\x1f\x8b":
        blob = _gunzip(blob, path)
    if len(blob) < 4:
        raise ValueError(f"{path}: not an idx file, it ends at offset {len(blob)} before the 4 bytes of the magic number")
    if blob[0] or blob[1] or blob[2] not in _ELEMENTS or not 1 <= blob[3] <= 32:
        magic = int.from_bytes(blob[:4], "big")
        raise ValueError(f"{path}: not an idx file, the magic number at offset 0 is {magic} (2051 are images, 2049 labels)")
    rank, element = blob[3], np.dtype(_ELEMENTS[blob[2]])
    start = 4 + 4 * rank
    if len(blob) < start:
        raise ValueError(f"{path}: truncated, the header needs {start} bytes and the file ends at offset {len(blob)}")
    shape = struct.unpack(f">{rank}I", blob[4:start])
    expected = start + element.itemsize
    for extent in shape:
        expected = start + (expected - start) * extent
    if len(blob) < expected:
        raise ValueError(f"{path}: truncated, shape {shape} of {element.name} needs {expected} bytes, the file ends at offset {len(blob)}")
    if len(blob) > expected:
        raise ValueError(f"{path}: {len(blob) - expected} bytes too many after offset {expected}, where shape {shape} ends")
    return np.frombuffer(blob, element, offset=start).reshape(shape).astype(element.newbyteorder("="), copy=False)


def read_idx_images(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Pictures as (n, rows, columns, 1) uint8, 0 black to 255 white (as the file has them)."""
    array = read_idx(path)
    if array.ndim != 3 or array.dtype != np.uint8:
        raise ValueError(
            f"{os.fspath(path)}: pictures are a uint8 idx of three axes (magic 2051), this has {array.ndim} axes of {array.dtype}"
        )
    return array[..., np.newaxis]


def read_idx_labels(path: str | os.PathLike[str]) -> NDArray[np.int32]:
    """Class numbers as (n,) int32."""
    array = read_idx(path)
    if array.ndim != 1 or array.dtype != np.uint8:
        raise ValueError(f"{os.fspath(path)}: labels are a uint8 idx of one axis (magic 2049), this has {array.ndim} axes of {array.dtype}")
    return array.astype(np.int32)


def _gunzip(blob: bytes, path: Path) -> bytes:
    try:
        return gzip.decompress(blob)
    except EOFError:
        raise ValueError(f"{path}: truncated, the gzip stream is not finished at offset {len(blob)}") from None
    except (OSError, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip stream ({error})") from None
