#!/usr/bin/env python3
"""Random legal shapes of every op: how near each runs to what the machine could do, and which are far below their like.

python benchmarks/sweep.py --ops conv_fwd,matmul --count 500 --seed 0 --rows FILE.json     # measures; a minute or less for each op
python benchmarks/sweep.py --merge FILE.json ... [--out benchmarks/results]                # the tables of any number of such files
python benchmarks/sweep.py --ops conv_fwd --case "n8 ih28 iw28 ic64 oc64 kh3 kw3 ..."      # one shape again

A shape's efficiency is its floor over its time. The floor is the time of an empty step and the larger of the multiply-adds at the measured
peak (other operations at half of it) and the bytes of the operands, each once, at the bandwidth that was measured for so many bytes: in
cache where they fit, as they are warm. Peak and bandwidth are those of all threads, or of one where that takes less than SERIAL. The time
is the least of many runs of the step alone, by the core's own clock. Shapes are held against the median of their class: ops and kinds of
shapes that could be equally good (shapes.py); the packing of weights is a class of its own. O-18 asks that none be below a third of it.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import protocol
import shapes

import wiesel as wl
from wiesel import _core, optim
from wiesel.graph.ir import NUMPY_DTYPES, Graph, Type, Value
from wiesel.ops.dispatch import call
from wiesel.program.compile import ENTRY_BITS, Compiled, compile_graph
from wiesel.program.layout import Layout

CLIFF = 1 / 3
"""Of the median of its class; below, a shape is called a cliff."""
FEW = 8
"""Classes with fewer shapes have no median to speak of."""
SERIAL = 10e-6
"""Seconds: shorter loops run on one thread (cpp/ops/op.h)."""
LINE = 64
SHOWN = 5
"""Of a class, in the table; the JSON has all that are below."""

Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", default="all", help=f"comma-separated, of: {', '.join(shapes.OPS)}")
    parser.add_argument("--count", type=int, default=500, help="shapes of each op (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the shapes (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.015, help="time for each shape (default: %(default)s)")
    parser.add_argument("--case", action="append", help="this shape instead of random ones; may be given again")
    parser.add_argument("--rows", type=Path, help="file for what was measured, to be merged later")
    parser.add_argument("--merge", type=Path, nargs="+", help="files of earlier runs; nothing is measured")
    parser.add_argument("--out", type=Path, help="folder for the tables")
    options = parser.parse_args()
    if options.merge:
        runs = [json.loads(path.read_text()) for path in options.merge]
    else:
        runs = [measure(options)]
        if options.rows:
            options.rows.write_text(json.dumps(runs[0], indent=0) + "\n")
    rows = [row for run in runs for row in run["rows"]]
    if options.case:
        print("\n".join(one_line(row) for row in rows))
        return 0
    table = report(rows)
    print("\n".join(table))
    if options.out:
        everything = {"kind": "sweep", "machine": runs[0]["machine"], "peaks": runs[0]["peaks"], "isa": runs[0]["isa"]}
        everything |= {"classes": classes(rows), "cliffs": cliffs(rows)}
        head = protocol.heading("Random shapes", runs[0]["machine"], runs[0]["peaks"], "Least of many runs of each shape.")
        print("written to", protocol.write("sweep", everything, "\n".join(head + table) + "\n", options.out))
    return 0


# --- measuring -----------------------------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The rows of all shapes of all ops, and what they were measured on."""
    ops = shapes.OPS if options.ops == "all" else options.ops.split(",")
    unknown = [op for op in ops if op not in shapes.OPS]
    if unknown:
        raise SystemExit(f"unknown ops {', '.join(unknown)}; known: {', '.join(shapes.OPS)}")
    machine = wl.machine()
    bench = Bench(options.seconds)
    rows = []
    for op in ops:
        rng = np.random.default_rng([options.seed, shapes.OPS.index(op)])
        chosen = [shapes.parse(case) for case in options.case] if options.case else (shapes.draw(op, rng) for _ in range(options.count))
        started = time.perf_counter()
        for words in chosen:
            rows += bench.time(op, words)
        print(f"{op}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    peaks = {"fma_GFLOP/s": machine.flops / 1e9, "memory_GB/s": machine.bandwidth / 1e9}
    return {"machine": protocol.machine(), "peaks": peaks, "isa": machine.isa, "call": bench.call, "rows": rows}


class Bench:
    """Operands for all shapes, and the time of a step that does nothing."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._machines = wl.machine(threads=1), wl.machine()
        count = 2 * shapes.MOST_BYTES // 4 + 4096
        self._floats = np.resize(np.random.default_rng(0).uniform(0.1, 1.0, 1 << 20).astype(np.float32), count)
        self._results = np.zeros(count, np.float32)
        empty = compile_graph(shapes.Problem("unary", "", (Type((16,)),), {"kind": "relu"}).graph(), training=True)
        self.call = float(self._run(empty, self._bind(empty, {}), 2000)[0])

    def time(self, op: str, words: shapes.Words) -> list[Row]:
        """Rows of the op's step, and of the step that packs its weights, if there is one."""
        problem = shapes.problem(op, words)
        compiled = _update_program(op, problem.inputs[0]) if op in shapes.UPDATES else compile_graph(problem.graph(), training=True)
        steps = compiled.steps()
        seconds = self._run(compiled, self._bind(compiled, self._indices(problem)), 400)
        rows = []
        for step, spent in zip(steps, seconds, strict=True):
            if step["opcode"] == "conv_pack":
                kind = step["algorithm"] or "all"
            elif step is steps[-1]:
                kind = problem.kind
            else:
                continue
            name = "conv_pack" if step["opcode"] == "conv_pack" else op
            floor, bound = self._floor(step, 0 if name == "conv_pack" else shapes.macs(op, words))
            rows.append({"op": name, "kind": kind, "shape": shapes.text(words), "seconds": float(spent), "floor": floor, "bound": bound})
            rows[-1] |= {"algorithm": f"{step['algorithm']} {step['kernel']}".strip(), "of": op}
        return rows

    def _floor(self, step: dict[str, Any], macs: int) -> tuple[float, str]:
        """Seconds that the step would take at best, and what bounds it."""
        arithmetic = moving = 0.0
        for machine in self._machines:
            arithmetic = 2 * (macs or step["flops"]) / machine.flops
            moving = step["bytes"] / machine.bandwidth_of(step["bytes"])
            if max(arithmetic, moving) < SERIAL:
                break
        return self.call + max(arithmetic, moving), "arithmetic" if arithmetic > moving else "bytes"

    def _indices(self, problem: shapes.Problem) -> dict[str, np.ndarray]:
        """Operands that cannot be any numbers."""
        if problem.op == "pool_max_bwd":
            dy, attrs = problem.inputs[0].shape, dict(problem.attrs)
            x = self._floats[: dy[0] * attrs["in_h"] * attrs["in_w"] * dy[3]]
            x = x.reshape(dy[0], attrs.pop("in_h"), attrs.pop("in_w"), dy[3])
            return {"x1": call("pool_max", [x], attrs)[1]}
        if problem.op == "cross_entropy":
            rows, classes = problem.inputs[0].shape
            return {"x1": np.random.default_rng(0).integers(0, classes, rows).astype(np.int32)}
        return {}

    def _bind(self, compiled: Compiled, given: dict[str, np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Arrays for the inputs and outputs, each from a cache line on."""

        def slices(slots: Iterable[Any], pool: np.ndarray) -> list[np.ndarray]:
            at = -pool.ctypes.data % LINE // 4
            found = []
            for slot in slots:
                dtype = NUMPY_DTYPES[slot.type.dtype]
                size = math.prod(slot.type.shape)
                words = -(-size * dtype.itemsize // 4)
                found.append(given[slot.name] if slot.name in given else pool[at : at + words].view(dtype)[:size].reshape(slot.type.shape))
                at += -(-words // 16) * 16
            return found

        return slices(compiled.inputs, self._floats), slices(compiled.outputs, self._results)

    def _run(self, compiled: Compiled, arrays: tuple[Sequence[np.ndarray], Sequence[np.ndarray]], most: int) -> np.ndarray:
        """The least seconds of every step."""
        layout = compiled.layout
        opt = compiled.plan.sizes.get("opt", 0)
        buffers = [_core.Buffer(nbytes) if nbytes else None for nbytes in (layout.param_bytes, layout.grad_bytes, layout.state_bytes, opt)]
        instance = compiled.instance(*buffers)
        scalars = np.zeros(_core.SLOTS["count"], np.int64)
        scalars.view(np.float64)[_core.SLOTS["first_group"] :][:3] = 1e-3
        entries = sum(ENTRY_BITS[entry] for entry in {step["entry"] for step in compiled.steps()})
        spent, least = np.zeros(len(compiled.works)), np.full(len(compiled.works), np.inf)
        begin = time.perf_counter()
        for run in range(most):
            spent[:] = 0.0
            instance.run(entries, *arrays, 0, scalars, spent)
            np.minimum(least, spent, out=least)
            if run >= 5 and time.perf_counter() - begin > self.seconds:
                break
        return least


def _update_program(op: str, count: Type) -> Compiled:
    """The update of so many parameters as the last step."""
    graph = Graph(params={"w": Value(count, "param", "w")})
    optimizer = optim.SGD(0.1, momentum=0.9) if op == "sgd_update" else optim.Adam()
    layout = Layout.of({"w": count})
    return compile_graph(graph, layout=layout, training=True, update=lambda em, taken: optimizer.emit(em, layout, taken=taken))


# --- telling -------------------------------------------------------------------------------------------------------------------------


def efficiency(row: Row) -> float:
    return float(row["floor"] / row["seconds"])


def grouped(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by op and kind, in the order of shapes.OPS; in each the worst first."""
    order = {op: i for i, op in enumerate(shapes.OPS)}
    found: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (order.get(row["op"], len(order)), row["kind"], efficiency(row))):
        found.setdefault((row["op"], row["kind"]), []).append(row)
    return found


def relative(rows: Sequence[Row]) -> list[tuple[float, Row]]:
    """(efficiency over the median of its class, row) of all shapes in classes that have a median, the worst first."""
    found = []
    for members in grouped(rows).values():
        if len(members) >= FEW:
            median = statistics.median(map(efficiency, members))
            found += [(efficiency(row) / median, row) for row in members]
    return sorted(found, key=lambda item: item[0])


def classes(rows: Sequence[Row]) -> list[dict[str, Any]]:
    found = []
    for (op, kind), members in grouped(rows).items():
        values = list(map(efficiency, members))
        median = statistics.median(values)
        below = sum(value < CLIFF * median for value in values) if len(values) >= FEW else 0
        found.append({"op": op, "kind": kind, "shapes": len(values), "median": median, "least": min(values), "cliffs": below})
    return found


def described(rows: Iterable[tuple[float, Row]]) -> list[dict[str, Any]]:
    """The rows with their efficiency over the median of their class."""
    kept = ("op", "kind", "shape", "seconds", "floor", "algorithm")
    return [{name: row[name] for name in kept} | {"relative": round(share, 3)} for share, row in rows]


def cliffs(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return described((share, row) for share, row in relative(rows) if share < CLIFF)


def worst(rows: Sequence[Row], each: int) -> list[dict[str, Any]]:
    """The worst shapes of every class."""
    seen: dict[tuple[str, str], int] = {}
    found = []
    for share, row in relative(rows):
        key = row["op"], row["kind"]
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= each:
            found.append((share, row))
    return described(found)


def report(rows: Sequence[Row]) -> list[str]:
    """Classes, then the worst of each."""
    found = classes(rows)
    lines = ["| op | class | shapes | median efficiency | least | below a third of the median |", "|---" * 6 + "|"]
    for c in found:
        lines.append(f"| {c['op']} | {c['kind']} | {c['shapes']} | {c['median']:.2f} | {c['least']:.2f} | {c['cliffs'] or ''} |")
    lines += ["", f"{len(rows)} shapes, {sum(c['cliffs'] for c in found)} below a third of the median of their class.", ""]
    lines += ["| op | class | worst shapes | ms | efficiency | of the median | kernel |", "|---" * 7 + "|"]
    shown = [row for row in worst(rows, SHOWN) if row["relative"] < CLIFF]
    shown += [row for row in worst(rows, 1) if row["relative"] >= CLIFF]
    for row in sorted(shown, key=lambda row: (row["op"], row["kind"], row["relative"])):
        figures = f"{1e3 * row['seconds']:.4f} | {efficiency(row):.3f} | {row['relative']:.2f}"
        lines.append(f"| {row['op']} | {row['kind']} | {row['shape']} | {figures} | {row['algorithm']} |")
    return lines


def one_line(row: Row) -> str:
    times = f"{1e3 * row['seconds']:9.4f} ms, efficiency {efficiency(row):.3f} ({row['bound']})"
    return f"{times}  {row['op']} [{row['kind']}] {row['shape']}  {row['algorithm']}"


if __name__ == "__main__":
    sys.exit(main())
