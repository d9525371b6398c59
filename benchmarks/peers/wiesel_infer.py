"""wiesel's side of benchmarks/infer.py."""

from __future__ import annotations

import numpy as np
from pipe import Work, digest, serve_work
from wiesel_nets import build

import wiesel as wl


class Inference(Work):
    """One net and one batch of pictures."""

    def __init__(self, net: str, pictures: str, weights: str | None) -> None:
        self._x = np.load(pictures)
        self._net = build(net, self._x, weights)
        about = {"parameters": self._net.parameter_count, "version": wl.__version__, "isa": wl.isa()}
        self.about = {**about, "digest": digest(self.step(0))}

    def step(self, number: int) -> np.ndarray:
        result: np.ndarray = self._net(self._x)
        return result


if __name__ == "__main__":
    serve_work(Inference)
