"""Predicted times (S-37): shares of a made-up machine, so that nothing here depends on a clock."""

from __future__ import annotations

from typing import Any

import pytest

import wiesel as wl
from wiesel import nn, predict, probe
from wiesel.probe import Machine

MACHINE = Machine("avx512", 2, 300e9, 260e9, 16e9, 15e9, ((1 << 16, 120e9), (1 << 22, 40e9), (1 << 28, 15e9)))


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_measure", lambda isa, threads: MACHINE)


def net(filters: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(filters, 3, activation="relu"), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(10))


def test_s37_more_filters_take_longer(made_up: None) -> None:
    """S-37: plan() predicts the step time; more filters, more time."""
    times = [wl.plan(net(filters), (32, 64, 64, 3), training=True).seconds for filters in (8, 16, 32, 64)]
    assert times == sorted(times)
    assert times[3] > 2 * times[0]
    inference = wl.plan(net(64), (32, 64, 64, 3)).seconds
    assert inference < times[3]


def test_planning_alone_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(isa: str, threads: int) -> Machine:
        raise AssertionError("measured")

    monkeypatch.setattr(probe, "_measure", never)
    plan = wl.plan(net(8), (4, 16, 16, 3), training=True)
    assert plan.memory > 0
    assert "memory" in str(plan)
    wl.explain(net(8), (4, 16, 16, 3))
    with pytest.raises(AssertionError, match="measured"):
        _ = plan.seconds


def step(opcode: str, algorithm: str, *shapes: tuple[int, ...], flops: float, nbytes: float) -> dict[str, Any]:
    *inputs, output = [{"shape": shape} for shape in shapes]
    return {"opcode": opcode, "algorithm": algorithm, "inputs": inputs, "outputs": [output], "flops": flops, "bytes": nbytes}


def test_a_step_takes_the_longer_of_arithmetic_and_bytes() -> None:
    shapes = (64, 28, 28, 64), (3, 3, 64, 64), (64, 28, 28, 64)
    flops = 2 * 64 * 28 * 28 * 64 * 64 * 9
    arithmetic = predict.step_seconds(step("conv_fwd", "direct", *shapes, flops=flops, nbytes=1e6), MACHINE)
    assert flops / MACHINE.flops < arithmetic < 2 * flops / MACHINE.flops
    x, dw, dy = shapes
    memory = predict.step_seconds(step("conv_bwd_weights", "direct", x, dy, dw, flops=flops, nbytes=1 << 33), MACHINE)
    assert memory == pytest.approx((1 << 33) / MACHINE.copy, rel=1e-3)
    waiting = predict.step_seconds(step("conv_fwd", "direct", *shapes, flops=flops, nbytes=1 << 33), MACHINE)  # between its sums
    assert waiting == pytest.approx(predict._PASSES["conv_fwd direct"] * memory, rel=1e-3)
    assert waiting > memory
    assert predict.step_seconds(step("unary", "direct", (1,), (1,), flops=1, nbytes=8), MACHINE) < 1e-5
    faster = predict.step_seconds(step("conv_fwd", "winograd4", *shapes, flops=flops, nbytes=1e6), MACHINE)
    assert faster < arithmetic


def test_every_step_of_every_model_is_predicted(made_up: None) -> None:
    for name, shape in (("lenet5", (28, 28, 1)), ("resnet20", (32, 32, 3)), ("mobilenet-v1", (64, 64, 3))):
        compiled = wl.plan(wl.models.create(name).build(shape), (4, *shape), training=True).compiled
        for found in compiled.steps(4):
            assert 0 < predict.step_seconds(found, MACHINE) < 1.0, (found["opcode"], found["algorithm"])
