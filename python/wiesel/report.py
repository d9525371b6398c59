"""What a trained classifier achieves: figures per class, confusion matrix, learning curve; as numbers, text and pictures.

Pictures need matplotlib (``pip install 'wiesel[train]'``); nothing here touches its global state.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _FAINT, _TRAIN, _VALIDATION = "#22262e", "#8b93a1", "#9aa5b8", "#1f5fbf"
_WIDEST_ANNOTATED = 25  # classes; a larger matrix shows colours only


@dataclass(frozen=True)
class Figures:
    """How predictions agree with the truth.

    ``confusion[t, p]`` counts samples of class t that were called p. Per class, with tp, fp, fn its true positives, false positives
    and false negatives: precision tp / (tp + fp), recall tp / (tp + fn), F1 = 2 tp / (2 tp + fp + fn); 0 where nothing is counted.
    """

    class_names: tuple[str, ...]
    confusion: NDArray[np.int64]

    @property
    def support(self) -> NDArray[np.int64]:
        """Samples per class."""
        counts: NDArray[np.int64] = self.confusion.sum(axis=1)
        return counts

    @property
    def accuracy(self) -> float:
        """Share of samples that got their own class."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def precision(self) -> NDArray[np.float64]:
        return _share(np.diag(self.confusion), self.confusion.sum(axis=0))

    @property
    def recall(self) -> NDArray[np.float64]:
        return _share(np.diag(self.confusion), self.confusion.sum(axis=1))

    @property
    def f1(self) -> NDArray[np.float64]:
        return _share(2 * np.diag(self.confusion), self.confusion.sum(axis=0) + self.confusion.sum(axis=1))

    def table(self) -> str:
        """A line of precision, recall, F1 and support per class, and their averages over the classes."""
        width = max(8, *(len(name) for name in self.class_names))
        lines = [f"{'class':<{width}}  precision  recall      F1  support"]
        columns = zip(self.class_names, self.precision, self.recall, self.f1, self.support, strict=True)
        lines += [f"{name:<{width}}  {p:9.4f}  {r:6.4f}  {f:6.4f}  {s:7d}" for name, p, r, f, s in columns]
        means = (float(np.mean(values)) for values in (self.precision, self.recall, self.f1))
        p, r, f = means
        lines.append(f"{'average':<{width}}  {p:9.4f}  {r:6.4f}  {f:6.4f}  {int(self.support.sum()):7d}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        rows = zip(self.class_names, self.precision, self.recall, self.f1, self.support, strict=True)
        return {
            "accuracy": self.accuracy,
            "classes": [
                {"name": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)} for name, p, r, f, s in rows
            ],
            "confusion": self.confusion.tolist(),
        }


def figures(truth: ArrayLike, predicted: ArrayLike, class_names: Sequence[str]) -> Figures:
    """Counts class numbers ``predicted`` (n,) against ``truth`` (n,).

    >>> figures([0, 0, 1, 1], [0, 1, 1, 1], ["no", "yes"]).accuracy
    0.75
    """
    t, p = np.asarray(truth), np.asarray(predicted)
    classes = len(class_names)
    if t.ndim != 1 or t.shape != p.shape or not t.size:
        raise ValueError(f"figures: truth and predictions must be class numbers of equal length, got shapes {t.shape} and {p.shape}")
    if min(t.min(), p.min()) < 0 or max(t.max(), p.max()) >= classes:
        raise ValueError(f"figures: class numbers must be 0 to {classes - 1} for {classes} class names")
    counts = np.bincount(t.astype(np.int64) * classes + p, minlength=classes * classes)
    return Figures(tuple(class_names), counts.reshape(classes, classes).astype(np.int64))


def write_report(
    folder: str | os.PathLike[str], result: Figures, history: Sequence[Mapping[str, float]], facts: Mapping[str, Any], *, title: str
) -> list[Path]:
    """Writes ``summary.json``, ``confusion.png`` and ``curve.png`` into ``folder``; returns their paths.

    ``history`` has a mapping per epoch: ``loss``, ``accuracy`` and, where there was validation, ``val_loss``, ``val_accuracy``.
    ``facts`` (settings, times) go into the summary as they are.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    summary = folder / "summary.json"
    content = {**facts, "test": result.as_dict(), "history": [dict(epoch) for epoch in history]}
    summary.write_text(json.dumps(content, indent=1) + "\n")
    paths = [summary, folder / "confusion.png"]
    confusion_picture(result, title=title).savefig(paths[1], dpi=150)
    if history:
        paths.append(folder / "curve.png")
        curve_picture(history, title=title).savefig(paths[2], dpi=150)
    return paths


def confusion_picture(result: Figures, *, title: str = "") -> Figure:
    """The confusion matrix: a row per true class, coloured by the share of the row, counts in the cells."""
    classes = len(result.class_names)
    side = min(12.0, max(4.2, 0.55 * classes + 1.8))
    figure = new_figure(side + 0.6, side + 0.5)
    axes = figure.add_subplot()
    share = result.confusion / np.maximum(result.support, 1)[:, np.newaxis]
    # the square root keeps a confusion of one in a hundred visible beside the diagonal
    image = axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)
    ticks = range(classes) if classes <= _WIDEST_ANNOTATED else []
    long_names = max(len(name) for name in result.class_names) > 3
    axes.set_xticks(ticks, [result.class_names[i] for i in ticks], rotation=45 if long_names else 0, ha="right" if long_names else "center")
    axes.set_yticks(ticks, [result.class_names[i] for i in ticks])
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="both", length=0, colors=_INK, labelsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if classes <= _WIDEST_ANNOTATED:
        for t, p in np.argwhere(result.confusion):
            dark = share[t, p] > 0.25
            axes.text(
                p, t, f"{result.confusion[t, p]}", ha="center", va="center", fontsize=8.5,
                color="white" if dark else _INK, fontweight="bold" if t == p else "normal",
            )  # fmt: skip
    axes.set_xlabel("predicted", color=_FAINT)
    axes.set_ylabel("true", color=_FAINT)
    wrong = int(result.confusion.sum() - np.trace(result.confusion))
    _titles(axes, title, f"{100 * result.accuracy:.2f} % right, {wrong} of {int(result.confusion.sum())} wrong")
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, ticks=np.sqrt([0.01, 0.1, 0.25, 0.5, 1.0]))
    bar.ax.set_yticklabels(["1 %", "10 %", "25 %", "50 %", "100 %"])
    bar.ax.tick_params(length=0, colors=_FAINT, labelsize=8)
    bar.outline.set_visible(False)
    return figure


def curve_picture(history: Sequence[Mapping[str, float]], *, title: str = "") -> Figure:
    """Loss and accuracy over the epochs, training and validation."""
    figure = new_figure(9.0, 3.8)
    from matplotlib.ticker import MaxNLocator

    epochs = np.arange(1, len(history) + 1)
    for position, (key, label, unit) in enumerate((("loss", "loss", 1.0), ("accuracy", "accuracy, %", 100.0)), start=1):
        axes = figure.add_subplot(1, 2, position)
        lines = (("training", key, _TRAIN), ("validation", f"val_{key}", _VALIDATION))
        ends: list[tuple[float, str, str]] = []
        for name, field, colour in lines:
            values = [unit * epoch[field] for epoch in history if field in epoch]
            if len(values) == len(history):
                axes.plot(epochs, values, color=colour, linewidth=2, marker="o", markersize=3.5 if len(values) <= 30 else 0)
                ends.append((values[-1], name, colour))
        axes.margins(x=0.02)
        _label_ends(axes, ends, float(epochs[-1]), ".2f" if unit > 1 else ".4f")
        axes.grid(axis="y", color="#e6e9ee", linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color("#c5cbd5")
        axes.tick_params(length=0, colors=_FAINT, labelsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch", color=_FAINT, fontsize=9)
        _titles(axes, title if position == 1 else "", label)
    return figure


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], x: float, digits: str) -> None:
    """Names each line at its right end, apart enough to be read."""
    if not ends:
        return
    low, high = axes.get_ylim()
    apart = 0.13 * (high - low)
    places = [value for value, _, _ in ends]
    if len(ends) == 2 and abs(places[0] - places[1]) < apart:
        middle, sign = sum(places) / 2, 1 if places[0] >= places[1] else -1
        places = [middle + sign * apart / 2, middle - sign * apart / 2]
    for place, (value, name, colour) in zip(places, ends, strict=True):
        axes.annotate(
            f"{name}\n{value:{digits}}", (x, place), xytext=(8, 0), textcoords="offset points", va="center",
            color=colour, fontsize=8.5, annotation_clip=False,
        )  # fmt: skip


def _titles(axes: Axes, title: str, subtitle: str) -> None:
    axes.set_title(subtitle, loc="left", color=_FAINT, fontsize=10, pad=8)
    if title:
        axes.annotate(
            title, (0, 1), xycoords="axes fraction", xytext=(0, 26), textcoords="offset points",
            color=_INK, fontsize=12, fontweight="bold", annotation_clip=False,
        )  # fmt: skip


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in the house style, of so many inches; ModuleNotFoundError says how to get matplotlib."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ModuleNotFoundError:
        raise ModuleNotFoundError("pictures need matplotlib: pip install 'wiesel[train]'") from None
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12), facecolor="white")


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
