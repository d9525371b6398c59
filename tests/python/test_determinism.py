"""Bits are a function of inputs, program and ISA: not of threads, runs, or the batch that a picture travels in. Golden losses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import wiesel as wl
from wiesel import nn, optim

GOLDEN = Path(__file__).parent.parent / "golden" / "losses.json"


def residual_net() -> nn.Module:
    class Block(nn.Module):
        def __init__(self, channels: int) -> None:
            self.a, self.na = nn.Conv2d(channels, 3, padding=1, bias=False), nn.BatchNorm2d()
            self.b, self.nb = nn.DepthwiseConv2d(3, padding=1), nn.BatchNorm2d()

        def forward(self, x):
            return nn.activate(self.nb(self.b(nn.activate(self.na(self.a(x)), "relu"))) + x, "relu")

    return nn.Sequential(
        nn.Conv2d(12, 3, padding=1), Block(12), nn.MaxPool2d(2), Block(12), nn.Conv2d(20, 3, groups=4, stride=2), nn.SiLU(),
        nn.GlobalAvgPool2d(), nn.Dropout(0.2), nn.Linear(5),
    )  # fmt: skip


def data(n: int = 48):
    r = np.random.default_rng(4)
    y = np.arange(n) % 5
    return (r.normal(size=(n, 13, 14, 3)) + y[:, None, None, None] * 0.3).astype(np.float32), y


def train(steps: int, net: nn.Module | None = None) -> tuple[list[float], bytes]:
    x, y = data()
    trainer = wl.Trainer(net or residual_net(), optimizer=optim.AdamW(3e-3), seed=11, clip_norm=1.0)
    losses = [trainer.step(x[i % 3 * 16 : i % 3 * 16 + 16], y[i % 3 * 16 : i % 3 * 16 + 16]) for i in range(steps)]
    return losses, b"".join(value.tobytes() for value in trainer.net.state_dict().values())


def test_o01_weights_are_byte_equal_for_any_number_of_threads() -> None:
    before = wl.num_threads()
    try:
        found = set()
        for threads in (1, 2, 3, 4):
            wl.set_num_threads(threads)
            found.add(train(20)[1])
        found.add(train(20)[1])
        assert len(found) == 1
    finally:
        wl.set_num_threads(before)


@pytest.mark.slow
def test_o01_a_hundred_steps_in_processes_of_their_own() -> None:
    script = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[1]); import test_determinism as t; "
        "print(hashlib.sha256(t.train(100)[1]).hexdigest())"
    )
    found = set()
    for threads in (1, 2, 3, 4, 7, 8, 16, 1):
        run = subprocess.run(
            [sys.executable, "-c", script, str(Path(__file__).parent)], capture_output=True, text=True, check=True, env=_env(threads)
        )
        found.add(run.stdout)
    assert len(found) == 1


def _env(threads: int) -> dict[str, str]:
    import os

    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def test_predict_gives_the_same_bits_for_any_number_of_pictures() -> None:
    net = residual_net().build((13, 14, 3), seed=3)
    r = np.random.default_rng(0)
    x = r.normal(size=(300, 13, 14, 3)).astype(np.float32)
    whole = net(x)
    assert np.array_equal(net(x[:1]), whole[:1])
    assert np.array_equal(net(x[5:12]), whole[5:12])
    assert np.array_equal(net(x[299:]), whole[299:])
    assert np.array_equal(np.concatenate([net(x[i : i + 1]) for i in range(0, 300, 60)]), whole[::60])
    assert np.array_equal(net.predict_proba(x[:7]), net.predict_proba(x)[:7])
    assert np.array_equal(net.run(x[:2], fetch="3")["3"], net.run(x[:9], fetch="3")["3"][:2])


def test_two_runs_are_equal_and_seeds_matter() -> None:
    assert train(6) == train(6)
    other = wl.Trainer(residual_net(), optimizer=optim.AdamW(3e-3), seed=12, clip_norm=1.0)
    x, y = data()
    assert other.step(x[:16], y[:16]) != train(1)[0][0]


@pytest.mark.parametrize("case", ["residual", "mlp", "lenet"])
def test_golden_losses(case: str) -> None:
    """Losses of whole runs, made once; within rounding on every ISA. ``WIESEL_WRITE_GOLDEN=1`` writes them anew."""
    import os

    x, y = data()
    if case == "residual":
        losses = train(12)[0]
    elif case == "mlp":
        net = nn.Sequential(nn.Flatten(), nn.Linear(32, activation="gelu"), nn.Linear(5))
        losses = wl.Trainer(net, optimizer=optim.SGD(0.02, momentum=0.9, nesterov=True), seed=1).fit(x, y, epochs=6, batch_size=16).loss
    else:
        net = nn.Sequential(
            nn.Conv2d(6, 5, padding=2, activation="tanh"), nn.AvgPool2d(2), nn.Conv2d(16, 5, activation="tanh"), nn.Flatten(), nn.Linear(5)
        )
        losses = wl.Trainer(net, optimizer=optim.SGD(0.02), seed=1).fit(x, y, epochs=6, batch_size=16).loss
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("WIESEL_WRITE_GOLDEN"):
        known[case] = [round(loss, 6) for loss in losses]
        GOLDEN.write_text(json.dumps(known, indent=1) + "\n")
    np.testing.assert_allclose(losses, known[case], rtol=5e-4)
