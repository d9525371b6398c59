"""Residual nets (He, Zhang, Ren, Sun: "Deep residual learning for image recognition", arXiv:1512.03385)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wiesel import nn, ops
from wiesel.models.common import Pixels, assemble, conv_norm

if TYPE_CHECKING:
    from wiesel.graph.tensor import Tensor

_EXPANSION = 4  # channels out of a bottleneck block over those inside


class ResidualBlock(nn.Module):
    """y = relu(F(x) + S(x)): S is a normalised 1 x 1 convolution where ``project``, else x; F depends on ``bottleneck``.

    Plain, F is two normalised 3 x 3 convolutions of ``channels`` filters. As a bottleneck it goes through a quarter of the channels:
    1 x 1, 3 x 3, 1 x 1, each normalised. The 3 x 3 convolution has the stride (the paper's bottleneck strides in its first 1 x 1,
    which looks at a quarter of the pixels only; every framework's has moved it).
    """

    def __init__(self, channels: int, stride: int = 1, project: bool = False, bottleneck: bool = False) -> None:
        self.channels = channels
        self.stride = stride
        self.bottleneck = bottleneck
        inner = channels // _EXPANSION if bottleneck else channels
        shapes = [(inner, 1, 1), (inner, 3, stride), (channels, 1, 1)] if bottleneck else [(inner, 3, stride), (channels, 3, 1)]
        for i, (filters, kernel, step) in enumerate(shapes, 1):
            setattr(self, f"conv{i}", nn.Conv2d(filters, kernel, stride=step, padding=kernel // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d())
        self.shortcut = nn.Sequential(*conv_norm(channels, 1, stride=stride, activation=None)) if project else None

    def forward(self, x: Tensor) -> Any:
        y = self.bn2(self.conv2(ops.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            y = self.bn3(self.conv3(ops.relu(y)))
        return ops.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def resnet(
    blocks: Sequence[int],
    widths: Sequence[int],
    classes: int = 10,
    *,
    bottleneck: bool = False,
    stem: Sequence[nn.Module] | None = None,
    pixels: Pixels | None = None,
) -> nn.Sequential:
    """A stem (by default a normalised 3 x 3 convolution of ``widths[0]`` filters), then stages of ``blocks[i]`` blocks.

    The 3 x 3 convolutions of stage i have ``widths[i]`` filters; a stage gives as many channels, with ``bottleneck`` four times as
    many. Each stage but the first halves the size.
    """
    stages: list[nn.Module] = []
    before = widths[0]
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        channels = _EXPANSION * width if bottleneck else width
        for i in range(count):
            stride = 2 if stage and i == 0 else 1
            stages.append(ResidualBlock(channels, stride, project=stride != 1 or channels != before, bottleneck=bottleneck))
            before = channels
    entrance = conv_norm(widths[0]) if stem is None else stem
    features = nn.Sequential(*entrance, *stages, nn.GlobalAvgPool2d())
    return assemble(features, nn.Sequential(nn.Flatten(), nn.Linear(classes)), pixels)


def resnet18(classes: int = 1000, *, pixels: Pixels | None = None) -> nn.Sequential:
    """ResNet-18 for 224 x 224 pictures: 11,689,512 parameters for 1000 classes, 1.81 G multiply-adds.

    >>> from wiesel.summary import summarize
    >>> summarize(resnet18(), (224, 224, 3)).parameters
    11689512
    """
    return resnet((2, 2, 2, 2), (64, 128, 256, 512), classes, stem=_large_stem(), pixels=pixels)


def resnet50(classes: int = 1000, *, pixels: Pixels | None = None) -> nn.Sequential:
    """ResNet-50 for 224 x 224 pictures: 25,557,032 parameters for 1000 classes, 4.09 G multiply-adds.

    >>> from wiesel.summary import summarize
    >>> summarize(resnet50(), (224, 224, 3)).parameters
    25557032
    """
    return resnet((3, 4, 6, 3), (64, 128, 256, 512), classes, bottleneck=True, stem=_large_stem(), pixels=pixels)


def resnet18_32(classes: int = 10, *, pixels: Pixels | None = None) -> nn.Sequential:
    """ResNet-18 with a 3 x 3 stem for 32 x 32 pictures: 11.2 M parameters, 0.56 G multiply-adds."""
    return resnet((2, 2, 2, 2), (64, 128, 256, 512), classes, pixels=pixels)


def resnet20(classes: int = 10, *, pixels: Pixels | None = None) -> nn.Sequential:
    """The paper's 20-layer net for CIFAR-10, with projections where the shape changes: 0.27 M parameters, 41 M multiply-adds."""
    return resnet((3, 3, 3), (16, 32, 64), classes, pixels=pixels)


def resnet14(classes: int = 10, *, pixels: Pixels | None = None) -> nn.Sequential:
    """Two blocks a stage: 0.18 M parameters, 27 M multiply-adds."""
    return resnet((2, 2, 2), (16, 32, 64), classes, pixels=pixels)


def _large_stem() -> list[nn.Module]:
    """A 7 x 7 convolution and pooling: to a quarter of the size."""
    return [*conv_norm(64, 7, stride=2), nn.MaxPool2d(3, stride=2, padding=1)]
