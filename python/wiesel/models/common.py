"""What the models share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wiesel import nn

Pixels = tuple[float | Sequence[float], float | Sequence[float]]
"""(mean, standard deviation) of the pixels in units of 255, one number or one per channel."""

Activation = Callable[[], nn.Module]
"""A layer class such as ``nn.ReLU``."""


def assemble(features: nn.Module, classifier: nn.Module, pixels: Pixels | None) -> nn.Sequential:
    """``features`` then ``classifier``; with ``pixels`` the net takes uint8 pictures and brings them to mean 0 and deviation 1 first."""
    if pixels is None:
        return nn.Sequential(features=features, classifier=classifier)
    mean, std = pixels
    return nn.Sequential(pixels=nn.Normalize(mean, std), features=features, classifier=classifier)


def conv_norm(channels: int, kernel: int = 3, *, stride: int = 1, activation: Activation | None = nn.ReLU) -> list[nn.Module]:
    """Convolution without bias ("same" size at stride 1), batch normalisation, activation."""
    return _normalised(nn.Conv2d(channels, kernel, stride=stride, padding=kernel // 2, bias=False), activation)


def depthwise_norm(kernel: int = 3, *, stride: int = 1, activation: Activation | None = nn.ReLU) -> list[nn.Module]:
    """``conv_norm`` in which every channel is filtered by itself."""
    return _normalised(nn.DepthwiseConv2d(kernel, stride=stride, padding=kernel // 2, bias=False), activation)


def dense(hidden: Sequence[int], classes: int, dropout: float) -> nn.Sequential:
    """Dense layers of ``hidden`` units with ReLU, each followed by dropout unless that is 0, and the linear output layer."""
    layers: list[nn.Module] = [nn.Flatten()]
    for units in hidden:
        layers.append(nn.Linear(units, activation="relu"))
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(classes))


def _normalised(convolution: nn.Module, activation: Activation | None) -> list[nn.Module]:
    layers = [convolution, nn.BatchNorm2d()]
    return layers if activation is None else [*layers, activation()]
