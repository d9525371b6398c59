"""Small models, ready to train. Each has ``features`` (convolutions) and ``classifier`` as sub-modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wiesel import nn
from wiesel.models.lenet import lenet5, lenet5_1998
from wiesel.models.resnet import resnet, resnet14, resnet18_32, resnet20
from wiesel.models.small import digits, fashion, mnist, sixconv

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "digits": digits,
    "fashion": fashion,
    "lenet5": lenet5,
    "lenet5-1998": lenet5_1998,
    "mnist": mnist,
    "resnet14": resnet14,
    "resnet18-32": resnet18_32,
    "resnet20": resnet20,
    "sixconv": sixconv,
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
    "create",
    "digits",
    "fashion",
    "lenet5",
    "lenet5_1998",
    "mnist",
    "names",
    "resnet",
    "resnet14",
    "resnet18_32",
    "resnet20",
    "sixconv",
]
