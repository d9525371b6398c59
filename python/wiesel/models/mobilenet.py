"""MobileNets: nets of depthwise and 1 x 1 convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wiesel import nn
from wiesel.models.common import Pixels, assemble, conv_norm, depthwise_norm

if TYPE_CHECKING:
    from wiesel.graph.tensor import Tensor


def mobilenet_v1(classes: int = 1000, *, pixels: Pixels | None = None) -> nn.Sequential:
    """MobileNet v1 at full width (Howard et al.: "MobileNets", arXiv:1704.04861): thirteen pairs of depthwise and 1 x 1 convolution.

    For 224 x 224 pictures: 4,231,976 parameters for 1000 classes, 0.57 G multiply-adds. Of the parameters 864 are the first
    convolution's, 44,640 = 9 · 4,960 and 3,139,584 those of the depthwise and the 1 x 1 convolutions, 21,888 = 2 · 10,944 those of
    the normalisations, 1,025,000 the classifier's.

    >>> from wiesel.summary import summarize
    >>> summarize(mobilenet_v1(), (224, 224, 3)).parameters
    4231976
    """
    layers = conv_norm(32, stride=2)
    stages = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
    for channels, stride in stages:
        layers += [*depthwise_norm(stride=stride), *conv_norm(channels, 1)]
    return assemble(nn.Sequential(*layers, nn.GlobalAvgPool2d()), nn.Sequential(nn.Linear(classes)), pixels)


class InvertedResidual(nn.Module):
    """Expand by 1 x 1, filter each channel, project by 1 x 1 without activation; x is added where ``residual``."""

    def __init__(self, channels: int, expanded: int | None, *, stride: int = 1, residual: bool = False) -> None:
        expand = [] if expanded is None else conv_norm(expanded, 1, activation=nn.ReLU6)
        filters = depthwise_norm(stride=stride, activation=nn.ReLU6)
        self.residual = residual
        self.body = nn.Sequential(*expand, *filters, *conv_norm(channels, 1, activation=None))

    def forward(self, x: Tensor) -> Any:
        y = self.body(x)
        return x + y if self.residual else y


def mobilenet_v2(classes: int = 1000, *, dropout: float = 0.2, pixels: Pixels | None = None) -> nn.Sequential:
    """MobileNet v2 at full width (Sandler et al.: "Inverted residuals and linear bottlenecks", arXiv:1801.04381), with ReLU6.

    For 224 x 224 pictures: 3,504,872 parameters for 1000 classes, 0.30 G multiply-adds.

    >>> from wiesel.summary import summarize
    >>> summarize(mobilenet_v2(), (224, 224, 3)).parameters
    3504872
    """
    layers = conv_norm(32, stride=2, activation=nn.ReLU6)
    before = 32
    # expansion, channels, blocks, stride of the first: table 2 of the paper
    for expansion, channels, count, first in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for i in range(count):
            expanded = None if expansion == 1 else expansion * before
            layers.append(InvertedResidual(channels, expanded, stride=1 if i else first, residual=i > 0))
            before = channels
    layers += [*conv_norm(1280, 1, activation=nn.ReLU6), nn.GlobalAvgPool2d()]
    classifier = nn.Sequential(*([nn.Dropout(dropout)] if dropout else []), nn.Linear(classes))
    return assemble(nn.Sequential(*layers), classifier, pixels)
