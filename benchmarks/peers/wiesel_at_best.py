"""Takes turns with the contenders of benchmarks/train.py; reports no time of its own but a step's floor, at the rates of that minute."""

from __future__ import annotations

from typing import Any

import numpy as np
from pipe import serve
from wiesel_floor import at_best, floor_of
from wiesel_nets import build

import wiesel as wl


class Turns:
    """The answers to the requests."""

    def __init__(self) -> None:
        self._parts: list[tuple[float, float]] = []

    def setup(self, net: str, batches: str, **_: Any) -> dict[str, Any]:
        with np.load(batches) as file:
            x = file["x"][0]
        self._parts = floor_of(build(net, x, None), x.shape)
        return {}

    def run(self, **_: Any) -> dict[str, float]:
        machine = wl.machine(anew=True)
        return {"median": at_best(self._parts, machine.flops, machine.bandwidth)}


if __name__ == "__main__":
    turns = Turns()
    serve({"setup": turns.setup, "run": turns.run})
