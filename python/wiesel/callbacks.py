"""What ``Trainer.fit`` reports: the history of epochs, and callbacks that hear of each step and epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wiesel.train import Trainer

Record = dict[str, float]
"""Figures of one epoch: loss, accuracy, val_loss, val_accuracy, lr (of the last step), seconds, images_per_second."""


@dataclass
class History:
    """One record per epoch. ``history["loss"]`` or ``history.loss`` is the list over epochs, NaN where it was not measured."""

    records: list[Record] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __getitem__(self, name: str) -> list[float]:
        names = self.names()
        if name not in names:
            raise KeyError(f"the history has no {name!r}; it has: {', '.join(names)}")
        return [record.get(name, math.nan) for record in self.records]

    def __getattr__(self, name: str) -> list[float]:
        if name.startswith("_") or name == "records":
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    @property
    def last(self) -> Record:
        """The figures of the last epoch."""
        if not self.records:
            raise ValueError("no epoch is finished yet")
        return self.records[-1]

    def names(self) -> list[str]:
        """Figures that were measured in any epoch."""
        return list(dict.fromkeys(name for record in self.records for name in record))


class Callback:
    """Base of callbacks; override what is wanted. ``trainer.stop()`` ends training after the present step."""

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Before the first step; ``trainer.plan_of_fit`` tells epochs, batches per epoch and samples."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None: ...

    def on_step_end(self, trainer: Trainer, figures: Mapping[str, float]) -> None:
        """After every step; ``figures`` are loss and accuracy of the epoch so far, batch, samples, lr."""

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: Record) -> None:
        """After every epoch, validation included."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last epoch, also when training was interrupted."""


class EarlyStopping(Callback):
    """Ends training when ``monitor`` has not become better for ``patience`` epochs, and puts the best weights back.

    ``mode`` is "min", "max" or None: max for figures called …accuracy, else min. ``delta``: what counts as better.

    >>> from wiesel.callbacks import EarlyStopping
    >>> EarlyStopping("val_accuracy", patience=3).mode
    'max'
    """

    def __init__(
        self, monitor: str = "val_loss", *, patience: int = 5, delta: float = 0.0, mode: str | None = None, restore_best: bool = True
    ) -> None:
        if patience < 0:
            raise ValueError(f"EarlyStopping: patience must be at least 0, got {patience}")
        if mode not in (None, "min", "max"):
            raise ValueError(f'EarlyStopping: mode must be "min", "max" or None, got {mode!r}')
        self.monitor, self.patience, self.delta, self.restore_best = monitor, patience, delta, restore_best
        self.mode = mode or ("max" if "accuracy" in monitor else "min")
        self._reset()

    def _reset(self) -> None:
        self.best: float | None = None
        self.best_epoch = -1
        self._weights: dict[str, Any] | None = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        self._reset()

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: Record) -> None:
        if self.monitor not in record:
            raise ValueError(
                f"EarlyStopping watches {self.monitor!r}, which is not measured (is validation= missing?); measured: {', '.join(record)}"
            )
        value = record[self.monitor] if self.mode == "min" else -record[self.monitor]
        if self.best is None or value < self.best - self.delta:
            self.best, self.best_epoch = value, epoch
            if self.restore_best:
                self._weights = trainer.net.state_dict()
        elif epoch - self.best_epoch >= self.patience:
            trainer.stop()

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._weights is not None:
            trainer.net.load_state_dict(self._weights)


class Checkpoint(Callback):
    """Saves the trainer after every ``every``-th epoch, and at the end of ``fit`` (also when it was interrupted)."""

    def __init__(self, path: Any, *, every: int = 1) -> None:
        self.path, self.every = path, every

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: Record) -> None:
        if (epoch + 1) % self.every == 0:
            trainer.save(self.path)

    def on_fit_end(self, trainer: Trainer) -> None:
        trainer.save(self.path)
