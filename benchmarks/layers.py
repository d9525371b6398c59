#!/usr/bin/env python3
"""Single convolution layers in three directions, beside a peer: milliseconds, GFLOP/s, share of the measured peak, and the ratio.

python benchmarks/layers.py --peer-python /path/to/venv/bin/python [--cases "resnet18"] [--directions forward]

Forward runs with weights prepared beforehand (as in inference), the backward directions from plain weights (as in a training step).
The first layers of layers.txt stand for many; after them come all others of the nets, each shape once.
The peer runs in every layout, and forward prepacked; each row compares with its fastest setting.
"""

from __future__ import annotations

import re
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import protocol

DIRECTIONS = ("forward", "backward_data", "backward_weights")
PEERS = ("torch",)
SETTINGS = ("nchw", "channels_last", "prepacked")
LEAST = 0.8  # of every layer
MEANS = {
    "3x3, stride 1": {"forward": 2.0, "backward_data": 2.0, "backward_weights": 1.7},
    "everything else": {"forward": 1.0, "backward_data": 1.0, "backward_weights": 1.0},
}
"""What the geometric means are to reach."""


@dataclass(frozen=True)
class Layer:
    """One convolution: extents as in docs/naming.md."""

    name: str
    n: int
    ih: int
    iw: int
    ic: int
    oc: int
    kh: int
    kw: int
    sh: int
    sw: int
    ph: int
    pw: int
    dilh: int
    dilw: int
    g: int

    @property
    def kind(self) -> str:
        """The class in which its ratio is averaged: "3x3, stride 1" are those without groups and dilation."""
        plain = (self.kh, self.kw, self.sh, self.sw, self.dilh, self.dilw, self.g) == (3, 3, 1, 1, 1, 1, 1)
        return "3x3, stride 1" if plain else "everything else"

    @property
    def flops(self) -> int:
        """Floating-point operations of one direction, by the direct formula."""
        oh = (self.ih + 2 * self.ph - self.dilh * (self.kh - 1) - 1) // self.sh + 1
        ow = (self.iw + 2 * self.pw - self.dilw * (self.kw - 1) - 1) // self.sw + 1
        return 2 * self.n * oh * ow * self.oc * self.kh * self.kw * self.ic // self.g


def parse(line: str) -> Layer:
    """A line of layers.txt.

    >>> parse("n1 ih8 ic3 oc4 kh3 ph1  # small").flops
    13824
    """
    text, _, name = line.partition("#")
    words = {key: int(value) for key, value in re.findall(r"([a-z]+)(\d+)", text)}
    square = {"iw": "ih", "kw": "kh", "sw": "sh", "pw": "ph", "dilw": "dilh"}
    full = {"sh": 1, "ph": 0, "dilh": 1, "g": 1, **words}
    full.update({across: full[down] for across, down in square.items() if across not in words})
    return Layer(name=name.strip(), **full)


def read(path: Path) -> list[Layer]:
    return [parse(line) for line in path.read_text().splitlines() if line.partition("#")[0].strip()]


def main() -> int:
    parser = protocol.arguments(__doc__, peers=PEERS, seconds=0.2)
    parser.add_argument("--file", type=Path, default=protocol.HERE / "layers.txt")
    parser.add_argument("--cases", default="", help="only layers whose name has this in it")
    parser.add_argument("--directions", default=",".join(DIRECTIONS))
    options = parser.parse_args()
    directions = options.directions.split(",")
    layers = [layer for layer in read(options.file) if options.cases in layer.name]
    if not layers or not set(directions) <= set(DIRECTIONS):
        raise SystemExit(f"nothing to do: give layers of {options.file}, directions of {', '.join(DIRECTIONS)}")
    session = protocol.Session("layers", options, PEERS)
    contenders = [session.contender("wiesel", "wiesel_layers.py")]
    contenders += [
        session.contender(f"{peer} {name}", f"{peer}_layers.py") for peer in session.peers for name in SETTINGS if session.wants(name)
    ]
    results = []
    try:
        for layer in layers:
            for direction in directions:
                results.append(measure(layer, direction, contenders, session))
                print(f"{layer.name}, {direction}: {results[-1]['times']}", file=sys.stderr)
    finally:
        for contender in contenders:
            contender.close()
    target = options.target or LEAST
    session.report(
        "Convolution layers", "GFLOP/s by the direct formula, for every algorithm.", results, table(results, session.peaks, target)
    )
    return 0


def measure(layer: Layer, direction: str, contenders: list[protocol.Contender], session: protocol.Session) -> dict[str, Any]:
    """One layer in one direction; the settings that do not have it are left out. All must compute the same."""
    able = []
    digests = {}
    for contender in contenders:
        setting = contender.name.partition(" ")[2]
        reply = contender.ask("setup", layer=asdict(layer), direction=direction, setting=setting)
        if reply is not None:
            able.append(contender)
            digests[contender.name] = reply["digest"]
    norm, projection = digests["wiesel"]
    for name, (its_norm, its_projection) in digests.items():
        if abs(its_norm - norm) > 1e-4 * norm or abs(its_projection - projection) > 1e-3 * norm:
            raise RuntimeError(f"{layer.name}, {direction}: {name} computes something else ({digests})")
    return {"layer": asdict(layer), "direction": direction, "flops": layer.flops, "times": session.take_turns(able)}


def table(results: list[dict[str, Any]], peaks: dict[str, float], target: float) -> list[str]:
    """One row per layer and direction, then the geometric means."""
    peak = peaks.get("fma_GFLOP/s")
    lines = [
        f"| layer | direction | wiesel ms | GFLOP/s | % of peak | peer's best ms | setting | peer/wiesel (interval) | target {target:g} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    ratios: dict[tuple[str, str], list[protocol.Ratio]] = {}
    for result in results:
        times = dict(result["times"])
        ours = times.pop("wiesel")
        mine = statistics.median(ours)
        rate = result["flops"] / mine / 1e9
        row = [result["layer"]["name"], result["direction"].replace("_", " "), f"{1000 * mine:.3f}", f"{rate:.0f}"]
        row.append(f"{100 * rate / peak:.0f}" if peak else "")
        if times:
            best = min(times, key=lambda name: statistics.median(times[name]))
            r = protocol.ratio(ours, times[best])
            ratios.setdefault((Layer(**result["layer"]).kind, result["direction"]), []).append(r)
            row += [f"{1000 * statistics.median(times[best]):.3f}", best, str(r), r.verdict(target)]
        else:
            row += ["", "", "", ""]
        lines.append("| " + " | ".join(row) + " |")
    lines.append("")
    for (kind, direction), values in sorted(ratios.items()):
        mean, wanted = protocol.mean(values), MEANS[kind][direction]
        lines.append(
            f"- {kind}, {direction.replace('_', ' ')}: geometric mean of {len(values)} {mean}, target {wanted:g}: {mean.verdict(wanted)}"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
