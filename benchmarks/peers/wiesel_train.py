"""wiesel's side of benchmarks/train.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from pipe import Work, mark, serve_work
from wiesel_nets import build

import wiesel as wl
from wiesel import optim


class Training(Work):
    """One net with its optimizer and batches."""

    def __init__(self, net: str, batches: str, optimizer: dict[str, Any], weights: str | None) -> None:
        with np.load(batches) as file:
            self._batches = list(zip(file["x"], file["y"], strict=True))
        mark()
        x = self._batches[0][0]
        self._net = build(net, x, weights)
        self._optimizer = dict(optimizer)
        self._trainer = wl.Trainer(self._net, loss="cross_entropy", optimizer=self._sgd(), seed=0)
        self.about = {"parameters": self._net.parameter_count, "version": wl.__version__, "isa": wl.isa()}

    def _sgd(self) -> optim.Optimizer:
        options = dict(self._optimizer)
        return optim.SGD(options.pop("lr"), **options)

    def step(self, number: int) -> float:
        return float(self._trainer.step(*self._batches[number % len(self._batches)]))

    def planned(self) -> int:
        x = self._batches[0][0]
        dtype = "u8" if x.dtype == np.uint8 else "f32"
        return wl.plan(self._net, x.shape, training=True, optimizer=self._sgd(), input_dtype=dtype).memory


if __name__ == "__main__":
    serve_work(Training)
