"""Figures and pictures of a trained classifier."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from wiesel import report

TRUTH = [0, 0, 0, 0, 1, 1, 1, 2]
CALLED = [0, 0, 1, 2, 1, 1, 0, 1]


def result() -> report.Figures:
    return report.figures(TRUTH, CALLED, ["ant", "bee", "cat"])


def test_figures_by_hand() -> None:
    r = result()
    assert r.confusion.tolist() == [[2, 1, 1], [1, 2, 0], [0, 1, 0]]
    assert r.accuracy == 0.5
    assert r.support.tolist() == [4, 3, 1]
    assert r.precision.tolist() == [2 / 3, 0.5, 0.0]
    assert r.recall.tolist() == [0.5, 2 / 3, 0.0]
    assert r.f1 == pytest.approx([2 * 2 / 7, 2 * 2 / 7, 0.0])


def test_figures_agree_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    truth, called = rng.integers(0, 6, (2, 500))
    r = report.figures(truth, called, list("abcdef"))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(truth, called, zero_division=0)
    assert r.precision == pytest.approx(precision)
    assert r.recall == pytest.approx(recall)
    assert r.f1 == pytest.approx(f1)
    assert r.support.tolist() == support.tolist()
    assert np.array_equal(r.confusion, metrics.confusion_matrix(truth, called))


def test_a_class_that_never_appears_counts_zero() -> None:
    r = report.figures([0, 0], [0, 0], ["a", "b"])
    assert r.precision.tolist() == [1.0, 0.0]
    assert r.recall.tolist() == [1.0, 0.0]


def test_the_table_has_a_line_per_class_and_the_averages() -> None:
    lines = result().table().splitlines()
    assert lines[0].split() == ["class", "precision", "recall", "F1", "support"]
    assert lines[2].split() == ["bee", "0.5000", "0.6667", "0.5714", "3"]
    assert lines[-1].split()[0] == "average"
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("truth", "called", "match"),
    [([0, 1], [0], "equal length"), ([], [], "equal length"), ([0, 3], [0, 0], "must be 0 to 2"), ([0, 1], [-1, 0], "must be 0 to 2")],
)
def test_wrong_input(truth: list[int], called: list[int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        report.figures(truth, called, ["a", "b", "c"])


def history(epochs: int) -> list[dict[str, float]]:
    return [
        {"loss": 1 / (i + 1), "accuracy": 1 - 0.5 / (i + 1), "val_loss": 1.2 / (i + 1), "val_accuracy": 0.9 - 0.4 / (i + 1)}
        for i in range(epochs)
    ]


@pytest.mark.parametrize("epochs", [0, 1, 40])
def test_report_writes_summary_and_pictures(tmp_path: Path, epochs: int) -> None:
    pytest.importorskip("matplotlib")
    paths = report.write_report(tmp_path / "new", result(), history(epochs), {"net": "x"}, title="bugs")
    assert [p.name for p in paths] == ["summary.json", "confusion.png", "curve.png"][: 3 if epochs else 2]
    summary = json.loads(paths[0].read_text())
    assert summary["net"] == "x"
    assert summary["test"]["accuracy"] == 0.5
    assert len(summary["history"]) == epochs
    for picture in paths[1:]:
        assert picture.read_bytes()[:4] == b"\x89PNG"


def test_confusion_picture_shows_every_count() -> None:
    pytest.importorskip("matplotlib")
    axes = report.confusion_picture(result(), title="bugs").axes[0]
    shown = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts if t.get_text().isdigit()}
    assert shown == {(0, 0): "2", (0, 1): "1", (0, 2): "1", (1, 0): "1", (1, 1): "2", (2, 1): "1"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ant", "bee", "cat"]


def test_many_classes_are_drawn_without_words() -> None:
    pytest.importorskip("matplotlib")
    r = report.figures(np.arange(100), np.arange(100), [f"class {i}" for i in range(100)])
    assert not [t for t in report.confusion_picture(r).axes[0].texts if t.get_text().isdigit()]


def test_missing_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"wiesel\[train\]"):
        report.write_report(tmp_path, result(), [], {}, title="")
    assert (tmp_path / "summary.json").is_file(), "the numbers are kept"
