#!/usr/bin/env python3
"""Training steps of whole nets, beside a peer: seconds per step, and the ratio with its interval.

python benchmarks/train.py --peer torch --peer-python /path/to/venv/bin/python --nets lenet5,mnist,sixconv,resnet18-32

Both get the same NumPy batches, the same initial weights, cross-entropy and SGD with momentum; a step includes the transfer of the
batch, forward, loss, backward and update. The peer runs in every setting that might be its best; each row compares with the fastest.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import protocol

LEARNING_RATE, MOMENTUM = 0.001, 0.9
BATCHES = 4
COMPARED_LOSSES = 3


@dataclass(frozen=True)
class Case:
    net: str
    batch: int
    shape: tuple[int, int, int]
    classes: int


CASES = {
    case.net: case
    for case in (
        Case("lenet5", 64, (28, 28, 1), 10),
        Case("mnist", 64, (28, 28, 1), 10),
        Case("sixconv", 32, (150, 150, 3), 2),
        Case("resnet18-32", 64, (32, 32, 3), 10),
    )
}
SETTINGS = {
    "nchw": {"layout": "nchw", "compiled": False},
    "channels_last": {"layout": "channels_last", "compiled": False},
    "nchw compiled": {"layout": "nchw", "compiled": True},
    "channels_last compiled": {"layout": "channels_last", "compiled": True},
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", choices=["torch", "none"], default="torch")
    parser.add_argument("--peer-python", default=protocol.default_python(), help="the interpreter that has the peer (default: this one)")
    parser.add_argument("--peer-settings", default="all", help=f"comma-separated, of: {', '.join(SETTINGS)} (default: all that work)")
    parser.add_argument("--nets", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--threads", type=int, default=0, help="threads of each contender (default: the cores of this process)")
    parser.add_argument("--target", type=float, default=1.0, help="ratio that is to be reached")
    parser.add_argument("--out", type=Path, default=protocol.HERE / "results")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    nets = options.nets.split(",")
    unknown = [net for net in nets if net not in CASES]
    if unknown or options.rounds < 5:
        print(f"unknown nets {unknown}; known: {', '.join(CASES)}" if unknown else "at least 5 rounds", file=sys.stderr)
        return 2
    wanted = list(SETTINGS) if options.peer_settings == "all" else options.peer_settings.split(",")
    if options.peer == "none":
        wanted = []
    elif not shutil.which("c++"):
        wanted = [name for name in wanted if not SETTINGS[name]["compiled"]]
    facts = protocol.machine()
    threads = options.threads or facts["cores"]
    peaks = protocol.peaks(threads)
    results = []
    for net in nets:
        results.append(measure(CASES[net], wanted, threads, options))
        print(table(results[-1:], options.target)[2], file=sys.stderr)  # what is measured is shown, whatever becomes of the rest
    lines = protocol.heading(
        "Training steps", facts, peaks, options.rounds, f"{threads} threads each, fp32; SGD with momentum, cross-entropy."
    )
    lines += table(results, options.target)
    text = "\n".join(lines) + "\n"
    print(text)
    everything = {"machine": facts, "peaks": peaks, "threads": threads, "rounds": options.rounds, "results": results}
    print("written to", protocol.write("train", everything, text, options.out))
    return 0


def measure(case: Case, settings: list[str], threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """All contenders on one net. A setting of the peer that does not work is listed with its error."""
    contenders: list[protocol.Contender] = []
    result: dict[str, Any] = {"net": case.net, "batch": case.batch, "contenders": {}, "failed": {}}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            batches, weights = Path(scratch) / "batches.npz", Path(scratch) / "weights.npz"
            rng = np.random.default_rng(0)
            x = rng.standard_normal((BATCHES, case.batch, *case.shape), dtype=np.float32)
            np.savez(batches, x=x, y=rng.integers(0, case.classes, (BATCHES, case.batch)))
            recipe = {"net": case.net, "batches": str(batches), "weights": str(weights), "lr": LEARNING_RATE, "momentum": MOMENTUM}
            for name in ["wiesel", *settings]:
                peer = name != "wiesel"
                started = time.perf_counter()
                contender = protocol.Contender(
                    f"{options.peer} {name}" if peer else name,
                    options.peer_python if peer else sys.executable,
                    f"{options.peer}_train.py" if peer else "wiesel_train.py",
                    threads=threads,
                )
                contenders.append(contender)
                try:
                    about = contender.ask("setup", **recipe, **(SETTINGS[name] if peer else {}))
                    about["losses"] = contender.ask("losses", count=COMPARED_LOSSES + BATCHES)[:COMPARED_LOSSES]
                except RuntimeError as error:
                    if not peer:
                        raise
                    result["failed"][contender.name] = str(error).splitlines()[0]
                    contenders.pop().close()
                    continue
                result["contenders"][contender.name] = about
                print(f"{case.net}: {contender.name} ready after {time.perf_counter() - started:.0f} s", file=sys.stderr)
            for contender in contenders:
                contender.ask("run", seconds=options.seconds, least=3)  # warm
            times = protocol.rounds(contenders, options.rounds, seconds=options.seconds, least=3)
    finally:
        for contender in contenders:
            contender.close()
    for name, values in times.items():
        result["contenders"][name]["times"] = values
    ours = result["contenders"]["wiesel"]
    for name, about in result["contenders"].items():
        if about["parameters"] != ours["parameters"] or not np.allclose(about["losses"], ours["losses"], rtol=1e-3):
            raise RuntimeError(
                f"{case.net}: {name} is not the same net: {about['parameters']} parameters and losses {about['losses']}, "
                f"wiesel has {ours['parameters']} and {ours['losses']}"
            )
    return result


def table(results: list[dict[str, Any]], target: float) -> list[str]:
    """One row per net: both times with their spread, the ratio to the peer's best setting with its interval."""
    lines = [
        f"| net | batch | wiesel ms | peer's best ms | setting | peer/wiesel (interval) | target {target:g} |",
        "|---|---|---|---|---|---|---|",
    ]
    confidence = 1.0
    for result in results:
        times = {name: about["times"] for name, about in result["contenders"].items()}
        ours = times.pop("wiesel")
        row = [result["net"], str(result["batch"]), milliseconds(ours)]
        if times:
            best = min(times, key=lambda name: statistics.median(times[name]))
            r = protocol.ratio(ours, times[best])
            confidence = min(confidence, r.confidence)
            row += [milliseconds(times[best]), best, str(r), r.verdict(target)]
        else:
            row += ["", "", "", ""]
        lines.append("| " + " | ".join(row) + " |")
    explanation = f"Ratios above 1: wiesel is faster. Intervals hold the median ratio with {100 * confidence:.0f} % confidence"
    lines += ["", f"{explanation}; ± is half the range.", ""]
    for result in results:
        contenders = result["contenders"]
        every = ", ".join(f"{name} {milliseconds(about['times'])}" for name, about in contenders.items())
        losses = ", ".join(f"{value:.4f}" for value in contenders["wiesel"]["losses"])
        lines.append(f"- {result['net']}: {every}; first losses {losses}, equal within 1e-3.")
        lines += [f"- {result['net']}: {name} did not run: {error}" for name, error in result["failed"].items()]
    return lines


def milliseconds(values: list[float]) -> str:
    return f"{1000 * statistics.median(values):.2f} ±{100 * protocol.spread(values):.0f} %"


if __name__ == "__main__":
    sys.exit(main())
