"""LeNet-5 (LeCun, Bottou, Bengio, Haffner: "Gradient-based learning applied to document recognition", Proc. IEEE 86, 1998)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wiesel import nn, ops
from wiesel.models.common import Pixels, assemble
from wiesel.nn import init

if TYPE_CHECKING:
    from wiesel.graph.tensor import Tensor

# Table I of the paper: which of the six maps of S2 each of the sixteen maps of C3 sees.
_C3_SEES = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)  # fmt: skip


def lenet5(classes: int = 10, *, padding: int = 0, pixels: Pixels | None = None) -> nn.Sequential:
    """LeNet-5 as it is used today: ReLU, max pooling, all maps connected. 61,706 parameters for 10 classes.

    For 32 x 32 pictures (0.417 M multiply-adds); ``padding=2`` for the 28 x 28 of MNIST. With ``pixels=(mean, std)`` the net takes
    uint8 pictures, see ``common.assemble``.

    >>> lenet5().build((32, 32, 1)).parameter_count
    61706
    """
    features = nn.Sequential(
        nn.Conv2d(6, 5, padding=padding, activation="relu"),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 5, activation="relu"),
        nn.MaxPool2d(2),
    )
    classifier = nn.Sequential(
        nn.Flatten(),
        nn.Linear(120, activation="relu"),
        nn.Linear(84, activation="relu"),
        nn.Linear(classes),
    )
    return assemble(features, classifier, pixels)


def lenet5_1998(classes: int = 10, *, padding: int = 0, pixels: Pixels | None = None) -> nn.Sequential:
    """LeNet-5 as published: trainable average subsampling, 1.7159 tanh(2x/3), C3 connected by the paper's table.

    The output layer is linear, for cross-entropy; the paper's are Euclidean distances to drawn digits.
    """
    features = nn.Sequential(
        c1=nn.Conv2d(6, 5, padding=padding),
        s2=Subsample(),
        c3=TableConv(_C3_SEES, 5),
        s4=Subsample(),
        c5=nn.Conv2d(120, 5),
        a5=ScaledTanh(),
    )
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(84), ScaledTanh(), nn.Linear(classes))
    return assemble(features, classifier, pixels)


class ScaledTanh(nn.Module):
    """y = 1.7159 tanh(2x/3), the paper's squashing function (appendix A)."""

    def forward(self, x: Tensor) -> Any:
        return ops.tanh(x * (2.0 / 3.0)) * 1.7159


class Subsample(nn.Module):
    """2 x 2 average pooling, times a trainable weight, plus a trainable bias, per map; then the squashing function."""

    def __init__(self) -> None:
        self.pool = nn.AvgPool2d(2)
        self.squash = ScaledTanh()

    def forward(self, x: Tensor) -> Any:
        channels = x.shape[-1]
        weight = self.parameter("weight", (channels,), init.constant(1.0))
        bias = self.parameter("bias", (channels,), init.constant(0.0))
        return self.squash(self.pool(x) * weight + bias)


class TableConv(nn.Module):
    """A convolution whose output map j sees the input maps ``sees[j]`` only: the weights of all others are held at zero by a mask."""

    def __init__(self, sees: tuple[tuple[int, ...], ...], kernel_size: int) -> None:
        self.sees = sees
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Any:
        k, ic, oc = self.kernel_size, x.shape[-1], len(self.sees)
        mask = np.zeros((1, 1, ic, oc), np.float32)
        for j, maps in enumerate(self.sees):
            mask[0, 0, list(maps), j] = 1.0
        fan_in = k * k * round(float(mask.sum()) / oc)
        weight = self.parameter("weight", (k, k, ic, oc), init.he_normal(fan_in, 1.0))
        bias = self.parameter("bias", (oc,), init.constant(0.0))
        return ops.conv2d(x, weight * mask, bias)
