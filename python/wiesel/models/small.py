"""Small nets for small pictures."""

from __future__ import annotations

from wiesel import nn
from wiesel.models.common import Pixels, assemble, conv_norm, dense


def digits(classes: int = 10, *, dropout: float = 0.25, pixels: Pixels | None = None) -> nn.Sequential:
    """For 8 x 8 digits: two convolutions (32 and 64 filters), each normalised and pooled, and a hidden layer. 0.05 M parameters."""
    features = nn.Sequential(*conv_norm(32), nn.MaxPool2d(2), *conv_norm(64), nn.MaxPool2d(2))
    return assemble(features, dense((128,), classes, dropout), pixels)


def mnist(classes: int = 10, *, dropout: float = 0.5, pixels: Pixels | None = None) -> nn.Sequential:
    """For 28 x 28 digits: two convolutions of 32 and 64 filters 3 x 3, pooling, a hidden layer of 128. 1,199,882 parameters."""
    features = nn.Sequential(nn.Conv2d(32, 3, activation="relu"), nn.Conv2d(64, 3, activation="relu"), nn.MaxPool2d(2))
    return assemble(features, dense((128,), classes, dropout), pixels)


def fashion(classes: int = 10, *, dropout: float = 0.3, pixels: Pixels | None = None) -> nn.Sequential:
    """For 28 x 28 articles of clothing: three normalised convolutions (32, 64, 128), each pooled. 0.10 M parameters."""
    features = nn.Sequential(*conv_norm(32), nn.MaxPool2d(2), *conv_norm(64), nn.MaxPool2d(2), *conv_norm(128), nn.MaxPool2d(2))
    return assemble(features, nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(classes)), pixels)


def sixconv(classes: int = 2, *, pixels: Pixels | None = None) -> nn.Sequential:
    """For 150 x 150 photographs: six normalised 3 x 3 convolutions (32, 32, 64, 64, 128, 128), pooled after each pair, then averaged."""
    layers: list[nn.Module] = []
    for channels in (32, 64, 128):
        layers += [*conv_norm(channels), *conv_norm(channels), nn.MaxPool2d(2)]
    features = nn.Sequential(*layers, nn.GlobalAvgPool2d())
    return assemble(features, nn.Sequential(nn.Flatten(), nn.Linear(classes)), pixels)
