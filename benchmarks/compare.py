#!/usr/bin/env python3
"""One table and one picture from the results of train.py and infer.py: nets by peers, ratios with their intervals, geometric means.

python benchmarks/compare.py benchmarks/results/train-*.json benchmarks/results/infer-*.json [--picture FILE.svg] [--readme README.md]

A net that was measured more than once counts as in the file that is named last. All files must come from one machine.
With --readme the tables replace what stands between the lines <!-- benchmarks --> and <!-- /benchmarks --> of that file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nets
import protocol

TITLES = {"train": "Training step", "infer": "Inference"}
MEAN_TARGETS = {"infer": 1.15}
"""What the geometric mean over the nets is to reach."""
MEMORY_TARGET = 0.7
FLOOR_TARGET = 0.5
WITHOUT_FLOOR = ("lenet5",)  # all overhead
MARKS = ("<!-- benchmarks -->", "<!-- /benchmarks -->")

Result = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="JSON files of train.py and infer.py")
    parser.add_argument("--picture", type=Path, help="bars of the ratios; the file's ending says the format")
    parser.add_argument("--readme", type=Path, help="a Markdown file whose marked part is replaced by the tables")
    options = parser.parse_args()
    runs = [json.loads(path.read_text()) for path in options.results]
    print("\n".join(report(runs)))
    if options.picture:
        picture(merged(runs), options.picture)
    if options.readme:
        options.readme.write_text(replaced(options.readme.read_text(), report(runs, details=False)))
    return 0


def merged(runs: Iterable[dict[str, Any]]) -> list[Result]:
    """The results of all runs, the last one of each kind, net and batch; the nets in the order of nets.py."""
    found: dict[tuple[str, str, int], Result] = {}
    for run in runs:
        for result in run["results"]:
            found[result["kind"], result["net"], result["batch"]] = result
    order = {name: i for i, name in enumerate(nets.CASES | nets.RECIPES)}
    return sorted(found.values(), key=lambda result: order.get(result["net"], len(order)))


def report(runs: Sequence[dict[str, Any]], *, details: bool = True) -> list[str]:
    """Where it was measured, then a table per kind. Raises SystemExit for runs that cannot be told together."""
    for what, values in {
        "machines": {run["machine"].get("cpu") for run in runs},
        "numbers of threads": {run["threads"] for run in runs},
        "instruction sets": {json.dumps(run["machine"].get("forced", {})) for run in runs},
    }.items():
        if len(values) > 1:
            raise SystemExit(f"results of different {what} make no table: {', '.join(map(str, values))}")
    facts = runs[0]["machine"]
    peaks = {name: max(run["peaks"].get(name, 0.0) for run in runs) for name in runs[0]["peaks"]}
    rates = ", ".join(f"{name.partition('_')[0]} {value:.0f} {name.partition('_')[2]}" for name, value in peaks.items())
    forced = "".join(f", {name}={value}" for name, value in facts.get("forced", {}).items())
    lines = [
        f"{facts.get('cpu', 'unknown CPU')}, {facts['cores']} cores ({', '.join(facts.get('isa', []))}); measured: {rates or 'no peaks'}. "
        f"fp32, {runs[0]['threads']} threads{forced}, medians of {min(run['rounds'] for run in runs)} or more interleaved rounds."
    ]
    everything = merged(runs)
    for kind, title in TITLES.items():
        results = [result for result in everything if result["kind"] == kind]
        if results:
            lines += ["", f"**{title}**, milliseconds", "", *table(results, details=details)]
    return lines


# --- one net -------------------------------------------------------------------------------------------------------------------------


def peers_of(result: Result) -> dict[str, str]:
    """Each peer's fastest contender."""
    times = {name: statistics.median(about["times"]) for name, about in result["contenders"].items() if name != "wiesel"}
    best: dict[str, str] = {}
    for name in sorted(times, key=times.__getitem__):
        best.setdefault(name.partition(" ")[0], name)
    return best


def peers_in(results: Sequence[Result]) -> list[str]:
    """The peers of all results, in the order in which they were started."""
    names = dict.fromkeys(name.partition(" ")[0] for result in results for name in result["contenders"])
    return [name for name in names if name != "wiesel"]


def ratio_of(result: Result) -> tuple[str, protocol.Ratio] | None:
    """The fastest contender of all peers, and its time over wiesel's; None without peers."""
    fastest = next(iter(peers_of(result).values()), None)
    if fastest is None:
        return None
    contenders = result["contenders"]
    return fastest, protocol.ratio(contenders["wiesel"]["times"], contenders[fastest]["times"])


def memory_of(result: Result) -> float | None:
    """What wiesel's plan says over the least growth of resident memory among the peers' settings."""
    planned = result["contenders"]["wiesel"].get("cost", {}).get("planned")
    growths = [about.get("cost", {}).get("growth") for name, about in result["contenders"].items() if name != "wiesel"]
    growths = [growth for growth in growths if growth]
    return planned / min(growths) if planned and growths else None


def by_rates(result: Result, what: str) -> float | None:
    """A step's "floor" (peers/wiesel_floor.py) or "forecast" (``wl.plan``) over wiesel's time: the median of the rounds, each with the
    rates that it found."""
    seconds = result.get(what)
    return protocol.ratio(result["contenders"]["wiesel"]["times"], seconds).median if seconds else None


# --- the table -----------------------------------------------------------------------------------------------------------------------


def row(result: Result, peers: Sequence[str] | None = None) -> str:
    """One line of ``table``."""
    best = peers_of(result)
    contenders = result["contenders"]
    cells = [result["net"], str(result["batch"]), milliseconds(contenders["wiesel"]["times"])]
    cells += [milliseconds(contenders[best[peer]]["times"]) if peer in best else "–" for peer in (best if peers is None else peers)]
    found = ratio_of(result)
    target = result.get("target")
    if found is None:
        cells += ["", "", ""]
    else:
        fastest, r = found
        cells += [str(r), fastest, f"{target:g}: {r.verdict(target)}" if target else ""]
    if result["kind"] == "train":
        shares = (memory_of(result), by_rates(result, "floor"), by_rates(result, "forecast"))
        cells += ["" if share is None else f"{share:.2f}" for share in shares]
    return f"| {' | '.join(cells)} |"


def table(results: Sequence[Result], *, details: bool = True) -> list[str]:
    """Nets by peers, geometric means; with ``details`` every contender's time and what did not run."""
    peers = peers_in(results)
    training = results[0]["kind"] == "train"
    heads = ["net", "batch", "wiesel", *peers, "best peer / wiesel (interval)", "best", "target"]
    heads += ["memory, wiesel / peer", "share of floor", "planned time / measured"] if training else []
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(row(result, peers) for result in results), ""]
    lines += [*means(results), *explanation(results)]
    if not details:
        return lines
    lines.append("")
    for result in results:
        times = ", ".join(f"{name} {milliseconds(about['times'])}" for name, about in result["contenders"].items())
        lines.append(f"- {result['net']}: {times}{sizes(result)}.")
        lines += [f"- {result['net']}: {name} did not run: {error}" for name, error in result["failed"].items()]
    return lines


def means(results: Sequence[Result]) -> list[str]:
    """Geometric means of the ratios, of memory and of the shares of the floor."""
    ratios = [found[1] for found in map(ratio_of, results) if found]
    lines = []
    if len(ratios) > 1:
        mean = protocol.mean(ratios)
        target = MEAN_TARGETS.get(results[0]["kind"])
        verdict = f", target {target:g}: {mean.verdict(target)}" if target else ""
        lines.append(f"Geometric mean of {len(ratios)} nets: {mean}{verdict}.")
    shares = [share for share in map(memory_of, results) if share]
    if len(shares) > 1 and results[0]["kind"] == "train":
        share = statistics.geometric_mean(shares)
        verdict = "reached" if share <= MEMORY_TARGET else "missed"
        lines.append(f"Peak memory of a step, geometric mean: {share:.2f} of the peer's, target {MEMORY_TARGET:g}: {verdict}.")
    floors = [share for share in (by_rates(result, "floor") for result in results if result["net"] not in WITHOUT_FLOOR) if share]
    if len(floors) > 1:
        share = statistics.geometric_mean(floors)
        verdict = "reached" if share >= FLOOR_TARGET else "missed"
        lines.append(
            f"Share of the floor, geometric mean without {', '.join(WITHOUT_FLOOR)}: {share:.2f}, target {FLOOR_TARGET:g}: {verdict}."
        )
    return lines


def explanation(results: Sequence[Result]) -> list[str]:
    confidences = [found[1].confidence for found in map(ratio_of, results) if found]
    if not confidences:
        return []
    confidence = f"Intervals hold the median ratio with {100 * min(confidences):.0f} % confidence"
    return [f"Ratios above 1: wiesel is faster. {confidence}; ± is half the range. A ratio whose interval crosses its target is not shown."]


def sizes(result: Result) -> str:
    """Memory of all contenders, where it was measured."""
    parts = []
    for name, about in result["contenders"].items():
        cost = about.get("cost", {})
        known = {"planned": cost.get("planned"), "growth": cost.get("growth")}
        texts = [f"{value / 2**20:.0f} MiB {what}" for what, value in known.items() if value]
        parts += [f"{name} {', '.join(texts)}"] if texts else []
    return f"; memory: {'; '.join(parts)}" if parts else ""


def milliseconds(values: Sequence[float]) -> str:
    return f"{1000 * statistics.median(values):.4g} ±{100 * protocol.spread(values):.0f} %"


# --- picture and README --------------------------------------------------------------------------------------------------------------


def picture(results: Sequence[Result], path: Path) -> None:
    """Bars: each peer's best time over wiesel's, a line at 1; one panel per kind."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    kinds = [kind for kind in TITLES if any(result["kind"] == kind for result in results)]
    figure, axes = plt.subplots(len(kinds), 1, figsize=(10, 4 * len(kinds)), squeeze=False)
    for kind, axis in zip(kinds, axes[:, 0], strict=True):
        rows = [result for result in results if result["kind"] == kind]
        peers = peers_in(rows)
        width = 0.8 / max(len(peers), 1)
        for i, peer in enumerate(peers):
            found = [(at, ratio_to(peer, result)) for at, result in enumerate(rows) if peer in peers_of(result)]
            at = [place + (i - (len(peers) - 1) / 2) * width for place, _ in found]
            middle = [r.median for _, r in found]
            ends = [[r.median - r.low for _, r in found], [r.high - r.median for _, r in found]]
            axis.bar(at, middle, width, yerr=ends, label=peer, error_kw={"linewidth": 0.8})
        highest = max([ratio_to(peer, result).median for result in rows for peer in peers_of(result)], default=1.0)
        axis.set_ylim(0.0, 1.25 * max(highest, 1.0))  # a disturbed round's interval may leave the picture
        axis.axhline(1.0, color="black", linewidth=0.8)
        axis.set_xticks(range(len(rows)), [f"{result['net']}\nbatch {result['batch']}" for result in rows], fontsize=8)
        axis.set_ylabel("peer's time / wiesel's")
        axis.set_title(f"{TITLES[kind]}: above the line wiesel is faster")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def ratio_to(peer: str, result: Result) -> protocol.Ratio:
    contenders = result["contenders"]
    return protocol.ratio(contenders["wiesel"]["times"], contenders[peers_of(result)[peer]]["times"])


def replaced(text: str, lines: Sequence[str]) -> str:
    """``text`` with ``lines`` between its marks. Raises SystemExit where there are none."""
    begin, end = (text.find(mark) for mark in MARKS)
    if begin < 0 or end < begin:
        raise SystemExit(f"the file has no lines {MARKS[0]} and {MARKS[1]} to write between")
    return text[: begin + len(MARKS[0])] + "\n" + "\n".join(lines) + "\n" + text[end:]


if __name__ == "__main__":
    sys.exit(main())
