"""How training shows its progress: a live bar on a terminal (with rich), else a line per epoch and one now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

_LINE_EVERY = 20.0  # seconds between lines within an epoch, where there is no terminal
_BAR_EVERY = 0.1


class Progress(Protocol):
    def step(self, epoch: int, samples: int, figures: Mapping[str, float]) -> None:
        """After each batch of an epoch (counted from 1): samples seen in it so far, means of the figures over them."""

    def epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        """After each epoch."""

    def close(self) -> None: ...


def progress(epochs: int, samples: int) -> Progress:
    """A live bar where standard output is a terminal and rich is installed, else plain lines."""
    if sys.stdout.isatty():
        try:
            return _Bar(epochs, samples)
        except ModuleNotFoundError:
            pass
    return _Lines(epochs, samples)


class _Clock:
    """Images per second and time left, from the samples of this process (a resumed run did not see the earlier ones)."""

    def __init__(self, epochs: int, samples: int) -> None:
        self.epochs = epochs
        self.samples = samples
        self.seen = 0
        self._in_epoch = 0
        self._epoch = 0
        self._start = time.perf_counter()

    def tick(self, epoch: int, samples: int) -> None:
        self.seen += samples - (self._in_epoch if epoch == self._epoch else 0)
        self._epoch, self._in_epoch = epoch, samples

    @property
    def rate(self) -> float:
        return self.seen / max(time.perf_counter() - self._start, 1e-9)

    def left(self) -> str:
        remaining = (self.epochs - self._epoch) * self.samples + self.samples - self._in_epoch
        seconds = round(remaining / max(self.rate, 1e-9))
        minutes, seconds = divmod(seconds, 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"


class _Lines:
    def __init__(self, epochs: int, samples: int) -> None:
        self._clock = _Clock(epochs, samples)
        self._last = time.perf_counter()

    def step(self, epoch: int, samples: int, figures: Mapping[str, float]) -> None:
        self._clock.tick(epoch, samples)
        now = time.perf_counter()
        if now - self._last >= _LINE_EVERY:
            self._last = now
            share = 100 * samples / self._clock.samples
            print(f"epoch {epoch}/{self._clock.epochs} {share:3.0f} %  {_text(figures)}  {self._speed()}", flush=True)

    def epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        self._last = time.perf_counter()
        print(f"epoch {epoch}/{self._clock.epochs}  {_text(figures)}  {self._speed()}", flush=True)

    def close(self) -> None:
        pass

    def _speed(self) -> str:
        return f"{self._clock.rate:.0f} images/s  {self._clock.left()} left"


class _Bar:
    def __init__(self, epochs: int, samples: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._clock = _Clock(epochs, samples)
        self._last = 0.0
        self._bar: Any = Progress(
            TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}  [dim]{task.fields[speed]}"),
        )
        self._task = self._bar.add_task("train", total=epochs * samples, epoch=1, figures="", speed="")
        self._bar.start()

    def step(self, epoch: int, samples: int, figures: Mapping[str, float]) -> None:
        self._clock.tick(epoch, samples)
        now = time.perf_counter()
        if now - self._last >= _BAR_EVERY:
            self._last = now
            speed = f"{self._clock.rate:.0f} images/s, {self._clock.left()} left"
            done = (epoch - 1) * self._clock.samples + samples
            self._bar.update(self._task, completed=done, epoch=epoch, figures=_text(figures), speed=speed)

    def epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        self._bar.update(self._task, completed=epoch * self._clock.samples)
        self._bar.console.print(f"epoch {epoch:3}/{self._clock.epochs}  {_text(figures)}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()


def _text(figures: Mapping[str, float]) -> str:
    names = {"loss": "loss", "accuracy": "accuracy", "val_loss": "validation loss", "val_accuracy": "accuracy"}
    parts = []
    for key, name in names.items():
        if key in figures:
            value = f"{100 * figures[key]:.2f} %" if key.endswith("accuracy") else f"{figures[key]:.4f}"
            parts.append(f"{name} {value}")
    return "  ".join(parts)
