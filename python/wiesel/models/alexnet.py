"""AlexNet (Krizhevsky, Sutskever, Hinton: "ImageNet classification with deep convolutional neural networks", NIPS 2012)."""

from __future__ import annotations

from wiesel import nn
from wiesel.models.common import Pixels, assemble, dense


def alexnet(classes: int = 1000, *, dropout: float = 0.5, pixels: Pixels | None = None) -> nn.Sequential:
    """AlexNet as published: the second, fourth and fifth convolution in two groups, local response normalisation, overlapping pooling.

    For 224 x 224 pictures, padded by 2 so that the first convolution gives the paper's 55 x 55 maps. 60,965,224 parameters for
    1000 classes: weights and biases of the convolutions 34,944 + 307,456 + 885,120 + 663,936 + 442,624, of the dense layers
    37,752,832 + 16,781,312 + 4,097,000. 0.72 G multiply-adds. The paper's normalisation adds alpha times the sum of squares over
    5 channels; ``nn.LocalResponseNorm`` takes 5 alpha, as torch does.

    >>> from wiesel.summary import summarize
    >>> summarize(alexnet(), (224, 224, 3)).parameters
    60965224
    """

    def normalise() -> nn.Module:
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    features = nn.Sequential(
        nn.Conv2d(96, 11, stride=4, padding=2, activation="relu"),
        normalise(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(256, 5, padding=2, groups=2, activation="relu"),
        normalise(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(384, 3, padding=1, activation="relu"),
        nn.Conv2d(384, 3, padding=1, groups=2, activation="relu"),
        nn.Conv2d(256, 3, padding=1, groups=2, activation="relu"),
        nn.MaxPool2d(3, stride=2),
    )
    return assemble(features, dense((4096, 4096), classes, dropout), pixels)
