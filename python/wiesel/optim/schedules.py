"""Learning rates as functions of the progress of training. A schedule changes a scalar of the program, never the program.

Lengths are given in ``steps`` (updates) or in ``epochs`` (which may be fractions).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Progress:
    """Updates made so far, and epochs with the part of the present one."""

    step: int = 0
    epoch: float = 0.0


class Schedule(ABC):
    """Base of all schedules: ``schedule(progress)`` is the learning rate of the coming step."""

    @abstractmethod
    def __call__(self, progress: Progress) -> float: ...

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Constructor arguments, for saving and showing."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"


class _Spanned(Schedule):
    """A schedule with a length in steps or epochs."""

    def __init__(self, steps: float | None, epochs: float | None) -> None:
        if (steps is None) == (epochs is None):
            raise TypeError(f"{type(self).__name__} takes its length as steps= or as epochs=")
        length = steps if steps is not None else epochs
        assert length is not None
        if length <= 0:
            raise ValueError(f"{type(self).__name__}: the length must be above 0, got {length}")
        self.steps, self.epochs, self.length = steps, epochs, float(length)

    def position(self, progress: Progress) -> float:
        """Share of the length that is done, 0 … (may exceed 1)."""
        return (progress.step if self.steps is not None else progress.epoch) / self.length

    def _span(self) -> dict[str, Any]:
        return {"steps": self.steps} if self.steps is not None else {"epochs": self.epochs}


class Constant(Schedule):
    """Always ``lr``."""

    def __init__(self, lr: float) -> None:
        self.lr = _rate(lr, "Constant")

    def __call__(self, progress: Progress) -> float:
        return self.lr

    def config(self) -> dict[str, Any]:
        return {"lr": self.lr}


class Step(_Spanned):
    """lr · factor^floor(position): multiplied by ``factor`` after every length of ``steps`` or ``epochs``.

    >>> Step(0.1, factor=0.5, steps=10)(Progress(step=25))
    0.025
    """

    def __init__(self, lr: float, *, factor: float = 0.1, steps: float | None = None, epochs: float | None = None) -> None:
        super().__init__(steps, epochs)
        self.lr, self.factor = _rate(lr, "Step"), float(factor)

    def __call__(self, progress: Progress) -> float:
        return self.lr * self.factor ** math.floor(self.position(progress))

    def config(self) -> dict[str, Any]:
        return {"lr": self.lr, "factor": self.factor, **self._span()}


class Cosine(_Spanned):
    """end + (lr - end) · (1 + cos(π · position)) / 2 (Loshchilov and Hutter 2016), ``end`` after the length.

    >>> Cosine(0.1, steps=10)(Progress(step=5))
    0.05
    """

    def __init__(self, lr: float, *, end: float = 0.0, steps: float | None = None, epochs: float | None = None) -> None:
        super().__init__(steps, epochs)
        self.lr, self.end = _rate(lr, "Cosine"), float(end)

    def __call__(self, progress: Progress) -> float:
        return _cosine(self.lr, self.end, self.position(progress))

    def config(self) -> dict[str, Any]:
        return {"lr": self.lr, "end": self.end, **self._span()}


class OneCycle(_Spanned):
    """Up from lr / initial_factor to ``lr`` over the first share ``warmup`` of the length, then down to the start / final_factor
    (Smith and Topin 2017; the two halves are cosines, as torch's default). With ``steps=n`` the last of n steps has the final rate.

    >>> round(OneCycle(1.0, steps=10)(Progress(step=2)), 6)
    1.0
    """

    def __init__(
        self,
        lr: float,
        *,
        warmup: float = 0.3,
        initial_factor: float = 25.0,
        final_factor: float = 1e4,
        anneal: Literal["cosine", "linear"] = "cosine",
        steps: float | None = None,
        epochs: float | None = None,
    ) -> None:
        super().__init__(steps, epochs)
        if not 0.0 < warmup < 1.0:
            raise ValueError(f"OneCycle: warmup must be between 0 and 1, got {warmup}")
        if anneal not in ("cosine", "linear"):
            raise ValueError(f'OneCycle: anneal must be "cosine" or "linear", got {anneal!r}')
        self.lr, self.warmup, self.anneal = _rate(lr, "OneCycle"), float(warmup), anneal
        self.initial_factor, self.final_factor = float(initial_factor), float(final_factor)

    def __call__(self, progress: Progress) -> float:
        start = self.lr / self.initial_factor
        shape = _cosine if self.anneal == "cosine" else _linear
        if self.steps is not None:  # in whole steps: the peak and the end fall on steps, as in torch
            done, top, last = float(progress.step), self.warmup * self.length - 1.0, self.length - 1.0
        else:
            done, top, last = progress.epoch, self.warmup * self.length, self.length
        if done <= top and top > 0.0:
            return shape(start, self.lr, done / top)
        return shape(self.lr, start / self.final_factor, (done - top) / max(last - top, 1e-12))

    def config(self) -> dict[str, Any]:
        return {
            "lr": self.lr, "warmup": self.warmup, "initial_factor": self.initial_factor, "final_factor": self.final_factor,
            "anneal": self.anneal, **self._span(),
        }  # fmt: skip


class WarmUp(_Spanned):
    """Linear from ``start`` times the rate up to ``then`` (a rate or another schedule, which sees the whole progress).

    >>> WarmUp(Constant(0.1), steps=4)(Progress(step=1))
    0.05
    """

    def __init__(self, then: Schedule | float, *, start: float = 0.0, steps: float | None = None, epochs: float | None = None) -> None:
        super().__init__(steps, epochs)
        self.then = then if isinstance(then, Schedule) else Constant(then)
        self.start = float(start)

    def __call__(self, progress: Progress) -> float:
        rate = self.then(progress)
        # the first of n steps is already 1/n on the way
        done = (progress.step + 1) / self.length if self.steps is not None else progress.epoch / self.length
        return rate if done >= 1.0 else rate * (self.start + (1.0 - self.start) * done)

    def config(self) -> dict[str, Any]:
        return {"then": self.then, "start": self.start, **self._span()}


def as_schedule(lr: float | Schedule) -> Schedule:
    return lr if isinstance(lr, Schedule) else Constant(lr)


def _rate(lr: float, name: str) -> float:
    rate = float(lr)
    if not rate >= 0.0 or math.isinf(rate):
        raise ValueError(f"{name}: the learning rate must be a finite number of at least 0, got {lr!r}")
    return rate


def _cosine(start: float, end: float, position: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * min(max(position, 0.0), 1.0))) / 2.0


def _linear(start: float, end: float, position: float) -> float:
    return start + (end - start) * min(max(position, 0.0), 1.0)
