"""The benchmark's nets in PyTorch: the same layers, in the same order, as wiesel.models has them, without dropout.

Activations work in place where torchvision's do, which is PyTorch at its fastest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


def relu() -> nn.Module:
    return nn.ReLU(inplace=True)


def relu6() -> nn.Module:
    return nn.ReLU6(inplace=True)


def conv_norm(
    ic: int, oc: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, activation: Callable[[], nn.Module] | None = relu
) -> list[nn.Module]:
    """Convolution without bias ("same" size at stride 1), batch normalisation, activation."""
    convolution = nn.Conv2d(ic, oc, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(oc), *([activation()] if activation else [])]


def dense(features: int, hidden: tuple[int, ...], classes: int) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Flatten()]
    for units in hidden:
        layers += [nn.Linear(features, units), relu()]
        features = units
    return [*layers, nn.Linear(features, classes)]


def averaged(channels: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


# --- small pictures ------------------------------------------------------------------------------------------------------------------


def lenet5() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), relu(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), relu(), nn.MaxPool2d(2),
        *dense(400, (120, 84), 10),
    )  # fmt: skip


def mnist() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 32, 3), relu(), nn.Conv2d(32, 64, 3), relu(), nn.MaxPool2d(2), *dense(9216, (128,), 10))


def fashion() -> nn.Module:
    layers: list[nn.Module] = []
    for ic, oc in ((1, 32), (32, 64), (64, 128)):
        layers += [*conv_norm(ic, oc), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, *dense(3 * 3 * 128, (), 10))


def sixconv() -> nn.Module:
    layers: list[nn.Module] = []
    ic = 3
    for oc in (32, 64, 128):
        layers += [*conv_norm(ic, oc), *conv_norm(oc, oc), nn.MaxPool2d(2)]
        ic = oc
    return nn.Sequential(*layers, *averaged(128, 2))


# --- residual nets -------------------------------------------------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """He et al. 2015, with a 1x1 convolution where the shape changes (option B); the stride is in the 3x3 convolution."""

    def __init__(self, ic: int, oc: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        inner = oc // 4 if bottleneck else oc
        shapes = [(inner, 1, 1), (inner, 3, stride), (oc, 1, 1)] if bottleneck else [(inner, 3, stride), (oc, 3, 1)]
        layers: list[nn.Module] = []
        channels = ic
        for filters, kernel, step in shapes:
            layers += conv_norm(channels, filters, kernel, stride=step)
            channels = filters
        self.body = nn.Sequential(*layers[:-1])
        self.relu = relu()
        self.shortcut = None
        if stride != 1 or ic != oc:
            self.shortcut = nn.Sequential(*conv_norm(ic, oc, 1, stride=stride, activation=None))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y += x if self.shortcut is None else self.shortcut(x)
        return self.relu(y)


def resnet(blocks: tuple[int, ...], widths: tuple[int, ...], classes: int, *, bottleneck: bool = False, large: bool = False) -> nn.Module:
    ic = widths[0]
    layers = [*conv_norm(3, ic, 7, stride=2), nn.MaxPool2d(3, stride=2, padding=1)] if large else conv_norm(3, ic)
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        oc = 4 * width if bottleneck else width
        for i in range(count):
            layers.append(ResidualBlock(ic, oc, 2 if stage and i == 0 else 1, bottleneck))
            ic = oc
    return nn.Sequential(*layers, *averaged(ic, classes))


# --- ImageNet ------------------------------------------------------------------------------------------------------------------------


def alexnet() -> nn.Module:
    def normalise() -> nn.Module:
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    return nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4, padding=2), relu(), normalise(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), relu(), normalise(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(256, 384, 3, padding=1), relu(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), relu(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), relu(), nn.MaxPool2d(3, stride=2),
        *dense(9216, (4096, 4096), 1000),
    )  # fmt: skip


def vgg16() -> nn.Module:
    layers: list[nn.Module] = []
    ic = 3
    for count, oc in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(count):
            layers += [nn.Conv2d(ic, oc, 3, padding=1), relu()]
            ic = oc
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, *dense(25088, (4096, 4096), 1000))


class Inception(nn.Module):
    """Four branches, joined along the channels."""

    def __init__(self, ic: int, one: int, three_reduce: int, three: int, five_reduce: int, five: int, pool: int) -> None:
        super().__init__()
        self.one = nn.Sequential(*conv_norm(ic, one, 1))
        self.three = nn.Sequential(*conv_norm(ic, three_reduce, 1), *conv_norm(three_reduce, three, 3))
        self.five = nn.Sequential(*conv_norm(ic, five_reduce, 1), *conv_norm(five_reduce, five, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *conv_norm(ic, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


def googlenet() -> nn.Module:
    stages = (
        ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
        (
            (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64),
            (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128),
        ),
        ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
    )  # fmt: skip

    def halve() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    layers = [*conv_norm(3, 64, 7, stride=2), halve(), *conv_norm(64, 64, 1), *conv_norm(64, 192, 3)]
    ic = 192
    for stage in stages:
        layers.append(halve())
        for filters in stage:
            layers.append(Inception(ic, *filters))
            one, _, three, _, five, pool = filters
            ic = one + three + five + pool
    return nn.Sequential(*layers, *averaged(ic, 1000))


def mobilenet_v1() -> nn.Module:
    layers = conv_norm(3, 32, stride=2)
    ic = 32
    for oc, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1)):
        layers += [*conv_norm(ic, ic, stride=stride, groups=ic), *conv_norm(ic, oc, 1)]
        ic = oc
    return nn.Sequential(*layers, *averaged(ic, 1000))


class InvertedResidual(nn.Module):
    def __init__(self, ic: int, oc: int, expansion: int, stride: int, residual: bool) -> None:
        super().__init__()
        inner = expansion * ic
        expand = conv_norm(ic, inner, 1, activation=relu6) if expansion != 1 else []
        filters = conv_norm(inner, inner, stride=stride, groups=inner, activation=relu6)
        self.residual = residual
        self.body = nn.Sequential(*expand, *filters, *conv_norm(inner, oc, 1, activation=None))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def mobilenet_v2() -> nn.Module:
    layers = conv_norm(3, 32, stride=2, activation=relu6)
    ic = 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, oc, count, first in stages:
        for i in range(count):
            layers.append(InvertedResidual(ic, oc, expansion, 1 if i else first, i > 0))
            ic = oc
    return nn.Sequential(*layers, *conv_norm(ic, 1280, 1, activation=relu6), *averaged(1280, 1000))


NETS: dict[str, Callable[[], nn.Module]] = {
    "alexnet": alexnet,
    "fashion": fashion,
    "googlenet": googlenet,
    "lenet5": lenet5,
    "mnist": mnist,
    "mobilenet-v1": mobilenet_v1,
    "mobilenet-v2": mobilenet_v2,
    "resnet14": lambda: resnet((2, 2, 2), (16, 32, 64), 10),
    "resnet18": lambda: resnet((2, 2, 2, 2), (64, 128, 256, 512), 1000, large=True),
    "resnet18-32": lambda: resnet((2, 2, 2, 2), (64, 128, 256, 512), 10),
    "resnet50": lambda: resnet((3, 4, 6, 3), (64, 128, 256, 512), 1000, bottleneck=True, large=True),
    "sixconv": sixconv,
    "vgg16": vgg16,
}


# --- the same weights ----------------------------------------------------------------------------------------------------------------


class Pixels(nn.Module):
    """Bytes to floats of mean 0 and deviation 1, with wiesel_nets.PIXELS."""

    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.float32).mul_(1 / (255 * 0.25)).sub_(0.5 / 0.25)


def build(net: str, x: Tensor, weights: str | None) -> nn.Module:
    """The net for pictures like ``x`` (n, c, h, w), with the weights of an .npz that wiesel_nets.build has written."""
    model = nn.Sequential(Pixels(), NETS[net]()) if x.dtype == torch.uint8 else NETS[net]()
    if weights is not None:
        load_weights(model, weights, x)
    return model


def load_weights(model: nn.Module, path: str, x: Tensor) -> None:
    """Copies the arrays of an .npz (p0, p1, ... in the order of the layers, wiesel's layouts) into ``model``'s parameters."""
    flattened: dict[int, tuple[int, ...]] = {}

    def remember(module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        flattened[id(module)] = tuple(inputs[0].shape[1:])

    hooks = [m.register_forward_hook(remember) for m in model.modules() if isinstance(m, nn.Flatten)]
    with torch.no_grad():
        model.eval()(x[:1])
    for hook in hooks:
        hook.remove()
    with np.load(path) as file:
        arrays = iter([torch.from_numpy(file[f"p{i}"]) for i in range(len(file.files))])
    before: tuple[int, ...] | None = None  # what the last Flatten flattened
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Flatten):
                before = flattened[id(module)]
            for name, parameter in module.named_parameters(recurse=False):
                array = next(arrays)
                if isinstance(module, nn.Conv2d) and name == "weight":
                    array = array.permute(3, 2, 0, 1)  # kh kw ic oc -> oc ic kh kw
                elif isinstance(module, nn.Linear) and name == "weight":
                    array = array.T  # in out -> out in
                    if before is not None:
                        c, h, w = before
                        array = array.reshape(-1, h, w, c).permute(0, 3, 1, 2).reshape(-1, c * h * w)
                        before = None
                if array.shape != parameter.shape:
                    raise ValueError(f"{module}.{name} has shape {tuple(parameter.shape)}, the weights have {tuple(array.shape)}")
                parameter.copy_(array)
    if next(arrays, None) is not None:
        raise ValueError("the weights have more arrays than the net has parameters")
