"""``wiesel bench``: what this machine can do, and how close training comes, net by net and step by step (O-25)."""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import wiesel as wl
from wiesel import models, nn, optim
from wiesel.planning import compile_for
from wiesel.profile import Profile

_CASES: dict[str, tuple[tuple[int, int, int], int, dict[str, Any]]] = {
    "lenet5": ((28, 28, 1), 64, {"padding": 2}),
    "mnist": ((28, 28, 1), 64, {}),
    "fashion": ((28, 28, 1), 64, {}),
    "sixconv": ((150, 150, 3), 32, {}),
    "resnet14": ((32, 32, 3), 64, {}),
    "resnet20": ((32, 32, 3), 64, {}),
    "resnet18-32": ((32, 32, 3), 64, {}),
}

_COMPILED = {"lenet5": ((28, 28, 1), 64, {"padding": 2}, 20.0), "resnet50": ((224, 224, 3), 32, {}, 300.0)}
"""Nets whose time from trace to program is shown, each with its limit in milliseconds."""

_OVERHEADS = (("training step, batch 64", 64, True, 1.25), ("training step, batch 1", 1, True, 2.0), ("inference, batch 1", 1, False, 2.0))
"""LeNet-5: what, batch, training or not, and how many times the sum of its kernels it may take (O-19)."""

_COLUMNS = (
    "batch", "step ms", "images/s", "GFLOP/s", "% peak", "kernels ms", "step/kernels", "predicted ms", "step/predicted", "combining",
)  # fmt: skip
_NOTE = (
    "kernels: the sum of the steps' own times. predicted: wl.plan(...).seconds.\n"
    "combining: adding up partial sums in their fixed order, share of the kernels' time. All are medians."
)


def bench(options: argparse.Namespace) -> int:
    """Prints rates of the machine, compile times, step times, overheads and a profile; with ``--json`` writes them too."""
    names = options.nets.split(",")
    profiled = options.profile or names[0]
    unknown = [name for name in (*names, profiled) if name not in _CASES]
    if unknown:
        raise ValueError(f"no benchmark of {', '.join(unknown)}; known: {', '.join(_CASES)}")
    machine = wl.machine()
    print(machine)
    results: dict[str, Any] = {"version": wl.__version__, "machine": dataclasses.asdict(machine), "compile_ms": {}, "nets": {}}

    print("\nfrom trace to program")
    for name, (shape, batch, builder_options, limit) in _COMPILED.items():
        took = results["compile_ms"][name] = compile_ms(name, shape, batch, builder_options)
        print(f"  {name:<12} {took:8.1f} ms   (limit {limit:.0f})", flush=True)

    print("\n" + f"{'net':<12}  " + "  ".join(f"{title:>{_width(title)}}" for title in _COLUMNS))
    profiles: dict[str, Profile] = {}
    for name in dict.fromkeys((*names, profiled)):
        figures, profiles[name] = training_figures(name, options.seconds)
        results["nets"][name] = figures
        cells = _cells(figures, machine.flops)
        print(f"{name:<12}  " + "  ".join(f"{cell:>{_width(title)}}" for cell, title in zip(cells, _COLUMNS, strict=True)), flush=True)
    print(_NOTE)

    print("\nLeNet-5 against the sum of its kernels (O-19)")
    results["overheads"] = {}
    for what, batch, training, limit in _OVERHEADS:
        figures = results["overheads"][what] = overhead(batch, training=training, seconds=options.seconds / 2)
        times = f"{figures['ms']:8.4f} ms, kernels {figures['kernels_ms']:8.4f} ms: {figures['ratio']:.2f}"
        print(f"  {what:<24} {times}   (limit {limit:.2f})", flush=True)

    profile = profiles[profiled]
    print(f"\n{profiled}, training step\n{profile}")
    if options.trace is not None:
        profile.chrome_trace(options.trace)
    if options.roofline is not None:
        profile.roofline(options.roofline)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def compile_ms(name: str, shape: tuple[int, ...], batch: int, builder_options: dict[str, Any]) -> float:
    """Milliseconds from tracing a net's training step to its verified program; the best of three, for the first one imports."""
    net = models.create(name, **builder_options).build(shape, seed=0)

    def compile_once() -> None:
        compiled, _ = compile_for(net, [(batch, *shape)], training=True)
        assert compiled.program.batch == batch

    return 1000 * min(_times(compile_once, 0.0))


def training_figures(name: str, seconds: float) -> tuple[dict[str, float], Profile]:
    """A training step (SGD with momentum, cross-entropy) on random pictures: measured, by its kernels, and predicted."""
    shape, batch, builder_options = _CASES[name]
    net = models.create(name, **builder_options).build(shape, seed=0)
    trainer, x, y = _training(net, shape, batch)
    step = _median(lambda: trainer.step(x, y), seconds)
    profile = trainer.profile(x, y, runs=int(min(max(seconds / step, 3), 50)))
    kernels = profile.total
    figures = {
        "batch": batch,
        "step_ms": 1000 * step,
        "images_per_second": batch / step,
        "gflops": sum(row.flops for row in profile.rows) / step / 1e9,
        "kernels_ms": 1000 * kernels,
        "predicted_ms": 1000 * wl.plan(net, (batch, *shape), training=True).seconds,
        "combining": profile.combining / kernels,
    }
    return figures, profile


def overhead(batch: int, *, training: bool, seconds: float) -> dict[str, float]:
    """LeNet-5: a call from Python beside the sum of its kernels."""
    shape, _, builder_options = _CASES["lenet5"]
    net = models.create("lenet5", **builder_options).build(shape, seed=0)
    trainer, x, y = _training(net, shape, batch)
    run: Callable[[], object] = (lambda: trainer.step(x, y)) if training else (lambda: net(x))
    whole = _median(run, seconds)
    runs = int(min(max(seconds / whole, 3), 1000))
    kernels = (trainer.profile(x, y, runs=runs) if training else net.profile(x, runs=runs)).total
    return {"ms": 1000 * whole, "kernels_ms": 1000 * kernels, "ratio": whole / kernels}


def _cells(figures: dict[str, float], peak: float) -> tuple[str, ...]:
    return (
        f"{figures['batch']}",
        f"{figures['step_ms']:.2f}",
        f"{figures['images_per_second']:.0f}",
        f"{figures['gflops']:.1f}",
        f"{100e9 * figures['gflops'] / peak:.0f}",
        f"{figures['kernels_ms']:.2f}",
        f"{figures['step_ms'] / figures['kernels_ms']:.2f}",
        f"{figures['predicted_ms']:.2f}",
        f"{figures['step_ms'] / figures['predicted_ms']:.2f}",
        f"{figures['combining']:.1%}",
    )


def _training(net: nn.Module, shape: tuple[int, ...], batch: int) -> tuple[wl.Trainer, Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *shape), dtype=np.float32)
    return wl.Trainer(net, optimizer=optim.SGD(0.01, momentum=0.9)), x, rng.integers(0, 2, batch)


def _median(run: Callable[[], object], seconds: float) -> float:
    run()
    run()
    return statistics.median(_times(run, seconds))


def _times(run: Callable[[], object], seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def _width(title: str) -> int:
    return max(len(title), 8)
