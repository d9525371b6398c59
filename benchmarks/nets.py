"""The nets of train.py and infer.py, with the batches they are trained at and the ratios that are to be reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SGD = {"lr": 0.001, "momentum": 0.9}
GENTLE = {"lr": 1e-5, "momentum": 0.9}  # deep nets at their first weights: larger steps multiply rounding errors a hundredfold
RECIPE = {
    "lr": 0.01,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
}  # of `wiesel train`; its learning rates change from step to step


@dataclass(frozen=True)
class Case:
    """A net (a name of peers/torch_nets.py and peers/wiesel_nets.py) and how it is used."""

    name: str
    net: str
    batch: int
    shape: tuple[int, int, int]
    classes: int
    training_target: float | None = None
    """How many times faster than the best setting of the best peer a training step is to be, at least."""
    optimizer: Mapping[str, Any] = field(default_factory=lambda: SGD)
    uint8: bool = False
    """The net takes bytes and normalises them itself, as under `wiesel train`."""

    def pictures(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """(count, h, w, c) random pictures."""
        shape = (count, *self.shape)
        return rng.integers(0, 256, shape, dtype=np.uint8) if self.uint8 else rng.standard_normal(shape, dtype=np.float32)


CASES = {
    case.name: case
    for case in (
        Case("lenet5", "lenet5", 64, (28, 28, 1), 10, 2.5),
        Case("mnist", "mnist", 64, (28, 28, 1), 10, 2.0),
        Case("sixconv", "sixconv", 32, (150, 150, 3), 2, 2.5),
        Case("resnet18-32", "resnet18-32", 64, (32, 32, 3), 10, 1.6),
        Case("alexnet", "alexnet", 16, (224, 224, 3), 1000, 1.4, GENTLE),
        Case("vgg16", "vgg16", 4, (224, 224, 3), 1000, 2.0, GENTLE),
        Case("googlenet", "googlenet", 16, (224, 224, 3), 1000, 1.7, GENTLE),
        Case("resnet18", "resnet18", 16, (224, 224, 3), 1000, 1.8, GENTLE),
        Case("resnet50", "resnet50", 8, (224, 224, 3), 1000, 1.3, GENTLE),
        Case("mobilenet-v1", "mobilenet-v1", 16, (224, 224, 3), 1000, 1.8, GENTLE),
        Case("mobilenet-v2", "mobilenet-v2", 16, (224, 224, 3), 1000, 2.2, GENTLE),
    )
}
RECIPES = {
    case.name: case
    for case in (
        Case("train mnist", "lenet5", 64, (28, 28, 1), 10, optimizer=RECIPE, uint8=True),
        Case("train fashion-mnist", "fashion", 64, (28, 28, 1), 10, optimizer=RECIPE, uint8=True),
        Case("train cifar10", "resnet14", 128, (32, 32, 3), 10, optimizer=RECIPE, uint8=True),
    )
}


def choose(names: str, *, recipes: bool) -> list[Case]:
    """The cases of a comma-separated list; "all" are those of the tables. Ends the program with the known names."""
    known = CASES | RECIPES if recipes else CASES
    if names == "all":
        return list(CASES.values())
    unknown = [name for name in names.split(",") if name not in known]
    if unknown:
        raise SystemExit(f"unknown nets {', '.join(unknown)}; known: {', '.join(known)}")
    return [known[name] for name in names.split(",")]
