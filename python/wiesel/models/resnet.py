"""Residual nets for 32 x 32 pictures (He, Zhang, Ren, Sun: "Deep residual learning for image recognition", arXiv:1512.03385)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wiesel import nn, ops
from wiesel.models.common import Pixels, assemble, conv_norm

if TYPE_CHECKING:
    from wiesel.graph.tensor import Tensor


class BasicBlock(nn.Module):
    """y = relu(F(x) + S(x)): F is two normalised 3 x 3 convolutions; S is a normalised 1 x 1 convolution where ``project``, else x."""

    def __init__(self, channels: int, stride: int = 1, project: bool = False) -> None:
        self.channels = channels
        self.stride = stride
        self.conv1 = nn.Conv2d(channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d()
        self.conv2 = nn.Conv2d(channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d()
        self.shortcut = nn.Sequential(*conv_norm(channels, 1, stride=stride, relu=False)) if project else None

    def forward(self, x: Tensor) -> Any:
        y = self.bn2(self.conv2(ops.relu(self.bn1(self.conv1(x)))))
        return ops.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def resnet(blocks: Sequence[int], widths: Sequence[int], classes: int = 10, *, pixels: Pixels | None = None) -> nn.Sequential:
    """A 3 x 3 stem, then stages of ``blocks[i]`` basic blocks with ``widths[i]`` channels, each stage but the first at half the size."""
    stages: list[nn.Module] = []
    channels = widths[0]
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        for i in range(count):
            stride = 2 if stage and i == 0 else 1
            stages.append(BasicBlock(width, stride, project=stride != 1 or width != channels))
            channels = width
    features = nn.Sequential(*conv_norm(widths[0]), *stages, nn.GlobalAvgPool2d())
    return assemble(features, nn.Sequential(nn.Flatten(), nn.Linear(classes)), pixels)


def resnet18_32(classes: int = 10, *, pixels: Pixels | None = None) -> nn.Sequential:
    """ResNet-18 with a 3 x 3 stem for 32 x 32 pictures: 11.2 M parameters, 0.56 G multiply-adds."""
    return resnet((2, 2, 2, 2), (64, 128, 256, 512), classes, pixels=pixels)


def resnet20(classes: int = 10, *, pixels: Pixels | None = None) -> nn.Sequential:
    """The paper's 20-layer net for CIFAR-10, with projections where the shape changes: 0.27 M parameters, 41 M multiply-adds."""
    return resnet((3, 3, 3), (16, 32, 64), classes, pixels=pixels)


def resnet14(classes: int = 10, *, pixels: Pixels | None = None) -> nn.Sequential:
    """Two blocks a stage: 0.18 M parameters, 27 M multiply-adds."""
    return resnet((2, 2, 2), (16, 32, 64), classes, pixels=pixels)
