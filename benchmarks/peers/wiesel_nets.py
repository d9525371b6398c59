"""The benchmarks' nets in wiesel: without dropout, so that results can be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import wiesel as wl
from wiesel import models, nn, optim
from wiesel.planning import NetPlan

_OPTIONS: dict[str, dict[str, Any]] = {
    "lenet5": {"padding": 2},
    **{name: {"dropout": 0.0} for name in ("mnist", "fashion", "alexnet", "vgg16", "googlenet", "mobilenet-v2")},
}
PIXELS = (0.5, 0.25)  # mean and standard deviation, where the net takes bytes; torch_nets.py has the same


def build(net: str, x: np.ndarray, weights: str | None) -> nn.Module:
    """The net with its first weights, for pictures like ``x``; they are written to ``weights`` if that is a path."""
    options = _OPTIONS.get(net, {}) | ({"pixels": PIXELS} if x.dtype == np.uint8 else {})
    made = models.create(net, **options).build(x.shape[1:], seed=0)
    if weights is not None and not Path(weights).exists():
        np.savez(weights, **{f"p{i}": p.value for i, p in enumerate(made.parameters().values())})
    return made


def sgd(settings: dict[str, Any]) -> optim.Optimizer:
    """The optimizer of a case, whose learning rate is called ``lr``."""
    return optim.SGD(**settings)


def plan_of(net: nn.Module, x: np.ndarray, settings: dict[str, Any]) -> NetPlan:
    """The plan of a training step on pictures like ``x``."""
    return wl.plan(net, x.shape, training=True, optimizer=sgd(settings), input_dtype="u8" if x.dtype == np.uint8 else "f32")
