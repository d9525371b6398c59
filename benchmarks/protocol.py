"""How contenders are compared: own processes, in turn, interleaved rounds, medians, and a ratio only with its interval.

Each contender is a process that is started once and driven over a pipe. In every round each has one turn (in an order that rotates),
after a short pause in which the other's spinning threads go to sleep. A turn times single steps and reports their median. The ratio of
two contenders is taken round by round; its interval holds the median ratio with the confidence that is written beside it, by order
statistics, which assume nothing about the noise.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAUSE = 0.25  # seconds; libgomp's workers spin for a few milliseconds, MKL's for up to 200


class Contender:
    """A process that answers requests (see peers/pipe.py)."""

    def __init__(self, name: str, python: str, script: str, *, threads: int) -> None:
        self.name = name
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        if not script.startswith("wiesel"):
            environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            [python, str(HERE / "peers" / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        """The reply to a request. Raises RuntimeError with the contender's own error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"{self.name}: the process ended (exit code {self._process.wait()})")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{self.name}: {reply['error']}\n{reply['traceback']}")
        return reply["ok"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Peer's time over ours, so above 1 we are faster. The interval covers the median with ``confidence``."""

    median: float
    low: float
    high: float
    confidence: float

    def verdict(self, target: float) -> str:
        """``"reached"``, ``"missed"``, or ``"not shown"`` when the interval crosses the target."""
        if self.low >= target:
            return "reached"
        return "missed" if self.high < target else "not shown"

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio(ours: Sequence[float], peers: Sequence[float], *, confidence: float = 0.95) -> Ratio:
    """The median of ``peers / ours`` round by round, with the narrowest order-statistics interval of at least ``confidence``.

    With too few rounds for that it is the whole range, with the confidence that this has: 1 - 2^(1 - rounds).

    >>> print(ratio([1.0, 1.0, 1.0, 1.0, 1.0], [1.1, 1.2, 1.3, 1.4, 1.5]))
    1.30 (1.10-1.50)
    """
    ratios = sorted(p / o for o, p in zip(ours, peers, strict=True))
    rounds = len(ratios)

    def covers(k: int) -> float:  # of the interval from the k-th smallest to the k-th largest
        return 1 - 2 * sum(math.comb(rounds, i) for i in range(k)) / 2**rounds

    k = 1
    while 2 * (k + 1) <= rounds and covers(k + 1) >= confidence:
        k += 1
    return Ratio(statistics.median(ratios), ratios[k - 1], ratios[-k], covers(k))


def rounds(contenders: Sequence[Contender], count: int, *, seconds: float, least: int, **request: Any) -> dict[str, list[float]]:
    """Median step times in seconds of each contender's turns, one per round. ``request`` goes along with each ``run``."""
    times: dict[str, list[float]] = {c.name: [] for c in contenders}
    for number in range(count):
        shift = number % len(contenders)
        for contender in [*contenders[shift:], *contenders[:shift]]:
            time.sleep(PAUSE)
            times[contender.name].append(contender.ask("run", seconds=seconds, least=least, **request)["median"])
    return times


def spread(values: Sequence[float]) -> float:
    """Half the range over the median."""
    return (max(values) - min(values)) / 2 / statistics.median(values)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    facts: dict[str, Any] = {"system": platform.platform(), "python": platform.python_version(), "cores": len(os.sched_getaffinity(0))}
    wanted = {
        "Model name": "cpu",
        "CPU(s)": "cpus",
        "Thread(s) per core": "threads_per_core",
        "L1d cache": "l1d",
        "L2 cache": "l2",
        "L3 cache": "l3",
    }
    try:
        listing = subprocess.run(["lscpu"], capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}).stdout
    except (OSError, subprocess.CalledProcessError):
        return facts
    for line in listing.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in wanted:
            facts[wanted[key.strip()]] = value.strip()
        elif key.strip() == "Flags":
            notable = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16")
            facts["isa"] = [flag for flag in notable if flag in value.split()]
    facts["load"] = os.getloadavg()[0]
    return facts


def peaks(threads: int) -> dict[str, float]:
    """The measured multiply-add peak and memory bandwidth, by peak.c; empty without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "peak"
        subprocess.run([compiler, "-O3", "-march=native", "-fopenmp", str(HERE / "peak.c"), "-o", str(binary)], check=True)
        run = subprocess.run([binary], capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    measured: dict[str, float] = json.loads(run.stdout)
    return measured


def write(kind: str, results: dict[str, Any], table: str, folder: Path) -> Path:
    """Puts ``results`` (JSON) and ``table`` (Markdown) into ``folder``, named by kind, machine and date; returns the table's path."""
    model = "".join(c if c.isalnum() else "-" for c in str(results["machine"].get("cpu", platform.machine())).lower())
    stem = f"{kind}-{'-'.join(part for part in model.split('-') if part)}-{time.strftime('%Y-%m-%d')}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.json").write_text(json.dumps(results, indent=1) + "\n")
    path = folder / f"{stem}.md"
    path.write_text(table)
    return path


def heading(title: str, facts: dict[str, Any], peaks: dict[str, Any], rounds_: int, note: str) -> list[str]:
    """The lines that every table begins with."""
    caches = ", ".join(f"{level.upper()} {facts[level]}" for level in ("l1d", "l2", "l3") if level in facts)
    measured = ", ".join(f"{what} {value:.1f} {unit}" for what, _, unit, value in ((*name.partition("_"), v) for name, v in peaks.items()))
    return [
        f"# {title}",
        "",
        f"{facts.get('cpu', 'unknown CPU')}, {facts['cores']} cores, {caches}; {', '.join(facts.get('isa', []))}. {facts['system']}.",
        f"Measured in this run: {measured or 'no peaks, for want of a C compiler'}. Load before the run: {facts.get('load', 0):.1f}.",
        f"Medians of {rounds_} interleaved rounds.",
        note,
        "",
    ]


def default_python() -> str:
    return sys.executable
