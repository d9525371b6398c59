"""Where the time of a program goes: per step its time, arithmetic and bytes, beside what this machine can do."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wiesel.planning import shape_text
from wiesel.probe import Machine, machine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wiesel.nn.engine import Runner
    from wiesel.nn.module import Module
    from wiesel.train import Trainer

_NOTE = (
    "GFLOP/s by the direct formula, so Winograd may exceed the peak; bytes are those of the operands, each once,\n"
    "so steps that work in cache may exceed the memory's bandwidth."
)


@dataclass(frozen=True)
class Work:
    """A piece of work and how long it took."""

    seconds: float
    combining: float
    """Seconds of these in which partial sums of the tasks were added up in their fixed order, so that bits do not depend on threads."""
    flops: int
    """Floating-point operations by the direct formula, whatever the algorithm; a multiply-add is two."""
    nbytes: int
    """Bytes of all operands, each once."""

    @property
    def flop_rate(self) -> float:
        """Operations per second."""
        return self.flops / self.seconds if self.seconds else 0.0

    @property
    def byte_rate(self) -> float:
        """Bytes per second."""
        return self.nbytes / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class ProfiledStep(Work):
    """One step of the program."""

    entry: str
    opcode: str
    path: str
    """Module path; empty for what belongs to the whole net, such as the update."""
    output: str
    algorithm: str
    kernel: str


@dataclass(frozen=True)
class Sum(Work):
    """Steps taken together."""

    name: str
    steps: int


_KEYS: dict[str, Callable[[ProfiledStep], str]] = {
    "opcode": lambda step: step.opcode,
    "module": lambda step: step.path or "(whole net)",
    "entry": lambda step: step.entry,
    "algorithm": lambda step: f"{step.opcode} {step.algorithm}",
}


@dataclass(frozen=True)
class Profile:
    """Times per step, medians over the runs. ``str()`` is a table, the slowest first; O-25."""

    rows: tuple[ProfiledStep, ...]
    """In the order of running."""
    wall: float
    """Median seconds of a whole run, clocks included."""
    batch: int
    machine: Machine

    @property
    def total(self) -> float:
        """Seconds of all steps."""
        return sum(row.seconds for row in self.rows)

    @property
    def combining(self) -> float:
        """Seconds of all steps that went into ordered combining; see ``Work.combining``."""
        return sum(row.combining for row in self.rows)

    def by(self, key: str) -> Sums:
        """Sums per ``"opcode"``, ``"module"``, ``"entry"`` or ``"algorithm"``, the slowest first; printed, a table.

        >>> import numpy as np
        >>> from wiesel import nn
        >>> net = nn.Sequential(nn.Linear(8), nn.Linear(4)).build((16,))
        >>> [row.steps for row in net.profile(np.zeros((2, 16)), runs=1).by("opcode").rows]
        [2]
        """
        if key not in _KEYS:
            raise ValueError(f"Profile.by: {key!r}; known: {', '.join(_KEYS)}")
        groups: dict[str, list[ProfiledStep]] = {}
        for row in self.rows:
            groups.setdefault(_KEYS[key](row), []).append(row)
        sums = [_sum(name, rows) for name, rows in groups.items()]
        return Sums(key, tuple(sorted(sums, key=lambda row: -row.seconds)), self.machine)

    def __str__(self) -> str:
        rows = sorted(self.rows, key=lambda row: -row.seconds)
        head = [*_HEAD, "entry", "step", "path", "output", "algorithm"]
        cells = [
            [*_cells(row, self.total, self.machine), row.entry, row.opcode, row.path, row.output, f"{row.algorithm} {row.kernel}".strip()]
            for row in rows
        ]
        whole = _sum("", self.rows)
        cells.append([*_cells(whole, self.total, self.machine), f"{len(rows)} steps, batch {self.batch}", *[""] * 4])
        lines = _table([head, *cells], right=len(_HEAD))
        combining = f"ordered combining of partial sums: {whole.combining * 1e3:.4f} ms, {whole.combining / max(self.total, 1e-30):.1%}"
        return "\n".join([*lines, f"run {self.wall * 1e3:.4f} ms; {combining}", f"% of {self.machine}", _NOTE])

    def roofline(self, path: str | os.PathLike[str], *, labels: int = 10) -> None:
        """A picture of all steps under the measured roofs: operations per byte against GFLOP/s, both logarithmic (Williams et al. 2009).

        A dot's area is its step's share of the time; the ``labels`` slowest are named. Steps without arithmetic (copies, packing) have no
        place in it. The file's ending says the format. Needs matplotlib (``pip install wiesel[train]``).
        """
        from wiesel.roofline import draw_roofline

        draw_roofline(self, path, labels=labels)

    def chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Writes the steps one after the other as JSON for chrome://tracing or ui.perfetto.dev, with their figures.

        >>> import json, tempfile, pathlib
        >>> import numpy as np
        >>> from wiesel import nn
        >>> net = nn.Sequential(nn.Linear(4)).build((16,))
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "trace.json"
        >>> net.profile(np.zeros((2, 16)), runs=1).chrome_trace(file)
        >>> json.loads(file.read_text())["traceEvents"][-1]["name"]
        'matmul 0'
        """
        events: list[dict[str, Any]] = [{"ph": "M", "name": "process_name", "pid": 0, "args": {"name": f"wiesel, batch {self.batch}"}}]
        now = 0.0
        for row in self.rows:
            figures = {
                "output": row.output,
                "algorithm": f"{row.algorithm} {row.kernel}".strip(),
                "GFLOP/s": round(row.flop_rate / 1e9, 3),
                "% of peak": round(100 * row.flop_rate / self.machine.flops, 2),
                "GB/s": round(row.byte_rate / 1e9, 3),
                "% of bandwidth": round(100 * row.byte_rate / self.machine.bandwidth, 2),
                "ordered combining us": round(row.combining * 1e6, 3),
            }
            name = f"{row.opcode} {row.path}".strip()
            events.append(
                {"ph": "X", "name": name, "cat": row.entry, "pid": 0, "tid": 0, "ts": now * 1e6, "dur": row.seconds * 1e6, "args": figures}
            )
            now += row.seconds
        text = json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"machine": str(self.machine)}}, indent=1)
        Path(path).write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Sums:
    """What ``Profile.by`` gives."""

    key: str
    rows: tuple[Sum, ...]
    machine: Machine

    def __str__(self) -> str:
        total = sum(row.seconds for row in self.rows)
        cells = [[*_cells(row, total, self.machine), str(row.steps), row.name] for row in self.rows]
        return "\n".join(_table([[*_HEAD, "steps", self.key], *cells], right=len(_HEAD) + 1))


def profile_net(net: Module, inputs: Sequence[Any], *, runs: int = 10) -> Profile:
    """Forward on ``inputs``; see ``Module.profile``."""
    engine = net.engine
    with engine.lock:
        arrays, n = engine.check_inputs(inputs)
        runner = engine.inference(arrays, n, None)
        n = min(n, runner.n)
        converted = [array[:n] for array in engine.convert(runner, arrays)]
        return _measure(runner, ("forward",), converted, runner.instance.new_outputs(n), n, None, runs=runs)


def profile_training(trainer: Trainer, x: Any, y: Any, *, runs: int = 10) -> Profile:
    """Forward, backward and update on one batch; weights, states and the optimizer's memory are put back. See ``Trainer.profile``."""
    found: Profile = trainer.without_trace(x, y, lambda *how: _measure(*how, runs=runs))
    return found


def _measure(
    runner: Runner,
    entries: Sequence[str],
    arrays: Sequence[NDArray[Any]],
    outputs: Sequence[NDArray[Any]],
    n: int,
    scalars: NDArray[np.int64] | None,
    *,
    runs: int,
) -> Profile:
    if runs < 1:
        raise ValueError(f"profile: runs must be at least 1, got {runs}")
    steps = runner.compiled.steps(n)
    runner.instance.run(runner.bits(*entries), arrays, outputs, n, scalars)
    bits = runner.bits(*entries)
    seconds, combining, walls = np.zeros((runs, len(steps))), np.zeros((runs, len(steps))), np.zeros(runs)
    for i in range(runs):
        start = time.perf_counter()
        runner.instance.run(bits, arrays, outputs, n, scalars, seconds[i], combining[i])
        walls[i] = time.perf_counter() - start
    rows = tuple(
        ProfiledStep(
            seconds=float(spent),
            combining=float(combined),
            flops=step["flops"],
            nbytes=step["bytes"],
            entry=step["entry"],
            opcode=step["opcode"],
            path=step["path"],
            output=_output(step, n),
            algorithm=step["algorithm"],
            kernel=step["kernel"],
        )
        for step, spent, combined in zip(steps, np.median(seconds, axis=0), np.median(combining, axis=0), strict=True)
        if step["entry"] in entries
    )
    return Profile(rows, float(np.median(walls)), n, machine())


def _output(step: dict[str, Any], n: int) -> str:
    output = next((operand for operand in step["outputs"] if operand is not None), None)
    if output is None:
        return ""
    return shape_text((n, *output["shape"][1:]) if output["batch"] else output["shape"])


def _sum(name: str, rows: Iterable[ProfiledStep]) -> Sum:
    rows = tuple(rows)
    return Sum(
        sum(row.seconds for row in rows),
        sum(row.combining for row in rows),
        sum(row.flops for row in rows),
        sum(row.nbytes for row in rows),
        name,
        len(rows),
    )


_HEAD = ("ms", "share", "GFLOP/s", "% peak", "GB/s", "% band")


def _cells(work: Work, total: float, on: Machine) -> list[str]:
    share = f"{work.seconds / max(total, 1e-30):.1%}"
    arithmetic = [f"{work.flop_rate / 1e9:.1f}", f"{100 * work.flop_rate / on.flops:.1f}"] if work.flops else ["-", "-"]
    memory = [f"{work.byte_rate / 1e9:.1f}", f"{100 * work.byte_rate / on.bandwidth:.0f}"] if work.nbytes else ["-", "-"]
    return [f"{work.seconds * 1e3:.4f}", share, *arithmetic, *memory]


def _table(rows: Sequence[Sequence[str]], right: int) -> list[str]:
    """Lines of aligned columns; the first ``right`` columns are numbers."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i < right else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
