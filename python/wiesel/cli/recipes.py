"""How each data set is trained unless the command line says otherwise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wiesel import models, optim
from wiesel.data import Augmentation, CropFlip, Dataset
from wiesel.nn import Module


@dataclass(frozen=True)
class Recipe:
    """All that decides a training run; with the data set's files it determines the weights to the last bit.

    SGD with Nesterov momentum under a one-cycle schedule with peak ``lr``. ``pad`` and ``flip`` are the shifts and mirrorings of
    training pictures (``data.CropFlip``); ``pixels`` are mean and standard deviation of the training pixels, in units of 255.
    """

    data: str
    net: str
    epochs: int
    batch_size: int
    lr: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    pad: int = 0
    flip: bool = False
    seed: int = 0
    classes: int = 10
    pixels: tuple[tuple[float, ...], tuple[float, ...]] = ((0.0,), (1.0,))
    options: tuple[tuple[str, Any], ...] = ()

    def build_net(self, sample_shape: Sequence[int], class_names: Sequence[str]) -> Module:
        """The net with its initial weights."""
        net = models.create(self.net, classes=self.classes, pixels=self.pixels, **dict(self.options))
        net.build(tuple(sample_shape), seed=self.seed)
        net.class_names = list(class_names)
        return net

    def optimizer(self) -> optim.Optimizer:
        schedule = optim.OneCycle(self.lr, epochs=self.epochs)
        return optim.SGD(schedule, momentum=self.momentum, nesterov=True, weight_decay=self.weight_decay)

    def augmentation(self) -> Augmentation | None:
        return CropFlip(self.pad, flip=self.flip) if self.pad or self.flip else None

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Raises FileNotFoundError or ValueError that says what to do."""
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; a checkpoint is resumed from the folder that training wrote")
        try:
            values = json.loads(path.read_text())
            mean, std = values.pop("pixels")
            options = tuple((str(name), value) for name, value in values.pop("options"))
            return cls(**values, pixels=(tuple(mean), tuple(std)), options=options)
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{path}: not the settings of a training run ({error})") from None


_RECIPES = {
    "digits": Recipe("digits", "digits", epochs=30, batch_size=32, lr=0.05),
    "mnist": Recipe("mnist", "lenet5", epochs=10, batch_size=64, lr=0.05, pad=2),
    "fashion-mnist": Recipe("fashion-mnist", "fashion", epochs=8, batch_size=64, lr=0.05, flip=True),
    "cifar10": Recipe("cifar10", "resnet14", epochs=10, batch_size=128, lr=0.3, pad=4, flip=True),
}


def recipe_for(
    name: str, train: Dataset, *, net: str | None, epochs: int | None, batch_size: int | None, lr: float | None, seed: int
) -> Recipe:
    """The data set's recipe with what the command line changes, fitted to the training pictures."""
    recipe = _RECIPES[name]
    given: dict[str, Any] = {"net": net, "epochs": epochs, "batch_size": batch_size, "lr": lr}
    recipe = replace(recipe, seed=seed, **{key: value for key, value in given.items() if value is not None})
    if recipe.net not in models.names():
        raise ValueError(f"no model named {recipe.net!r}; known: {', '.join(models.names())}")
    if recipe.net.startswith("lenet5") and train.sample_shape[0] == 28:
        recipe = replace(recipe, options=(("padding", 2),))
    return replace(recipe, classes=train.classes, pixels=pixel_statistics(train))


def pixel_statistics(data: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, in units of 255, rounded to four places."""
    channels = data.sample_shape[-1]
    total, squares = np.zeros(channels), np.zeros(channels)
    for start in range(0, len(data), 1000):
        values = data.slice(start, start + 1000)[0].reshape(-1, channels).astype(np.float64) / 255
        total += values.sum(axis=0)
        squares += np.square(values).sum(axis=0)
    count = len(data) * int(np.prod(data.sample_shape[:-1]))
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 1e-8))
    return tuple(round(float(m), 4) for m in mean), tuple(round(float(s), 4) for s in std)
