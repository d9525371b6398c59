"""wiesel's side of benchmarks/train.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from pipe import Work, mark, serve_work
from wiesel_nets import build, plan_of, sgd

import wiesel as wl


class Training(Work):
    """One net with its optimizer and batches."""

    def __init__(self, net: str, batches: str, optimizer: dict[str, Any], weights: str | None) -> None:
        with np.load(batches) as file:
            self._batches = list(zip(file["x"], file["y"], strict=True))
        mark()
        x = self._batches[0][0]
        self._net = build(net, x, weights)
        self._optimizer = dict(optimizer)
        self._trainer = wl.Trainer(self._net, loss="cross_entropy", optimizer=sgd(optimizer), seed=0)
        self.about = {"parameters": self._net.parameter_count, "version": wl.__version__, "isa": wl.isa()}

    def step(self, number: int) -> float:
        return float(self._trainer.step(*self._batches[number % len(self._batches)]))

    def planned(self) -> int:
        return plan_of(self._net, self._batches[0][0], self._optimizer).memory


if __name__ == "__main__":
    serve_work(Training)
