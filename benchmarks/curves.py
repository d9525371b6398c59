#!/usr/bin/env python3
"""Loss curves over some hundred steps on real data: the default algorithms beside direct ones, and what rounding alone does to them.

python benchmarks/curves.py --data-dir FOLDER [--nets lenet5,resnet18-32] [--steps 200] [--picture FILE.png] [--table FILE.md]

Each net trains from the same weights on the same batches: with the algorithms that are chosen by default; with every convolution direct,
which the tests hold against the plain references; and NEIGHBOURS times with direct ones from weights that differ by one rounding error
each (w (1 ± 2^-24), drawn at random). Training multiplies such differences, so two exact programs part as well. How far is measured: the
distance of two curves is the root mean square of their difference, and the default's distance from the direct curve must not exceed
ALLOWED times the largest distance among the direct curve and its neighbours.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import wiesel as wl
from wiesel import data, models, nn, optim
from wiesel.report import new_figure

NEIGHBOURS = 3
ALLOWED = 3.0
"""The largest of some distances is itself uncertain: with NEIGHBOURS neighbours a further one exceeds it often, three times it hardly."""


@dataclass(frozen=True)
class Case:
    """A net, its data, and how it is trained: small steps, as at the end of a training, do not multiply errors beyond reason."""

    name: str
    source: str
    """"mnist" and "cifar10" as ``wiesel.data`` loads them, or "photographs"."""
    batch: int
    side: int = 0
    """Photographs are brought to side x side pixels."""
    lr: float = 0.001
    options: Any = None


CASES = (
    Case("lenet5", "mnist", 64, options={"padding": 2}),
    Case("mnist", "mnist", 32, options={"dropout": 0.0}),
    Case("sixconv", "photographs", 8, 150),
    Case("resnet18-32", "cifar10", 8),
    Case("mobilenet-v1", "photographs", 8, 96),
    Case("mobilenet-v2", "photographs", 8, 96, options={"dropout": 0.0}),
    Case("googlenet", "photographs", 8, 96, options={"dropout": 0.0}),
    Case("resnet18", "photographs", 8, 96),
    Case("resnet50", "photographs", 8, 64),
    Case("alexnet", "photographs", 8, 112, options={"dropout": 0.0}),
    Case("vgg16", "photographs", 4, 64, options={"dropout": 0.0}),
)


@dataclass(frozen=True)
class Curves:
    """Losses step by step."""

    name: str
    default: np.ndarray
    direct: np.ndarray
    neighbours: np.ndarray
    """(NEIGHBOURS, steps)."""

    @property
    def distance(self) -> float:
        return distance(self.default, self.direct)

    @property
    def noise(self) -> float:
        """The largest distance between two of the direct curve and its neighbours."""
        return max(distance(a, b) for a, b in itertools.combinations([self.direct, *self.neighbours], 2))

    @property
    def within(self) -> bool:
        return self.distance <= ALLOWED * self.noise


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square of the difference of two curves.

    >>> distance(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    0.0
    """
    return float(np.sqrt(np.mean((a - b) ** 2)))


Net = Callable[[], nn.Module]


def make_direct(net: nn.Module) -> nn.Module:
    """Every convolution of ``net`` with the direct algorithm, forward and backward."""
    for _, module in net.named_modules():
        if hasattr(module, "algorithm"):
            module.algorithm = "direct"
    return net


def nudge(net: nn.Module, seed: int) -> nn.Module:
    """Every parameter is multiplied by 1 + 2^-24 or 1 - 2^-24: by half a unit in the last place, which is then rounded."""
    rng = np.random.default_rng(seed)
    for parameter in net.parameters().values():
        value = parameter.value.astype(np.float64)
        parameter.assign((value * (1 + rng.choice([-1.0, 1.0], value.shape) * 2.0**-24)).astype(np.float32))
    return net


def train(net: nn.Module, x: np.ndarray, y: np.ndarray, batch: int, steps: int, lr: float) -> np.ndarray:
    """The losses of ``steps`` steps of SGD with momentum on the batches of (x, y) in turn."""
    trainer = wl.Trainer(net, optimizer=optim.SGD(lr, momentum=0.9), seed=0)
    batches = len(x) // batch
    return np.array(
        [trainer.step(x[i * batch : (i + 1) * batch], y[i * batch : (i + 1) * batch]) for i in (s % batches for s in range(steps))]
    )


def compare(
    name: str, make: Net, x: np.ndarray, y: np.ndarray, *, batch: int, steps: int, lr: float, neighbours: int = NEIGHBOURS
) -> Curves:
    """All curves of the net that ``make`` makes, which has the same weights every time."""

    def run(prepare: Callable[[nn.Module], nn.Module]) -> np.ndarray:
        return train(prepare(make().build(x.shape[1:], seed=0)), x, y, batch, steps, lr)

    default, direct = run(lambda net: net), run(make_direct)
    return Curves(name, default, direct, np.array([run(lambda net, s=s: nudge(make_direct(net), s)) for s in range(neighbours)]))  # type: ignore[misc]


# --- data ----------------------------------------------------------------------------------------------------------------------------


def pictures(case: Case, folder: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """``count`` pictures in a random order, bytes brought to [-1, 1], and their classes."""
    if case.source == "photographs":
        x, y = photographs(folder / "cats-vs-dogs" / "train", case.side, count)
    else:
        found = data.load(case.source, folder).train
        chosen = np.random.default_rng(0).permutation(len(found))[:count]
        x, y = found.gather(chosen)[:2]
    return x.astype(np.float32) / 127.5 - 1, y.astype(np.int32)


def photographs(folder: Path, side: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A folder for each class."""
    named = [(path, label) for label, part in enumerate(sorted(folder.iterdir())) for path in sorted(part.glob("*.jpg"))]
    chosen = [named[i] for i in np.random.default_rng(0).permutation(len(named))[:count]]
    return np.stack([data.load_image(path, size=(side, side)) for path, _ in chosen]), np.array([label for _, label in chosen])


# --- telling -------------------------------------------------------------------------------------------------------------------------


def table(found: Sequence[tuple[Case, Curves]]) -> list[str]:
    lines = ["| net | data | batch | first and last loss | default from direct | among neighbours | within |", "|---" * 7 + "|"]
    for case, c in found:
        size = f", {case.side}×{case.side}" if case.side else ""
        ends = f"{c.direct[:5].mean():.3f} → {c.direct[-5:].mean():.3f}"
        lines.append(
            f"| {c.name} | {case.source}{size} | {case.batch} | {ends} | {c.distance:.2e} | {c.noise:.2e} | {'yes' if c.within else 'no'} |"
        )
    return lines


def draw(found: Sequence[Curves], path: Path) -> None:
    """For each net the curves, and below them the differences from the direct one."""
    columns = 4
    rows = -(-len(found) // columns)
    figure = new_figure(3.6 * min(columns, len(found)), 3.6 * rows)
    grid = figure.add_gridspec(2 * rows, min(columns, len(found)), height_ratios=[3, 2] * rows)
    for i, c in enumerate(found):
        row, column = divmod(i, columns)
        upper, lower = figure.add_subplot(grid[2 * row, column]), figure.add_subplot(grid[2 * row + 1, column])
        steps = np.arange(1, len(c.direct) + 1)
        upper.plot(steps, c.direct, color="#9aa5b4", linewidth=2.2, label="direct")
        upper.plot(steps, c.default, color="#c2410c", linewidth=0.8, label="default")
        apart = np.maximum(np.abs(c.neighbours - c.direct).max(axis=0), 1e-9)
        lower.fill_between(steps, 1e-9, apart, color="#d5dbe3", linewidth=0, label="neighbours")
        lower.plot(steps, np.maximum(np.abs(c.default - c.direct), 1e-9), color="#c2410c", linewidth=0.8, label="default")
        lower.set_yscale("log")
        upper.set_title(c.name, loc="left", fontsize=10)
        for axes in (upper, lower):
            axes.tick_params(labelsize=7, length=2)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        if column == 0:
            upper.set_ylabel("loss", fontsize=8)
            lower.set_ylabel("apart from direct", fontsize=8)
        if i == 0:
            upper.legend(fontsize=7, frameon=False)
            lower.legend(fontsize=7, frameon=False, loc="lower right")
    figure.savefig(path, dpi=75)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=data.default_folder(), help="folder of the data sets (default: %(default)s)")
    parser.add_argument("--nets", default="all", help=f"comma-separated, of: {', '.join(case.name for case in CASES)}")
    parser.add_argument("--steps", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument(
        "--kept", type=Path, help="folder in which the curves of each net are kept; those that are there are not computed anew"
    )
    parser.add_argument("--picture", type=Path, help="the file's ending says the format")
    parser.add_argument("--table", type=Path, help="a Markdown file")
    options = parser.parse_args()
    wanted = [case.name for case in CASES] if options.nets == "all" else options.nets.split(",")
    found = []
    for case in CASES:
        if case.name in wanted:
            started = time.perf_counter()
            found.append((case, curves_of(case, options.data_dir, options.steps, options.kept)))
            print(f"{table(found[-1:])[-1]} {time.perf_counter() - started:.0f} s", file=sys.stderr)
    text = table(found)
    print("\n".join(text))
    if options.table:
        options.table.write_text("\n".join(text) + "\n")
    if options.picture:
        draw([c for _, c in found], options.picture)
    return 0 if all(c.within for _, c in found) else 1


def curves_of(case: Case, folder: Path, steps: int, kept: Path | None = None) -> Curves:
    """Computed, or read from the folder ``kept``."""
    file = kept / f"{case.name}.npz" if kept else None
    if file is not None and file.exists():
        with np.load(file) as arrays:
            return Curves(case.name, arrays["default"], arrays["direct"], arrays["neighbours"])
    x, y = pictures(case, folder, min(steps * case.batch, 600 if case.source == "photographs" else 20_000))
    classes = int(y.max()) + 1
    options = dict(case.options or {})

    def make() -> nn.Module:
        return models.create(case.name, classes=classes, **options)

    found = compare(case.name, make, x, y, batch=case.batch, steps=steps, lr=case.lr)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, default=found.default, direct=found.direct, neighbours=found.neighbours)
    return found


if __name__ == "__main__":
    sys.exit(main())
