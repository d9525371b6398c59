"""The models: sizes, shapes, structure."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import numpy as np
import pytest

import wiesel as wl
from wiesel import models, nn
from wiesel.models.lenet import TableConv
from wiesel.summary import summarize

CASES: list[tuple[str, tuple[int, int, int], int, dict[str, Any]]] = [
    ("lenet5", (32, 32, 1), 61706, {}),
    ("lenet5", (28, 28, 1), 61706, {"padding": 2}),
    ("lenet5-1998", (32, 32, 1), 61750, {}),
    ("digits", (8, 8, 1), 0, {}),
    ("mnist", (28, 28, 1), 1199882, {}),
    ("fashion", (28, 28, 1), 0, {}),
    ("sixconv", (64, 64, 3), 287714, {}),
    ("resnet14", (32, 32, 3), 175258, {}),
    ("resnet20", (32, 32, 3), 272474, {}),
    ("resnet18-32", (32, 32, 3), 11173962, {}),
]
# For 224 x 224 pictures and 1000 classes: parameters, millions of multiply-adds, and a smaller size at which the net runs.
LARGE: dict[str, tuple[int, int, int]] = {
    "alexnet": (60965224, 724, 0),  # the derivation is in its docstring
    "vgg16": (138357544, 15470, 0),  # as torchvision's
    "googlenet": (6624904 + 16 * 23808, 1583, 64),  # torchvision's has 3 x 3 where the paper's table has 5 x 5
    "resnet18": (11689512, 1814, 64),  # as torchvision's
    "resnet50": (25557032, 4089, 64),  # as torchvision's
    "mobilenet-v1": (864 + 9 * 4960 + 3139584 + 2 * 10944 + 1025000, 569, 64),
    "mobilenet-v2": (3504872, 301, 64),  # as torchvision's
}


@pytest.mark.parametrize(("name", "shape", "parameters", "options"), CASES)
def test_models_build_and_run(name: str, shape: tuple[int, int, int], parameters: int, options: dict[str, Any]) -> None:
    net = models.create(name, **options).build(shape, seed=0)
    if parameters:
        assert net.parameter_count == parameters
    x = np.random.default_rng(0).standard_normal((3, *shape), dtype=np.float32)
    y = net(x)
    assert y.shape == (3, 2 if name == "sixconv" else 10)
    assert np.isfinite(y).all()
    assert {"features", "classifier"} <= net.children().keys()


def test_every_name_is_covered() -> None:
    assert {case[0] for case in CASES} | LARGE.keys() == set(models.names())


@pytest.fixture
def zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights without random numbers: a net of a hundred million is built at once."""
    monkeypatch.setattr("wiesel.random.fill", lambda _kind, shape, **_key: np.zeros(shape, np.float32))


@pytest.mark.parametrize("name", LARGE)
def test_large_models_have_the_published_size_and_plan_training(name: str, zeros: None) -> None:
    parameters, macs, _ = LARGE[name]
    net = models.create(name)
    summary = summarize(net, (224, 224, 3))
    assert summary.parameters == parameters
    assert round(summary.macs / 1e6) == macs
    plan = wl.plan(net, (2, 224, 224, 3), training=True)
    assert plan.optimizer >= 4 * parameters
    assert plan.optimizer >= plan.gradients  # those of large dense weights are not written
    assert {"features", "classifier"} <= net.children().keys()


@pytest.mark.parametrize("name", [name for name, (_, _, size) in LARGE.items() if size])
def test_large_models_run_on_small_pictures(name: str) -> None:
    size = LARGE[name][2]
    net = models.create(name, classes=7).build((size, size, 3), seed=0)
    x = np.random.default_rng(0).standard_normal((2, size, size, 3), dtype=np.float32)
    before = net(x)
    assert before.shape == (2, 7)
    assert np.isfinite(before).all()
    loss = wl.Trainer(net, optimizer=wl.optim.SGD(0.01), seed=0).step(x, np.array([0, 6]))
    assert np.isfinite(loss)
    assert not np.array_equal(net(x), before)


@pytest.mark.parametrize("module", ["", ".alexnet", ".googlenet", ".lenet", ".mobilenet", ".resnet", ".vgg"])
def test_examples_of_the_models(module: str, zeros: None) -> None:
    found = doctest.testmod(importlib.import_module(f"wiesel.models{module}"))
    assert found.attempted > 0
    assert found.failed == 0


def test_s109_lenet5_has_61706_parameters_and_417_thousand_multiply_adds() -> None:
    summary = summarize(models.lenet5(), (32, 32, 1))
    assert summary.parameters == 61706
    assert summary.macs == 416520


def test_s109_the_1998_variant_has_trainable_subsampling_and_the_connection_table() -> None:
    net = models.lenet5_1998().build((32, 32, 1), seed=0)
    shapes = {name: p.shape for name, p in net.parameters().items()}
    assert shapes["features.s2.weight"] == shapes["features.s2.bias"] == (6,)
    assert shapes["features.s4.weight"] == (16,)
    c3 = net.features.c3
    assert isinstance(c3, TableConv)
    assert sum(len(maps) for maps in c3.sees) == 60
    assert 25 * 60 + 16 == 1516  # the paper's count of C3
    assert 156 + 12 + 1516 + 32 + 48120 + 10164 == 60000  # the paper's trainable parameters, C1 to F6


def test_s109_unconnected_maps_have_no_influence_and_are_not_trained() -> None:
    table = ((0, 1), (1, 2), (0, 2))
    net = nn.Sequential(conv=TableConv(table, 3), head=nn.Sequential(nn.Flatten(), nn.Linear(2))).build((5, 5, 3), seed=0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5, 5, 3), dtype=np.float32)
    before = net.run(x, fetch="conv")["conv"]
    x[..., 2] += 1
    after = net.run(x, fetch="conv")["conv"]
    assert np.array_equal(before[..., 0], after[..., 0])
    assert not np.array_equal(before[..., 1], after[..., 1])
    weight = np.array(net.conv.weight)
    wl.Trainer(net, optimizer=wl.optim.SGD(0.5)).step(x, np.array([0, 1, 0, 1]))
    changed = (np.array(net.conv.weight) != weight).any(axis=(0, 1))
    assert changed.tolist() == [[True, False, True], [True, True, False], [False, True, True]]


def test_s04_pixels_make_a_net_that_takes_bytes() -> None:
    net = models.create("digits", pixels=((0.3,), (0.4,)))
    x = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
    plain = models.create("digits").build((8, 8, 1), seed=0)
    net.build((8, 8, 1), seed=0)
    net.load_state_dict(plain.state_dict())
    assert net(x) == pytest.approx(plain(((x / 255 - 0.3) / 0.4).astype(np.float32)), abs=1e-4)


def test_classes_and_unknown_names() -> None:
    assert models.create("resnet14", classes=7).build((32, 32, 3))(np.zeros((1, 32, 32, 3))).shape == (1, 7)
    with pytest.raises(ValueError, match=r"no model named 'vgg'; known: .*lenet5"):
        models.create("vgg")
