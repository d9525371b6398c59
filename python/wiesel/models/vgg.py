"""VGG (Simonyan, Zisserman: "Very deep convolutional networks for large-scale image recognition", arXiv:1409.1556)."""

from __future__ import annotations

from wiesel import nn
from wiesel.models.common import Pixels, assemble, dense


def vgg16(classes: int = 1000, *, dropout: float = 0.5, pixels: Pixels | None = None) -> nn.Sequential:
    """VGG-16, the paper's configuration D: thirteen 3 x 3 convolutions in five pooled stages, three dense layers.

    For 224 x 224 pictures: 138,357,544 parameters for 1000 classes, 15.5 G multiply-adds.

    >>> from wiesel.summary import summarize
    >>> summarize(vgg16(), (224, 224, 3)).parameters
    138357544
    """
    layers: list[nn.Module] = []
    for count, channels in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        layers += [nn.Conv2d(channels, 3, padding=1, activation="relu") for _ in range(count)]
        layers.append(nn.MaxPool2d(2))
    return assemble(nn.Sequential(*layers), dense((4096, 4096), classes, dropout), pixels)
