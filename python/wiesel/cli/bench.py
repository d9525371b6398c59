"""``wiesel bench``: what this machine can do, and how close training comes."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import wiesel as wl
from wiesel import models, ops, optim
from wiesel.summary import summarize

_CASES: dict[str, tuple[tuple[int, int, int], int, dict[str, Any]]] = {
    "lenet5": ((28, 28, 1), 64, {"padding": 2}),
    "mnist": ((28, 28, 1), 64, {}),
    "fashion": ((28, 28, 1), 64, {}),
    "sixconv": ((150, 150, 3), 32, {}),
    "resnet14": ((32, 32, 3), 64, {}),
    "resnet20": ((32, 32, 3), 64, {}),
    "resnet18-32": ((32, 32, 3), 64, {}),
}


def bench(options: argparse.Namespace) -> int:
    """Prints peaks, compile times and step times; with ``--json`` writes them too."""
    names = options.nets.split(",")
    unknown = [name for name in names if name not in _CASES]
    if unknown:
        raise ValueError(f"no benchmark of {', '.join(unknown)}; known: {', '.join(_CASES)}")
    results: dict[str, Any] = {"isa": wl.isa(), "threads": wl.num_threads(), "version": wl.__version__}
    results["peaks"] = peaks()
    print(f"{results['threads']} threads, {results['isa']}")
    for name, value in results["peaks"].items():
        print(f"  {name:<40} {value:8.1f}")
    print(f"\n{'net':<14} {'batch':>5}  {'trace to emit ms':>16}  {'step ms':>9}  {'images/s':>9}  {'GFLOP/s':>8}  {'% of peak':>9}")
    results["nets"] = {}
    peak = max(value for name, value in results["peaks"].items() if name.endswith("GFLOP/s"))
    for name in names:
        figures = step_time(name, options.seconds)
        figures["share_of_peak"] = figures["gflops"] / peak
        results["nets"][name] = figures
        columns = (
            figures["compile_ms"],
            figures["step_ms"],
            figures["images_per_second"],
            figures["gflops"],
            100 * figures["share_of_peak"],
        )
        print(f"{name:<14} {figures['batch']:>5}  " + "{:>16.1f}  {:>9.2f}  {:>9.0f}  {:>8.1f}  {:>9.0f}".format(*columns), flush=True)
    print("\nGFLOP/s of a step: three times the forward multiply-adds, by the direct formula whatever the algorithm.")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def peaks() -> dict[str, float]:
    """The best rates that the library's own kernels reach: multiply-adds in a product whose operands stay in cache, bytes in a copy."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((768, 768), dtype=np.float32) for _ in range(2))
    seconds = _fastest(lambda: ops.matmul(a, b), 0.5)
    found = {"product of 768 x 768 matrices, GFLOP/s": 2 * 768**3 / seconds / 1e9}
    large = rng.standard_normal((16, 1 << 20), dtype=np.float32)
    found["ReLU of 64 MB, read and written, GB/s"] = 2 * large.nbytes / _fastest(lambda: ops.relu(large), 0.5) / 1e9
    return found


def step_time(name: str, seconds: float) -> dict[str, float]:
    """Time from trace to program and of a training step (SGD with momentum, cross-entropy), on random pictures."""
    shape, batch, builder_options = _CASES[name]
    net = models.create(name, **builder_options)
    net.build(shape, seed=0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *shape), dtype=np.float32)
    y = rng.integers(0, 2, batch)
    trainer = wl.Trainer(net, optimizer=optim.SGD(0.01, momentum=0.9))
    start = time.perf_counter()
    trainer.step(x, y)
    first = time.perf_counter() - start
    trainer.step(x, y)
    times = _times(lambda: trainer.step(x, y), seconds)
    step = statistics.median(times)
    flops = 6 * summarize(net, shape).macs * batch
    return {
        "batch": batch,
        "compile_ms": 1000 * max(first - step, 0.0),
        "step_ms": 1000 * step,
        "images_per_second": batch / step,
        "gflops": flops / step / 1e9,
    }


def _times(run: Callable[[], object], seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def _fastest(run: Callable[[], object], seconds: float) -> float:
    run()
    return min(_times(run, seconds))
