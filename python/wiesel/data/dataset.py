"""Pictures and their labels in memory, parts of them, and the rules that keep a test honest."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wiesel import _core
from wiesel.data._batch import gather_rows

logger = logging.getLogger("wiesel.data")

_PURPOSE_SPLIT = 4  # docs/naming.md


class SealedTestWarning(UserWarning):
    """A sealed test split was looked at more than once: its figures no longer say how the net does on unseen data."""


class Dataset:
    """Samples ``x`` with targets ``y``.

    ``x`` is (n, ...) uint8 or float32, pictures as (n, height, width, channels); other real types become float32. ``y`` is (n,) class
    numbers (int32) or floats: (n,) or (n, classes) float32. A part of a data set (``take``, ``split``) shares the arrays.

    ``sealed`` data are for one last look: ``Trainer.fit`` refuses them, each evaluation is logged, the second and later ones warn.

    Raises ValueError for an empty set, lengths that differ, NaN targets, class numbers outside ``class_names``.

    >>> data = Dataset(np.zeros((4, 8, 8, 1), np.uint8), [0, 1, 1, 0], class_names=["no", "yes"])
    >>> len(data), data.x.shape, data.classes
    (4, (4, 8, 8, 1), 2)
    """

    def __init__(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        class_names: Sequence[str] | None = None,
        name: str = "data",
        sealed: bool = False,
    ) -> None:
        self.name = name
        self.sealed = sealed
        self.class_names = None if class_names is None else tuple(class_names)
        self._x = _samples(x, name)
        self._y = _targets(y, name, self.class_names)
        if len(self._x) != len(self._y):
            raise ValueError(f"{name}: {len(self._x)} samples in x and {len(self._y)} targets in y; they must be as many")
        self._index: NDArray[np.int64] | None = None
        self._looks = 0
        self._digests: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self._x) if self._index is None else len(self._index)

    def __repr__(self) -> str:
        kind = f"{self.classes} classes" if self.classes else f"targets {self._y.shape[1:]} {self._y.dtype}"
        return f"<Dataset {self.name}: {len(self)} x {self.sample_shape} {self._x.dtype}, {kind}{', sealed' if self.sealed else ''}>"

    @property
    def x(self) -> NDArray[Any]:
        """All samples, in order (a copy for a part of a larger set)."""
        return self._x if self._index is None else self.gather(np.arange(len(self), dtype=np.int64))[0]

    @property
    def y(self) -> NDArray[Any]:
        """All targets, in order."""
        return self._y if self._index is None else self._y[self._index]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self._x.shape[1:]

    @property
    def x_dtype(self) -> np.dtype[Any]:
        return self._x.dtype

    @property
    def y_dtype(self) -> np.dtype[Any]:
        return self._y.dtype

    @property
    def target_shape(self) -> tuple[int, ...]:
        return self._y.shape[1:]

    @property
    def classes(self) -> int:
        """Number of classes; 0 when the targets are not class numbers."""
        if self.class_names is not None:
            return len(self.class_names)
        return int(self._y.max()) + 1 if self._y.dtype == np.int32 else 0

    def gather(
        self, index: NDArray[np.int64], x_out: NDArray[Any] | None = None, y_out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """``x[index], y[index]``, into the given C-contiguous arrays when there are any. Does not hold the GIL while it copies."""
        rows = np.ascontiguousarray(index if self._index is None else self._index[index], dtype=np.int64)
        return _gather(self._x, rows, x_out), _gather(self._y, rows, y_out)

    def slice(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Samples ``start`` to ``stop`` in order: views where the set is not a part of another, else copies."""
        if self._index is None:
            return self._x[start:stop], self._y[start:stop]
        return self.gather(np.arange(start, min(stop, len(self)), dtype=np.int64))

    def take(self, index: ArrayLike, *, name: str | None = None, sealed: bool | None = None) -> Dataset:
        """The part with these samples, in this order; it shares the arrays."""
        rows = np.asarray(index)
        if rows.dtype == np.bool_:
            rows = np.flatnonzero(rows)
        if rows.ndim != 1 or not len(rows) or not np.issubdtype(rows.dtype, np.integer):
            raise ValueError(f"{self.name}: take wants a non-empty list of sample numbers, got shape {rows.shape} of {rows.dtype}")
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"{self.name}: samples are 0 to {len(self) - 1}, got {int(rows.min())} to {int(rows.max())}")
        part = object.__new__(Dataset)
        part.__dict__.update(self.__dict__)
        part.name = self.name if name is None else name
        part.sealed = self.sealed if sealed is None else sealed
        part._index = rows.astype(np.int64) if self._index is None else self._index[rows]
        part._looks = 0
        part._digests = None
        return part

    def split(
        self, *, validation: float = 0.0, test: float = 0.0, seed: int = 0, stratify: bool = True, allow_missing: bool = False
    ) -> tuple[Dataset, ...]:
        """``train, validation, test`` (those with a share), drawn at random; no sample is in two parts. The test part is sealed.

        The shares are of the samples; what they leave is for training. With ``stratify`` every class is shared out by itself, so that
        each part has the classes in the same proportion (its counts are within one per class of exact). Which samples go where depends
        only on ``seed`` and the targets.

        Raises ValueError when a class of the set is absent from a part, unless ``allow_missing``.

        >>> data = Dataset(np.zeros((10, 1), np.uint8), [0] * 5 + [1] * 5)
        >>> [sorted(part.y.tolist()) for part in data.split(test=0.2)]
        [[0, 0, 0, 0, 1, 1, 1, 1], [0, 1]]
        """
        if min(validation, test) < 0 or not 0 < validation + test < 1:
            raise ValueError(f"split: the shares must leave something for training, got validation={validation}, test={test}")
        shares = {role: share for role, share in (("validation", validation), ("test", test)) if share}
        order = _core.random_permutation(len(self), seed, _PURPOSE_SPLIT, 0, 0)
        y = self.y
        by_class = y.dtype == np.int32 and stratify
        groups = [order[y[order] == label] for label in np.unique(y)] if by_class else [order]
        pieces: dict[str, list[NDArray[np.int64]]] = {role: [] for role in ("train", *shares)}
        edges = np.cumsum([0.0, 1 - validation - test, *shares.values()])
        for group in groups:
            cuts = np.floor(edges * len(group) + 0.5).astype(np.int64)
            for piece, start, stop in zip(pieces.values(), cuts[:-1], cuts[1:], strict=True):
                piece.append(group[start:stop])
        parts = []
        for role, piece in pieces.items():
            rows = np.sort(np.concatenate(piece))
            missing = np.setdiff1d(y, y[rows]) if by_class else ()
            if not len(rows) or (len(missing) and not allow_missing):
                what = "class " + ", ".join(self.class_name(int(c)) for c in missing[:5]) if len(missing) else "any class"
                raise ValueError(
                    f"split: the {role} part ({len(rows)} samples of {self.name}) has no sample of {what}; "
                    "give it a larger share, or pass allow_missing=True"
                )
            parts.append(self.take(rows, name=f"{self.name} {role}", sealed=role == "test"))
        return tuple(parts)

    def seal(self) -> Dataset:
        """The same samples, for one last look."""
        sealed = self.take(np.arange(len(self)), sealed=True)
        sealed._index = self._index
        return sealed

    def note_look(self, by: str) -> None:
        """Called by whoever computes figures on this data: logs a look at sealed data, warns from the second on."""
        if not self.sealed:
            return
        self._looks += 1
        logger.info("sealed test data %s (%d samples): look %d by %s", self.name, len(self), self._looks, by)
        if self._looks > 1:
            warnings.warn(
                f"{self.name} is sealed test data and was evaluated {self._looks} times; choose nets and settings on validation data",
                SealedTestWarning,
                stacklevel=3,
            )

    def class_name(self, label: int) -> str:
        return str(label) if self.class_names is None else self.class_names[label]

    def counts(self) -> NDArray[np.int64]:
        """Samples per class."""
        if not self.classes:
            raise ValueError(f"{self.name}: the targets are not class numbers")
        return np.bincount(self.y, minlength=self.classes)

    def digests(self) -> NDArray[np.int64]:
        """A 64-bit fingerprint of every sample's bytes."""
        if self._digests is None:
            values = (hash(self._x[i].tobytes()) for i in (range(len(self)) if self._index is None else self._index))
            self._digests = np.fromiter(values, np.int64, count=len(self))
        return self._digests


def check_disjoint(**parts: Dataset | None) -> None:
    """Raises ValueError when two of the named parts hold the same data; a few equal pictures are logged.

    The same data: a sample of the same array in both, or more than one sample in a hundred of the smaller part with equal bytes.

    >>> check_disjoint(train=train, test=train)   # doctest: +SKIP
    ValueError: train and test share 1000 samples ...
    """
    given = [(role, part) for role, part in parts.items() if part is not None]
    for i, (role, part) in enumerate(given):
        for other_role, other in given[i + 1 :]:
            if part._x is other._x:
                mine = np.arange(len(part)) if part._index is None else part._index
                theirs = np.arange(len(other)) if other._index is None else other._index
                shared = len(np.intersect1d(mine, theirs))
                if shared:
                    raise ValueError(
                        f"{role} and {other_role} share {shared} samples of {part.name}; split them first: data.split(test=0.2)"
                    )
            if part.sample_shape != other.sample_shape or part.x_dtype != other.x_dtype:
                continue
            equal = int(np.isin(part.digests(), other.digests()).sum())
            if equal > 0.01 * min(len(part), len(other)):
                raise ValueError(
                    f"{role} and {other_role} hold the same data: {equal} samples of {part.name} are equal to samples of {other.name}"
                )
            if equal:
                logger.info("%d samples of %s are byte for byte in %s too", equal, role, other_role)


def _samples(x: ArrayLike, name: str) -> NDArray[Any]:
    array = np.asarray(x)
    if array.ndim < 2 or not array.size:
        raise ValueError(f"{name}: x must be (samples, ...) and not empty, got shape {array.shape}")
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name}: x must hold numbers, got {array.dtype}")
    return np.ascontiguousarray(array, dtype=np.uint8 if array.dtype in (np.uint8, np.bool_) else np.float32)


def _targets(y: ArrayLike, name: str, class_names: tuple[str, ...] | None) -> NDArray[Any]:
    array = np.asarray(y)
    if array.dtype.kind in "bui":
        if array.ndim != 1:
            raise ValueError(f"{name}: class numbers must be (samples,), got shape {array.shape}")
        top = len(class_names) if class_names is not None else np.iinfo(np.int32).max
        if array.size and (array.min() < 0 or array.max() >= top):
            known = f"0 to {top - 1}" if class_names is not None else "0 or more"
            raise ValueError(f"{name}: class numbers must be {known}, got {int(array.min())} to {int(array.max())}")
        return np.ascontiguousarray(array, dtype=np.int32)
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: y must hold class numbers or floats, got {array.dtype}")
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0])
        raise ValueError(f"{name}: y[{bad}] is NaN or infinite")
    return np.ascontiguousarray(array, dtype=np.float32)


def _gather(source: NDArray[Any], rows: NDArray[np.int64], out: NDArray[Any] | None) -> NDArray[Any]:
    if out is None:
        out = np.empty((len(rows), *source.shape[1:]), source.dtype)
    elif out.dtype != source.dtype or out.shape != (len(rows), *source.shape[1:]) or not out.flags.c_contiguous:
        raise ValueError(f"gather: out must be C-contiguous {source.dtype} of shape {(len(rows), *source.shape[1:])}")
    gather_rows(_as_bytes(source), rows, _as_bytes(out))
    return out


def _as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    return array.reshape(len(array), -1).view(np.uint8)
