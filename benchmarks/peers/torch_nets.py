"""The benchmark's nets in PyTorch: the same layers, in the same order, as wiesel.models has them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def lenet5() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def mnist() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def sixconv() -> nn.Module:
    layers: list[nn.Module] = []
    ic = 3
    for oc in (32, 64, 128):
        for _ in range(2):
            layers += [nn.Conv2d(ic, oc, 3, padding=1, bias=False), nn.BatchNorm2d(oc), nn.ReLU()]
            ic = oc
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 2))


class BasicBlock(nn.Module):
    """He et al. 2015, with a 1x1 convolution where the shape changes (option B)."""

    def __init__(self, ic: int, oc: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(ic, oc, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(oc)
        self.conv2 = nn.Conv2d(oc, oc, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(oc)
        self.relu = nn.ReLU()
        self.shortcut = None
        if stride != 1 or ic != oc:
            self.shortcut = nn.Sequential(nn.Conv2d(ic, oc, 1, stride=stride, bias=False), nn.BatchNorm2d(oc))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def resnet18_32() -> nn.Module:
    blocks: list[nn.Module] = []
    ic = 64
    for oc, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [BasicBlock(ic, oc, stride), BasicBlock(oc, oc, 1)]
        ic = oc
    stem = (nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


NETS: dict[str, Callable[[], nn.Module]] = {"lenet5": lenet5, "mnist": mnist, "sixconv": sixconv, "resnet18-32": resnet18_32}
