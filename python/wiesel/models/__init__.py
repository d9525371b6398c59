"""Published nets and small ones, ready to train. Each has ``features`` (convolutions) and ``classifier`` as sub-modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wiesel import nn
from wiesel.models.alexnet import alexnet
from wiesel.models.googlenet import googlenet
from wiesel.models.lenet import lenet5, lenet5_1998
from wiesel.models.mobilenet import mobilenet_v1, mobilenet_v2
from wiesel.models.resnet import resnet, resnet14, resnet18, resnet18_32, resnet20, resnet50
from wiesel.models.small import digits, fashion, mnist, sixconv
from wiesel.models.vgg import vgg16

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "alexnet": alexnet,
    "digits": digits,
    "fashion": fashion,
    "googlenet": googlenet,
    "lenet5": lenet5,
    "lenet5-1998": lenet5_1998,
    "mnist": mnist,
    "mobilenet-v1": mobilenet_v1,
    "mobilenet-v2": mobilenet_v2,
    "resnet14": resnet14,
    "resnet18": resnet18,
    "resnet18-32": resnet18_32,
    "resnet20": resnet20,
    "resnet50": resnet50,
    "sixconv": sixconv,
    "vgg16": vgg16,
}


def names() -> tuple[str, ...]:
    """The models that ``create`` knows."""
    return tuple(_BUILDERS)


def create(name: str, **options: Any) -> nn.Module:
    """The model ``name`` with its builder's options (``classes``, ``pixels``, ...). Raises ValueError that lists the known names.

    >>> create("lenet5", classes=26).build((32, 32, 1)).parameter_count
    63066
    """
    try:
        builder = _BUILDERS[name]
    except KeyError:
        raise ValueError(f"no model named {name!r}; known: {', '.join(_BUILDERS)}") from None
    return builder(**options)


__all__ = [
    "alexnet",
    "create",
    "digits",
    "fashion",
    "googlenet",
    "lenet5",
    "lenet5_1998",
    "mnist",
    "mobilenet_v1",
    "mobilenet_v2",
    "names",
    "resnet",
    "resnet14",
    "resnet18",
    "resnet18_32",
    "resnet20",
    "resnet50",
    "sixconv",
    "vgg16",
]
