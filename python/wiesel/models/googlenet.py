"""GoogLeNet (Szegedy et al.: "Going deeper with convolutions", arXiv:1409.4842), batch-normalised (Ioffe, Szegedy, arXiv:1502.03167)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wiesel import nn, ops
from wiesel.models.common import Pixels, assemble, conv_norm

if TYPE_CHECKING:
    from wiesel.graph.tensor import Tensor

# Table 1 of the paper: filters of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
_STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


class Inception(nn.Module):
    """Four branches over the same input, joined along the channels: 1x1; 1x1 then 3x3; 1x1 then 5x5; 3x3 max pooling then 1x1."""

    def __init__(self, one: int, three_reduce: int, three: int, five_reduce: int, five: int, pool: int) -> None:
        self.one = nn.Sequential(*conv_norm(one, 1))
        self.three = nn.Sequential(*conv_norm(three_reduce, 1), *conv_norm(three, 3))
        self.five = nn.Sequential(*conv_norm(five_reduce, 1), *conv_norm(five, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *conv_norm(pool, 1))

    def forward(self, x: Tensor) -> Any:
        return ops.concat([self.one(x), self.three(x), self.five(x), self.pool(x)])


def googlenet(classes: int = 1000, *, dropout: float = 0.4, pixels: Pixels | None = None) -> nn.Sequential:
    """GoogLeNet with batch normalisation after every convolution in place of biases and response normalisation; one output, at the end.

    For 224 x 224 pictures: 7,005,832 parameters for 1000 classes, 1.58 G multiply-adds. The paper's net without its auxiliary
    classifiers has 6,998,552 with 7,280 biases in its convolutions; batch normalisation has two parameters in place of each.

    >>> from wiesel.summary import summarize
    >>> summarize(googlenet(), (224, 224, 3)).parameters
    7005832
    """
    layers = [*conv_norm(64, 7, stride=2), _halve(), *conv_norm(64, 1), *conv_norm(192, 3)]
    for stage in _STAGES:
        layers += [_halve(), *(Inception(*filters) for filters in stage)]
    classifier = nn.Sequential(*([nn.Dropout(dropout)] if dropout else []), nn.Linear(classes))
    return assemble(nn.Sequential(*layers, nn.GlobalAvgPool2d()), classifier, pixels)


def _halve() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, padding="same")
