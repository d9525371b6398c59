"""CIFAR-10 in its published "python version": six pickled batches and one of names, in an archive or unpacked."""

from __future__ import annotations

import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiesel.data.pickled import loads

FOLDER = "cifar-10-batches-py"
ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-python.tar.xz", "cifar-10-python.tar")
_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
_FILES = (*_TRAIN, "test_batch", "batches.meta")
_PLANES = 3 * 32 * 32
_MEMBER_LIMIT = 64 << 20  # bytes; a batch has 31 MB


def read_cifar10(
    path: str | os.PathLike[str],
) -> tuple[tuple[NDArray[np.uint8], NDArray[np.int32]], tuple[NDArray[np.uint8], NDArray[np.int32]], tuple[str, ...]]:
    """``(x_train, y_train), (x_test, y_test), class_names``: x is (n, 32, 32, 3) uint8 in R, G, B, y is (n,) int32.

    ``path`` is the archive (.tar.gz, .tar.xz) or the unpacked folder. The batches are pickles of Python 2; ``wiesel.data.pickled``
    reads them without running anything that they name. Nothing is written to disk.

    Raises FileNotFoundError for a missing file and ValueError with file and offset for a malformed one.
    """
    path = Path(path)
    blobs = dict(_folder(path) if path.is_dir() else _archive(path))
    missing = [name for name in _FILES if name not in blobs]
    if missing:
        raise FileNotFoundError(f"{path}: no {', '.join(missing)} inside; CIFAR-10 has {', '.join(_FILES)}")
    names = _names(loads(blobs["batches.meta"], source=f"{path}: batches.meta"), path)
    train = [_batch(blobs.pop(name), f"{path}: {name}", len(names)) for name in _TRAIN]
    test = _batch(blobs.pop("test_batch"), f"{path}: test_batch", len(names))
    return (np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train])), test, names


def _folder(path: Path) -> Iterator[tuple[str, bytes]]:
    for name in _FILES:
        if (path / name).is_file():
            yield name, (path / name).read_bytes()


def _archive(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name in _FILES and member.isfile():
                    if member.size > _MEMBER_LIMIT:
                        raise ValueError(f"{path}: {member.name} announces {member.size} bytes, a batch has 31 MB")
                    stream = archive.extractfile(member)
                    assert stream is not None  # isfile() holds
                    yield name, stream.read()
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{path}: damaged or truncated archive ({error})") from None


def _names(meta: Any, path: Path) -> tuple[str, ...]:
    names = meta.get("label_names") if isinstance(meta, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise ValueError(f"{path}: batches.meta has no list of label_names")
    return tuple(names)


def _batch(blob: bytes, source: str, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    content = loads(blob, source=source)
    if not isinstance(content, dict):
        raise ValueError(f"{source}: a batch is a dict, this is a {type(content).__name__}")
    planes, labels = content.get("data"), content.get("labels")
    if not isinstance(planes, np.ndarray) or planes.dtype != np.uint8 or planes.ndim != 2 or planes.shape[1] != _PLANES:
        raise ValueError(f"{source}: 'data' must be uint8 of shape (n, {_PLANES})")
    if not isinstance(labels, list) or len(labels) != len(planes) or not all(isinstance(v, int) and 0 <= v < classes for v in labels):
        raise ValueError(f"{source}: 'labels' must be {len(planes)} class numbers from 0 to {classes - 1}")
    pictures = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pictures), np.array(labels, dtype=np.int32)
