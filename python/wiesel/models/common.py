"""What the models share."""

from __future__ import annotations

from collections.abc import Sequence

from wiesel import nn

Pixels = tuple[float | Sequence[float], float | Sequence[float]]
"""(mean, standard deviation) of the pixels in units of 255, one number or one per channel."""


def assemble(features: nn.Module, classifier: nn.Module, pixels: Pixels | None) -> nn.Sequential:
    """``features`` then ``classifier``; with ``pixels`` the net takes uint8 pictures and brings them to mean 0 and deviation 1 first."""
    if pixels is None:
        return nn.Sequential(features=features, classifier=classifier)
    mean, std = pixels
    return nn.Sequential(pixels=nn.Normalize(mean, std), features=features, classifier=classifier)


def conv_norm(channels: int, kernel: int = 3, *, stride: int = 1, relu: bool = True) -> list[nn.Module]:
    """Convolution without bias ("same" size at stride 1), batch normalisation, ReLU."""
    layers: list[nn.Module] = [nn.Conv2d(channels, kernel, stride=stride, padding=kernel // 2, bias=False), nn.BatchNorm2d()]
    return [*layers, nn.ReLU()] if relu else layers
