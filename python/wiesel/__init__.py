"""Train convolutional networks on a CPU from NumPy, fast, and ship them as a small C library.

>>> import wiesel as wl
>>> from wiesel import nn
>>> net = nn.Sequential(nn.Conv2d(8, 3, activation="relu"), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(10)).build((28, 28, 1))
>>> trainer = wl.Trainer(net, loss="cross_entropy", optimizer=wl.optim.SGD(0.1, momentum=0.9))

Everything here is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_SUBMODULES = ("nn", "optim", "data", "models", "ops", "losses", "random", "callbacks")
_NAMES = {
    "Trainer": "wiesel.train",
    "History": "wiesel.callbacks",
    "value_and_grad": "wiesel.functional",
    "vjp": "wiesel.functional",
    "grad": "wiesel.functional",
    "save": "wiesel.files",
    "load": "wiesel.files",
    "plan": "wiesel.planning",
    "explain": "wiesel.planning",
    "isa": "wiesel.settings",
    "machine": "wiesel.probe",
    "isas": "wiesel.settings",
    "num_threads": "wiesel.settings",
    "set_num_threads": "wiesel.settings",
}

__all__ = [
    "History", "Trainer", "__version__", "callbacks", "data", "explain", "grad", "isa", "isas", "load", "losses", "machine", "models",
    "nn", "num_threads", "ops", "optim", "plan", "random", "save", "set_num_threads", "value_and_grad", "vjp",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"wiesel.{name}")
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'wiesel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from wiesel import callbacks, data, losses, models, nn, ops, optim, random
    from wiesel.callbacks import History
    from wiesel.files import load, save
    from wiesel.functional import grad, value_and_grad, vjp
    from wiesel.planning import explain, plan
    from wiesel.probe import machine
    from wiesel.settings import isa, isas, num_threads, set_num_threads
    from wiesel.train import Trainer
