"""Loss curves: with the default algorithms training follows the direct, reference-checked one as closely as rounding lets it."""

from __future__ import annotations

import os

import numpy as np
import pytest

import wiesel as wl
from bench_modules import load
from wiesel import data, models, nn

curves = load("curves")


def plain() -> nn.Module:
    """For 8 x 8 pictures; Winograd's transforms pay in its middle convolutions."""
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Conv2d(48, 3, padding=1, bias=False), nn.BatchNorm2d(), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(10))


def algorithms(net: nn.Module, *shape: int) -> set[str]:
    return {step["algorithm"] for step in wl.explain(net, shape, training=True).steps if step["opcode"].startswith("conv_")}


def test_direct_is_asked_of_every_convolution() -> None:
    net = plain().build((8, 8, 1), seed=0)
    assert "winograd4" in algorithms(net, 8, 8, 8, 1)
    assert algorithms(curves.make_direct(net), 8, 8, 8, 1) == {"direct"}
    separable = models.create("mobilenet-v1", classes=2).build((32, 32, 3), seed=0)
    assert algorithms(curves.make_direct(separable), 2, 32, 32, 3) == {"direct", "depthwise"}, "which is direct too"


def test_neighbours_differ_by_one_rounding_error() -> None:
    net = plain().build((8, 8, 1), seed=0)
    before = {name: p.value.copy() for name, p in net.parameters().items()}
    curves.nudge(net, 0)
    for name, p in net.parameters().items():
        apart = np.abs(p.value.astype(np.float64) - before[name])
        assert np.all(apart <= 2.0**-23 * np.abs(before[name]))
    assert any(np.any(p.value != before[name]) for name, p in net.parameters().items())


def test_a_curve_beside_the_noise_is_noticed() -> None:
    direct = np.linspace(2.0, 1.0, 200)
    neighbours = direct + 1e-4 * np.random.default_rng(0).standard_normal((3, 200))
    assert curves.Curves("", direct + 1e-4, direct, neighbours).within
    assert not curves.Curves("", direct + 1e-3, direct, neighbours).within


def test_200_steps_on_digits_follow_the_direct_curve() -> None:
    pytest.importorskip("sklearn")
    found = data.digits()
    x, y = found.x[:800].astype(np.float32) / 127.5 - 1, found.y[:800].astype(np.int32)
    # Near step 66 a maximum or a ReLU of this net is at a tie: half of the neighbours go one way, half the other.
    result = curves.compare("plain", plain, x, y, batch=8, steps=200, lr=0.001, neighbours=6)
    assert not np.array_equal(result.default, result.direct), "the algorithms differ"
    assert result.direct[-20:].mean() < 0.5 * result.direct[:5].mean(), "it learns"
    assert result.within, f"apart {result.distance:.2e}, rounding alone {result.noise:.2e}"


@pytest.mark.slow
@pytest.mark.skipif("WIESEL_DATA" not in os.environ, reason="set WIESEL_DATA to the folder with the published files")
@pytest.mark.parametrize("name", ["lenet5", "mnist", "resnet18-32"])
def test_200_steps_on_real_data_follow_the_direct_curve(name: str) -> None:
    case = next(case for case in curves.CASES if case.name == name)
    result = curves.curves_of(case, data.default_folder(), 200)
    assert result.within, f"apart {result.distance:.2e}, rounding alone {result.noise:.2e}"
