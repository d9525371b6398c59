"""The public face: names, lazy imports, plans, explanations, summaries, profiles, settings."""

from __future__ import annotations

import doctest
import importlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import wiesel as wl
from wiesel import nn, optim
from wiesel.summary import summarize

DOCUMENTED = [
    "batches", "callbacks", "functional", "files", "losses", "nn.arguments", "nn.container", "nn.conv", "nn.dropout", "nn.init",
    "nn.linear", "nn.module", "nn.norm", "nn.parameter", "nn.pool", "nn.shape", "optim.optimizers", "optim.schedules", "planning",
    "probe", "profile", "random", "settings", "summary", "train",
]  # fmt: skip


def test_names() -> None:
    for name in wl.__all__:
        assert getattr(wl, name) is not None, name
    assert set(wl.__all__) <= set(dir(wl))
    with pytest.raises(AttributeError, match="no attribute 'tensor'"):
        wl.tensor  # noqa: B018


@pytest.mark.parametrize("module", DOCUMENTED)
def test_examples_in_docstrings_run(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"wiesel.{module}"), extraglobs={"np": np, "wl": wl, "nn": nn, "optim": optim})
    assert found.failed == 0


def test_o08_u40_import_is_quick_and_lazy() -> None:
    script = (
        "import sys, time, numpy\n"
        "before = set(sys.modules)\n"
        "t = time.process_time(); import wiesel; from wiesel import nn, optim; seconds = time.process_time() - t\n"
        "heavy = {'torch', 'sklearn', 'PIL', 'matplotlib', 'rich', 'safetensors', 'onnx', 'scipy'} & set(sys.modules)\n"
        "print(seconds, len(heavy))"
    )
    command = [sys.executable, "-c", script]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(4)]
    assert runs[0][1] == "0"
    assert min(float(seconds) for seconds, _ in runs) <= 0.15


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(8, 3, padding="same", bias=False),
        nn.BatchNorm2d(),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(5),
    )


def test_o03_u05_the_plan_equals_the_high_water_mark() -> None:
    for training in (False, True):
        net = small().build((12, 12, 3))
        plan = wl.plan(net, (16, 12, 12, 3), training=training)
        assert plan.memory == plan.arena + plan.workspace + plan.prepared + plan.parameters + plan.gradients + plan.states + plan.optimizer
        assert net.engine.programs == 0  # nothing was run or kept
        x = np.zeros((16, 12, 12, 3), np.float32)
        if training:
            trainer = wl.Trainer(net)
            trainer.step(x, np.zeros(16, int))
            runner = next(r for r in net.engine._programs.values())
            assert runner.compiled.plan.sizes["arena"] == plan.arena
            assert runner.instance.arena_high_water == 0  # asking fills the arena with a canary
            trainer.step(x + 1, np.ones(16, int))
            assert plan.arena - 64 < runner.instance.arena_high_water <= plan.arena
            assert plan.gradients == net.engine.store.grad_buffer.nbytes
        assert "memory for a batch of 16" in str(plan)


def test_plan_counts_what_is_trained() -> None:
    net = nn.Sequential(nn.Linear(64), nn.Linear(10)).build((32,))
    full = wl.plan(net, (8, 32), training=True, optimizer=optim.Adam())
    net[0].freeze()
    head = wl.plan(net, (8, 32), training=True, optimizer=optim.Adam())
    assert head.gradients < full.gradients
    assert head.optimizer < full.optimizer
    assert head.arena <= full.arena
    two = nn.Sequential(nn.Linear(4))
    assert wl.plan(two, (2, 3), training=True, loss="mse").memory > 0


def test_explain_names_the_kernel_of_every_step() -> None:
    for training in (False, True):
        steps = wl.explain(small(), (4, 12, 12, 3), training=training).steps
        convs = [s for s in steps if s["opcode"].startswith("conv_fwd")]
        assert convs
        assert all(s["algorithm"] and s["algorithm"] != "ref" for s in convs)
        assert {s["entry"] for s in steps} >= ({"forward", "grad", "update"} if training else {"forward"})
    net = small().build((12, 12, 3))
    assert len(wl.explain(net, (12, 12, 3))) == len(wl.explain(net, (1, 12, 12, 3)))
    text = str(wl.explain(small(), (4, 12, 12, 3)))
    assert text.splitlines()[0].split()[:3] == ["entry", "step", "path"]


def test_summary() -> None:
    net = small().build((12, 12, 3))
    found = summarize(net)
    assert found.parameters == net.parameter_count
    assert found.macs == 144 * 9 * 3 * 8 + 288 * 5
    by_path = {layer.path: layer for layer in found.layers}
    assert by_path["0"].sees == (3, 3)
    assert by_path["3"].sees == (4, 4)
    assert "(N, 6, 6, 8)" in by_path["3"].output
    text = net.summary()
    assert "parameters: 1,677" in text
    assert "multiply-adds per sample: 32,544" in text
    net[0].freeze()
    assert "216 frozen" in net.summary()
    assert nn.Linear(3).summary((5,)).count("18") >= 1
    with pytest.raises(ValueError, match="not built"):
        nn.Linear(3).summary()


def test_s108_receptive_field_of_alexnet() -> None:
    conv1, pool1, conv2 = nn.Conv2d(4, 11, stride=4), nn.MaxPool2d(3, stride=2), nn.Conv2d(4, 5, padding=2)
    net = nn.Sequential(conv1, pool1, conv2).build((227, 227, 3))
    assert [layer.sees for layer in summarize(net).layers] == [(11, 11), (19, 19), (51, 51)]


def test_profiles() -> None:
    net = small().build((12, 12, 3))
    x = np.zeros((4, 12, 12, 3), np.float32)
    profile = net.profile(x, runs=2)
    assert profile.total > 0
    assert "conv_fwd" in str(profile)
    trainer = wl.Trainer(net)
    trainer.step(x, np.zeros(4, int))
    before, moments = net.state_dict(), trainer.memory.values()
    profile = trainer.profile(x, np.zeros(4, int), runs=2)
    assert any(row.entry == "update" and row.seconds > 0 for row in profile.rows)
    assert all(np.array_equal(before[name], value) for name, value in net.state_dict().items())
    assert all(np.array_equal(moments[name], value) for name, value in trainer.memory.values().items())
    assert trainer.step_count == 1


def test_settings() -> None:
    assert wl.isa() in wl.isas()
    threads = wl.num_threads()
    assert threads >= 1
    wl.set_num_threads(1)
    assert wl.num_threads() == 1
    wl.set_num_threads(threads)


def test_u41_the_isa_can_be_forced() -> None:
    for isa in wl.isas():
        assert _run_with_isa(isa).stdout.strip() == isa
    failed = _run_with_isa("mmx")
    assert failed.returncode != 0
    assert "ValueError" in failed.stderr


def _run_with_isa(isa: str) -> subprocess.CompletedProcess[str]:
    script = "import wiesel as wl; print(wl.isa())"
    environment = {**os.environ, "WIESEL_ISA": isa}
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)


def test_calling_one_layer_is_cheap() -> None:
    """U-24: an order of magnitude, not a benchmark; benchmarks/ has the figures."""
    layer, x = nn.ReLU(), np.zeros((1, 4), np.float32)
    layer(x)
    best = min(_seconds(layer, x) for _ in range(20))
    assert best < 50e-6


def _seconds(layer: nn.Module, x: np.ndarray) -> float:
    begun = time.perf_counter()
    for _ in range(200):
        layer(x)
    return (time.perf_counter() - begun) / 200


def test_repr_shows_the_tree() -> None:
    text = repr(small())
    assert "(0): Conv2d(out_channels=8, kernel_size=(3, 3)" in text
    assert "(4): Dropout(rate=0.2)" in text
