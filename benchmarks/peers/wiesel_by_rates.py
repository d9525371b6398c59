"""Takes turns with the contenders of benchmarks/train.py; its times are not measured but follow from the machine's rates of that minute:
a step's "floor" (wiesel_floor.py), or the "forecast" that ``wl.plan`` makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from pipe import serve
from wiesel_floor import at_best, floor_of
from wiesel_nets import build, plan_of

import wiesel as wl


class Turns:
    """The answers to the requests."""

    def setup(self, net: str, batches: str, optimizer: dict[str, Any], what: str, **_: Any) -> dict[str, Any]:
        with np.load(batches) as file:
            x = file["x"][0]
        built = build(net, x, None)
        if what == "floor":
            parts = floor_of(built, x.shape)
            self._seconds = lambda machine: at_best(parts, machine.flops, machine.bandwidth)
        else:
            self._seconds = plan_of(built, x, optimizer).seconds_on
        return {}

    def run(self, **_: Any) -> dict[str, float]:
        return {"median": self._seconds(wl.machine(anew=True))}


if __name__ == "__main__":
    turns = Turns()
    serve({"setup": turns.setup, "run": turns.run})
