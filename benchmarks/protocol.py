"""How contenders are compared: own processes, in turn, interleaved rounds, medians, and a ratio only with its interval.

Each contender is a process that is started once and driven over a pipe. In every round each has one turn (in an order that rotates),
after a short pause in which the other's spinning threads go to sleep. A turn times single steps and reports their median. The ratio of
two contenders is taken round by round; its interval holds the median ratio with the confidence that is written beside it, by order
statistics, which assume nothing about the noise.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAUSE = 0.25  # seconds after a turn, at most; libgomp's workers spin for a few milliseconds, MKL's for up to 200
LOOK = 0.03  # seconds in which a process at rest uses no tick of a clock that ticks a hundred times a second
HOLDS = {
    "avx2": {"WIESEL_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "avx512": {
        "WIESEL_ISA": "avx512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "ATEN_CPU_CAPABILITY": "avx512",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
}
"""Variables that hold contenders to an instruction set: wiesel, oneDNN, PyTorch's own kernels, MKL."""
FORCED = tuple(HOLDS["avx2"])
"""Are written down with the results, whoever has set them."""
HELD = ("torch",)
"""Peers that these variables hold."""


def arguments(description: str, *, peers: Sequence[str], seconds: float) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peer", metavar="PEERS", default=",".join(peers), help="comma-separated, or none (default: all installed of %(default)s)"
    )
    parser.add_argument("--peer-python", default=sys.executable, help="the interpreter that has the peers (default: this one)")
    parser.add_argument(
        "--settings", default="all", help="comma-separated settings of the peers, such as channels_last (default: all that work)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="at least 5 (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=seconds, help="length of a turn (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="least steps of a turn (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="threads of each contender (default: the cores of this process)")
    parser.add_argument("--isa", choices=tuple(HOLDS), help="hold all contenders to this instruction set (default: each takes the best)")
    parser.add_argument("--target", type=float, help="ratio that is to be reached (default: each case's own)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results (default: %(default)s)")
    parser.add_argument("--label", default="", help="end of the results' file name, for runs that make one table together")
    return parser


class Session:
    """One run of a benchmark: its options, what it runs on, and where its results go."""

    def __init__(self, kind: str, options: argparse.Namespace, peers: Sequence[str]) -> None:
        if options.rounds < 5:
            raise SystemExit("at least 5 rounds")
        self.kind = kind
        self.options = options
        if options.isa:
            os.environ.update(HOLDS[options.isa])  # all contenders are processes of ours
            options.label = "-".join(filter(None, (options.label, options.isa)))
        self.facts = machine()
        self.threads: int = options.threads or self.facts["cores"]
        self.peaks = peaks(self.threads)
        asked = [] if options.peer == "none" else options.peer.split(",")
        unknown = [peer for peer in asked if peer not in peers]
        if unknown:
            raise SystemExit(f"unknown peers {', '.join(unknown)}; known: {', '.join(peers)}")
        held = [peer for peer in asked if not options.isa or peer in HELD]
        if len(held) < len(asked):
            print(f"left out, for nothing holds them to {options.isa}: {', '.join(set(asked) - set(held))}", file=sys.stderr)
        self.peers = [peer for peer in held if installed(options.peer_python, peer)]
        self.absent = [peer for peer in held if peer not in self.peers]
        if self.absent:
            print(f"left out, for {options.peer_python} has them not: {', '.join(self.absent)}", file=sys.stderr)

    def wants(self, setting: str) -> bool:
        """Whether a setting of a peer was asked for; compiled ones need a compiler."""
        wanted = self.options.settings
        return (wanted == "all" or setting in wanted.split(",")) and ("compiled" not in setting or shutil.which("c++") is not None)

    def contender(self, name: str, script: str, *, silent: bool = False) -> Contender:
        """Starts a process, in the peers' interpreter unless it is wiesel's; ``silent``: what it prints is thrown away."""
        python = sys.executable if script.startswith("wiesel") else self.options.peer_python
        return Contender(name, python, script, threads=self.threads, silent=silent)

    def side_by_side(
        self, case: str, entries: Sequence[Entry], first: Callable[[Contender], dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        """Starts the contenders, warms them up and lets them take turns; wiesel comes first, and must work.

        ``first(contender)`` asks for what is to be known of each beside its times. The reply: {"contenders": {name: {"times": ...}},
        "failed": {name: error}}.
        """
        contenders: list[Contender] = []
        found: dict[str, dict[str, Any]] = {}
        failed: dict[str, str] = {}
        try:
            for entry in entries:
                started = time.perf_counter()
                contender = self.contender(entry.name, entry.script)
                contenders.append(contender)
                try:
                    about = contender.ask("setup", **entry.setup)
                    if first is not None:
                        about |= first(contender)
                except RuntimeError as error:
                    if entry.name == "wiesel":
                        raise
                    failed[entry.name] = str(error).splitlines()[0]
                    print(f"{case}: {entry.name} left out: {failed[entry.name]}", file=sys.stderr)
                    contenders.pop().close()
                    continue
                found[entry.name] = about
                print(f"{case}: {entry.name} ready after {time.perf_counter() - started:.0f} s", file=sys.stderr)
            for name, times in self.take_turns(contenders).items():
                found[name]["times"] = times
        finally:
            for contender in contenders:
                contender.close()
        return {"contenders": found, "failed": failed}

    def take_turns(self, contenders: Sequence[Contender]) -> dict[str, list[float]]:
        """Warms the contenders up, then measures; see ``rounds``."""
        for contender in contenders:
            contender.ask("run", seconds=self.options.seconds, least=self.options.steps)
            contender.rest()
        return rounds(contenders, self.options.rounds, seconds=self.options.seconds, least=self.options.steps)

    def report(self, title: str, note: str, results: list[dict[str, Any]], table: list[str]) -> None:
        """Prints the table and writes it, and all that it was made from as JSON."""
        notes = [f"{self.threads} threads each, fp32; {note}"]
        notes += [f"Not installed, so left out: {', '.join(self.absent)}."] if self.absent else []
        head = heading(title, self.facts, self.peaks, f"Medians of {self.options.rounds} interleaved rounds.", notes)
        text = "\n".join(head + table) + "\n"
        print(text)
        everything = {"kind": self.kind, "machine": self.facts, "peaks": self.peaks, "threads": self.threads, "absent": self.absent}
        everything |= {"rounds": self.options.rounds, "results": results}
        print("written to", write(self.kind, everything, text, self.options.out, self.options.label))


@dataclasses.dataclass(frozen=True)
class Entry:
    """A contender to be started: its name, the script in peers/, and what its ``setup`` takes."""

    name: str
    script: str
    setup: dict[str, Any]


def installed(python: str, module: str) -> bool:
    """Whether an interpreter finds a module."""
    return (
        subprocess.run(
            [python, "-c", f"import importlib.util as u, sys; sys.exit(u.find_spec('{module}') is None)"], check=False
        ).returncode
        == 0
    )


class Contender:
    """A process that answers requests (see peers/pipe.py)."""

    def __init__(self, name: str, python: str, script: str, *, threads: int, silent: bool = False) -> None:
        self.name = name
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        if not script.startswith("wiesel"):
            environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            [python, str(HERE / "peers" / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if silent else None,
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

    def rest(self) -> None:
        """Waits until the process uses no processor, as far as the system tells, or for ``PAUSE``."""
        end = time.monotonic() + PAUSE
        used = self._ticks()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(LOOK, left))
            before, used = used, self._ticks()
            if used is not None and used == before:
                return

    def _ticks(self) -> int | None:
        """Processor time of the process, in ticks of the system's clock; None where there is no /proc."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return int(fields[11]) + int(fields[12])

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
        return 1 - 2 * sum(math.comb(rounds, i) for i in range(k)) / 2.0**rounds

    k = 1
    while 2 * (k + 1) <= rounds and covers(k + 1) >= confidence:
        k += 1
    return Ratio(statistics.median(ratios), ratios[k - 1], ratios[-k], covers(k))


def mean(ratios: Sequence[Ratio]) -> Ratio:
    """The geometric mean. Its interval is made of the ends of all intervals, so it is wider than it need be."""
    median, low, high = (statistics.geometric_mean(getattr(r, end) for r in ratios) for end in ("median", "low", "high"))
    return Ratio(median, low, high, min(r.confidence for r in ratios))


def rounds(contenders: Sequence[Contender], count: int, *, seconds: float, least: int) -> dict[str, list[float]]:
    """Median step times in seconds of each contender's turns, one per round."""
    times: dict[str, list[float]] = {c.name: [] for c in contenders}
    for number in range(count):
        shift = number % len(contenders)
        for contender in [*contenders[shift:], *contenders[:shift]]:
            times[contender.name].append(float(contender.ask("run", seconds=seconds, least=least)["median"]))
            contender.rest()
    return times


def spread(values: Sequence[float]) -> float:
    """Half the range over the median."""
    return (max(values) - min(values)) / (2 * statistics.median(values))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    facts: dict[str, Any] = {"system": platform.platform(), "python": platform.python_version(), "cores": len(os.sched_getaffinity(0))}
    facts["load"] = os.getloadavg()[0]
    facts["forced"] = {name: os.environ[name] for name in FORCED if name in os.environ}
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
    return facts


def peaks(threads: int) -> dict[str, float]:
    """The measured multiply-add peak and memory bandwidth of all threads, by ``wiesel.machine`` in a process of its own."""
    program = (
        "import json, wiesel; m = wiesel.machine(); print(json.dumps({'fma_GFLOP/s': m.flops / 1e9, 'memory_GB/s': m.bandwidth / 1e9}))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    measured: dict[str, float] = json.loads(run.stdout)
    return measured


def write(kind: str, results: dict[str, Any], table: str, folder: Path, label: str = "") -> Path:
    """Puts ``results`` (JSON) and ``table`` (Markdown) into ``folder``, named by kind, machine, date, label; returns the table's path."""
    model = "".join(c if c.isalnum() else "-" for c in str(results["machine"].get("cpu", platform.machine())).lower())
    parts = [kind, *(part for part in model.split("-") if part), time.strftime("%Y-%m-%d"), *([label] if label else [])]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{'-'.join(parts)}.md"
    path.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    path.write_text(table)
    return path


def heading(title: str, facts: dict[str, Any], peaks: dict[str, Any], method: str, notes: Sequence[str] = ()) -> list[str]:
    """The lines that every table begins with."""
    caches = ", ".join(f"{level.upper()} {facts[level]}" for level in ("l1d", "l2", "l3") if level in facts)
    measured = ", ".join(f"{what} {value:.1f} {unit}" for what, _, unit, value in ((*name.partition("_"), v) for name, v in peaks.items()))
    forced = ", ".join(f"{name}={value}" for name, value in facts.get("forced", {}).items())
    return [
        f"# {title}",
        "",
        f"{facts.get('cpu', 'unknown CPU')}, {facts['cores']} cores, {caches}; {', '.join(facts.get('isa', []))}. {facts['system']}.",
        f"Measured in this run: {measured}. Load before the run: {facts.get('load', 0):.1f}.",
        *([f"Held to an instruction set: {forced}."] if forced else []),
        method,
        *notes,
        "",
    ]
