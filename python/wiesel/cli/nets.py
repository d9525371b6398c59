"""``wiesel evaluate``, ``predict``, ``summary``, ``explain``: looking at a net."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import wiesel as wl
from wiesel import data, models, report

if TYPE_CHECKING:
    from wiesel.nn import Module

_PIECE = 1000  # samples that are predicted at a time


def test_figures(net: Module, part: data.Dataset, *, by: str) -> report.Figures:
    """Predicts every sample of ``part`` (a look, where it is sealed) and counts."""
    part.note_look(by)
    predicted = [_scores(net, part.slice(start, start + _PIECE)[0]).argmax(axis=1) for start in range(0, len(part), _PIECE)]
    return report.figures(part.y, np.concatenate(predicted), part.class_names or [str(c) for c in range(part.classes)])


def evaluate(options: argparse.Namespace) -> int:
    """Accuracy and per-class table of a saved net on a data set."""
    net = wl.load(options.net)
    parts = data.load(options.data, options.data_dir, seed=options.seed)
    part: data.Dataset = getattr(parts, options.split)
    result = test_figures(net, part, by="wiesel evaluate")
    print(f"{part.name}: accuracy {100 * result.accuracy:.2f} % on {len(part)} pictures\n\n{result.table()}")
    if options.out is not None:
        facts = {"data": options.data, "split": options.split, "net": str(options.net)}
        paths = report.write_report(options.out, result, [], facts, title=f"{part.name}, {options.net.name}")
        print(f"\nin {options.out}: {', '.join(path.name for path in paths)}")
    return 0


def predict(options: argparse.Namespace) -> int:
    """Class and probability of each picture; one that cannot be read is named, the others go on."""
    net = wl.load(options.net)
    height, width, channels = _input_shape(net, None)
    failed = 0
    for path in options.images:
        try:
            picture = data.load_image(path, "L" if channels == 1 else "RGB", size=(height, width))
        except (OSError, ValueError) as error:
            failed += 1
            print(error, file=sys.stderr)
            continue
        if options.invert:
            picture = 255 - picture
        probabilities = net.predict_proba(picture[np.newaxis])[0]
        best = np.argsort(-probabilities, kind="stable")[: options.top]
        names = net.class_names or [str(c) for c in range(len(probabilities))]
        print(f"{path}: " + ", ".join(f"{names[c]} {100 * probabilities[c]:.1f} %" for c in best))
    return 1 if failed else 0


def summary(options: argparse.Namespace) -> int:
    """Table of layers."""
    net, shape = _net(options)
    print(net.summary(shape, config=options.config))
    return 0


def explain(options: argparse.Namespace) -> int:
    """Table of a program's steps."""
    net, shape = _net(options)
    print(wl.explain(net, (options.batch_size, *shape), training=options.training))
    return 0


def _net(options: argparse.Namespace) -> tuple[Module, tuple[int, ...]]:
    """The net in a file or a model by name, and the shape of a sample."""
    if Path(options.net).suffix == ".wsl" or Path(options.net).exists():
        net = wl.load(options.net)
    else:
        net = models.create(options.net)
        if options.input is None:
            raise ValueError(
                f"the shape of a picture is needed for a model by name: wiesel {options.command} {options.net} --input 32,32,3"
            )
        net.build(options.input)
    return net, _input_shape(net, options.input)


def _input_shape(net: Module, given: tuple[int, ...] | None) -> tuple[int, ...]:
    if given is not None:
        return given
    types = net.engine.sample_types
    if len(types) != 1:
        raise ValueError(f"the net has {len(types)} inputs; the command line knows nets with one")
    return types[0].shape[1:] if types[0].has_batch else types[0].shape


def _scores(net: Module, x: NDArray[np.generic]) -> NDArray[np.float32]:
    scores = net(x)
    if not isinstance(scores, np.ndarray) or scores.ndim != 2:
        raise ValueError("the net must have one output (n, classes) to be tested on class numbers")
    return scores
