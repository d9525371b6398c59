"""wiesel's side of benchmarks/train.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from pipe import serve, timed

import wiesel as wl
from wiesel import models, optim

_NETS = {
    "lenet5": ("lenet5", {"padding": 2}),
    "mnist": ("mnist", {"dropout": 0.0}),
    "sixconv": ("sixconv", {}),
    "resnet18-32": ("resnet18-32", {}),
}


class Training:
    """One net with its optimizer and batches."""

    def __init__(self, net: str, batches: str, lr: float, momentum: float, weights: str | None) -> None:
        with np.load(batches) as file:
            self.batches = list(zip(file["x"], file["y"], strict=True))
        name, options = _NETS[net]
        self.net = models.create(name, **options)
        self.net.build(self.batches[0][0].shape[1:], seed=0)
        arrays = [p.value for p in self.net.parameters().values()]
        self.parameters = sum(a.size for a in arrays)
        if weights is not None:
            np.savez(weights, **{f"p{i}": a for i, a in enumerate(arrays)})
        self.trainer = wl.Trainer(self.net, loss="cross_entropy", optimizer=optim.SGD(lr, momentum=momentum), seed=0)

    def step(self, number: int) -> float:
        return float(self.trainer.step(*self.batches[number % len(self.batches)]))


_training: list[Training] = []


def setup(**settings: Any) -> dict[str, Any]:
    _training[:] = [Training(**settings)]
    return {"parameters": _training[0].parameters, "version": wl.__version__, "isa": wl.isa()}


def losses(count: int) -> list[float]:
    """The losses of the first steps; they also warm up."""
    return [_training[0].step(i) for i in range(count)]


def run(seconds: float, least: int) -> dict[str, Any]:
    return timed(_training[0].step, seconds, least)


if __name__ == "__main__":
    serve({"setup": setup, "losses": losses, "run": run})
