"""Batches, prepared by threads of this process while the training step runs."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiesel import _core
from wiesel.data.augment import Augmentation
from wiesel.data.dataset import Dataset

_PURPOSE_SHUFFLE = 1  # docs/naming.md
_PURPOSE_AUGMENT = 3


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples ``first`` to ``first + len(x)`` of an epoch's order. The arrays are reused: they hold until the next batch is asked for."""

    x: NDArray[Any]
    y: NDArray[Any]
    first: int

    def __len__(self) -> int:
        return len(self.x)

    def micro(self, size: int) -> Iterator[Batch]:
        """The batch in pieces of ``size`` samples (the last may be smaller), for steps that accumulate gradients."""
        for start in range(0, len(self.x), size):
            yield Batch(self.x[start : start + size], self.y[start : start + size], self.first + start)


class Loader:
    """Cuts a data set into batches, epoch by epoch.

    The order of epoch e is a permutation that depends only on ``seed`` and e; so do the random numbers of ``augment``. Neither
    depends on ``workers``, the threads that prepare up to ``prefetch`` batches ahead. Memory: ``prefetch + 1`` batches (twice that
    for x with ``augment``), allocated once an epoch. The last batch has the samples that are left unless ``drop_last``.

    >>> loader = Loader(data, 64, seed=0)             # doctest: +SKIP
    >>> for batch in loader.epoch(0):                 # doctest: +SKIP
    ...     trainer.step(batch.x, batch.y)
    """

    def __init__(
        self,
        data: Dataset,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        augment: Augmentation | None = None,
        drop_last: bool = False,
        workers: int = 1,
        prefetch: int = 2,
    ) -> None:
        if batch_size < 1 or workers < 1 or prefetch < 1:
            raise ValueError(f"Loader: batch_size, workers and prefetch must be at least 1, got {batch_size}, {workers}, {prefetch}")
        self.data = data
        self.batch_size = min(batch_size, len(data))
        self.shuffle = shuffle
        self.seed = seed
        self.augment = augment
        self.drop_last = drop_last
        self.workers = workers
        self.prefetch = prefetch

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.data) // self.batch_size if self.drop_last else math.ceil(len(self.data) / self.batch_size)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The samples of the epoch in the order in which they are shown."""
        if not self.shuffle:
            return np.arange(len(self.data), dtype=np.int64)
        return _core.random_permutation(len(self.data), self.seed, _PURPOSE_SHUFFLE, 0, epoch)

    def epoch(self, epoch: int = 0, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch number ``start`` on."""
        if not self.shuffle and self.augment is None:
            return self._in_place(start)
        return self._prepared(epoch, start)

    def _in_place(self, start: int) -> Iterator[Batch]:
        for number in range(start, len(self)):
            first = number * self.batch_size
            x, y = self.data.slice(first, first + self.batch_size)
            yield Batch(x, y, first)

    def _prepared(self, epoch: int, start: int) -> Iterator[Batch]:
        order = self.order(epoch)
        uniform = None
        if self.augment is not None:
            uniform = _core.random_fill("uniform", self.seed, _PURPOSE_AUGMENT, 0, epoch, (len(self.data), self.augment.draws))
        free = collections.deque(_Buffers(self.data, self.batch_size, self.augment is not None) for _ in range(self.prefetch + 1))
        ahead: collections.deque[tuple[Future[Batch], _Buffers]] = collections.deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="wiesel-loader")
        try:
            for number in range(start, len(self) + self.prefetch):
                if number < len(self):
                    first = number * self.batch_size
                    rows = order[first : first + self.batch_size]
                    buffers = free.popleft()
                    draws = None if uniform is None else uniform[first : first + len(rows)]
                    ahead.append((pool.submit(self._fill, buffers, rows, draws, first), buffers))
                if number >= start + self.prefetch:
                    future, buffers = ahead.popleft()
                    yield future.result()
                    free.append(buffers)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _fill(self, buffers: _Buffers, rows: NDArray[np.int64], uniform: NDArray[np.float32] | None, first: int) -> Batch:
        x, y = buffers.x[: len(rows)], buffers.y[: len(rows)]
        if self.augment is None or uniform is None or buffers.raw is None:
            self.data.gather(rows, x, y)
        else:
            raw = buffers.raw[: len(rows)]
            self.data.gather(rows, raw, y)
            self.augment(raw, uniform, x)
        return Batch(x, y, first)


class _Buffers:
    """Memory of one batch."""

    def __init__(self, data: Dataset, size: int, augmented: bool) -> None:
        self.x = np.empty((size, *data.sample_shape), data.x_dtype)
        self.y = np.empty((size, *data.target_shape), data.y_dtype)
        self.raw = np.empty_like(self.x) if augmented else None
