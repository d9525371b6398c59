"""Batches of anything: one or several inputs, targets in any structure, sample weights. Orders are those of ``wiesel.data.Loader``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wiesel import random

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wiesel.data import Augmentation, Dataset


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs (one array each), targets (array, tuple or dict) and weights (n,) of some samples."""

    inputs: tuple[NDArray[Any], ...]
    targets: Any
    weights: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.inputs[0])

    def map(self, function: Callable[[NDArray[Any]], NDArray[Any]]) -> Samples:
        """``function`` of every array."""
        return Samples(
            tuple(function(a) for a in self.inputs),
            map_tree(function, self.targets),
            None if self.weights is None else function(self.weights),
        )

    def pieces(self, count: int) -> list[Samples]:
        """At most ``count`` pieces of equal size (the last may be smaller), as views."""
        size = math.ceil(len(self) / count)
        return [self.map(lambda a, s=start: a[s : s + size]) for start in range(0, len(self), size)]  # type: ignore[misc]


class Batches(Protocol):
    """Cuts samples into batches, epoch by epoch; the order of an epoch depends on the seed and its number alone."""

    @property
    def samples(self) -> int: ...
    def __len__(self) -> int: ...
    def epoch(self, epoch: int, start: int) -> Iterator[Samples]: ...


class ArrayBatches:
    """Batches of arrays in memory."""

    def __init__(self, samples: Samples, batch_size: int, *, shuffle: bool, seed: int) -> None:
        self._all = samples
        self.batch_size = min(batch_size, len(samples))
        self.shuffle, self.seed = shuffle, seed

    @property
    def samples(self) -> int:
        return len(self._all)

    def __len__(self) -> int:
        return math.ceil(len(self._all) / self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Samples]:
        order = random.permutation(len(self._all), seed=self.seed, purpose=random.SHUFFLE, step=epoch) if self.shuffle else None
        for number in range(start, len(self)):
            part = slice(number * self.batch_size, (number + 1) * self.batch_size)
            rows = part if order is None else order[part]
            yield self._all.map(lambda a, r=rows: a[r])  # type: ignore[misc]


class DatasetBatches:
    """Batches of a ``wiesel.data.Dataset``, prepared by threads while the step runs."""

    def __init__(
        self,
        data: Dataset,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        augment: Augmentation | None,
        workers: int,
        targets: Callable[[NDArray[Any]], NDArray[Any]],
    ) -> None:
        from wiesel.data import Loader

        self._loader = Loader(data, batch_size, shuffle=shuffle, seed=seed, augment=augment, workers=workers)
        self._targets = targets

    @property
    def samples(self) -> int:
        return len(self._loader.data)

    def __len__(self) -> int:
        return len(self._loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Samples]:
        for batch in self._loader.epoch(epoch, start=start):
            yield Samples((batch.x,), self._targets(batch.y))


def map_tree(function: Callable[[Any], Any], tree: Any) -> Any:
    """``function`` of every array of a tuple or dict of them, nested at will."""
    if isinstance(tree, Mapping):
        return {key: map_tree(function, part) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map_tree(function, part) for part in tree)
    return function(tree)


def leaves(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(name, array) of a tuple or dict of arrays: "target", "target.key", "target.0"."""
    if isinstance(tree, Mapping):
        for key, part in tree.items():
            yield from leaves(part, f"{name}.{key}")
    elif isinstance(tree, tuple):
        for i, part in enumerate(tree):
            yield from leaves(part, f"{name}.{i}")
    else:
        yield name, tree
