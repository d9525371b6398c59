"""``wiesel train``: data, net, training, test, report."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wiesel as wl
from wiesel import data
from wiesel.callbacks import Callback, Checkpoint, Record
from wiesel.cli.nets import test_figures
from wiesel.cli.progress import Progress, progress
from wiesel.cli.recipes import Recipe, recipe_for
from wiesel.report import Figures, write_report

_SETTINGS, _CHECKPOINT, _NET = "settings.json", "checkpoint.wsl", "net.wsl"
_GIVEN = ("net", "epochs", "batch_size", "lr")


def train(options: argparse.Namespace) -> int:
    """Trains, tests and reports; Ctrl-C leaves a checkpoint and says how to go on."""
    recipe, parts, out = _prepare(options)
    net = recipe.build_net(parts.train.sample_shape, parts.train.class_names or ())
    trainer = wl.Trainer(net, loss="cross_entropy", optimizer=recipe.optimizer(), seed=recipe.seed)
    if options.resume is not None:
        trainer.resume(options.resume)
    out.mkdir(parents=True, exist_ok=True)
    recipe.save(out / _SETTINGS)
    counts = f"{len(parts.train)} training, {len(parts.validation)} validation, {len(parts.test)} test pictures"
    print(f"{recipe.data}: {counts} of {'x'.join(map(str, parts.train.sample_shape))}, {parts.train.classes} classes")
    print(f"{recipe.net}: {net.parameter_count:,} parameters; {wl.num_threads()} threads, {wl.isa()}", flush=True)
    started = time.perf_counter()
    try:
        trainer.fit(
            parts.train,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            validation=parts.validation,
            augment=recipe.augmentation(),
            callbacks=[_Show(progress(recipe.epochs, len(parts.train))), Checkpoint(out / _CHECKPOINT)],
        )
    except KeyboardInterrupt:
        again = f"wiesel train {recipe.data} --resume {out / _CHECKPOINT}"
        if options.data_dir is not None:
            again += f" --data-dir {options.data_dir}"
        print(f"\nstopped in epoch {trainer.epoch + 1}; everything so far is in {out / _CHECKPOINT}. To go on:\n  {again}", file=sys.stderr)
        return 130
    seconds = time.perf_counter() - started
    wl.save(net, out / _NET)
    result = test_figures(net, parts.test, by="wiesel train")
    _report(recipe, net, trainer, result, seconds, out)
    return 0


def _prepare(options: argparse.Namespace) -> tuple[Recipe, data.Splits, Path]:
    """The recipe, the data and the folder for results, from the command line or from a checkpoint's folder."""
    if options.resume is None:
        parts = data.load(options.data, options.data_dir, seed=options.seed)
        given = {name: getattr(options, name) for name in _GIVEN}
        recipe = recipe_for(options.data, parts.train, seed=options.seed, **given)
        return recipe, parts, options.out or Path("runs") / f"{recipe.data}-{recipe.net}"
    changed = [f"--{name.replace('_', '-')}" for name in _GIVEN if getattr(options, name) is not None]
    if changed:
        raise ValueError(f"--resume goes on with the settings of the checkpoint; leave out {', '.join(changed)}")
    if not options.resume.is_file():
        raise FileNotFoundError(f"no checkpoint at {options.resume}")
    recipe = Recipe.load(options.resume.parent / _SETTINGS)
    if recipe.data != options.data:
        raise ValueError(f"{options.resume} was trained on {recipe.data}, not {options.data}")
    return recipe, data.load(recipe.data, options.data_dir, seed=recipe.seed), options.out or options.resume.parent


def _report(recipe: Recipe, net: wl.nn.Module, trainer: wl.Trainer, result: Figures, seconds: float, out: Path) -> None:
    print(f"\ntest accuracy {100 * result.accuracy:.2f} % on {int(result.support.sum())} pictures; training took {seconds:.1f} s\n")
    print(result.table())
    facts: dict[str, Any] = {
        "data": recipe.data,
        "net": recipe.net,
        "parameters": net.parameter_count,
        "settings": {
            name: getattr(recipe, name) for name in ("epochs", "batch_size", "lr", "momentum", "weight_decay", "pad", "flip", "seed")
        },
        "optimizer": trainer.optimizer.config(),
        "seconds": seconds,
        "threads": wl.num_threads(),
        "isa": wl.isa(),
        "version": wl.__version__,
    }
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    title = f"{recipe.net} on {recipe.data}" if recipe.net != recipe.data else recipe.data
    try:
        paths = write_report(out, result, list(trainer.history), facts, title=title)
    except ModuleNotFoundError as error:
        paths = [out / "summary.json"]
        print(f"\nno pictures: {error}", file=sys.stderr)
    print(f"\nin {out}: {_NET}, {_CHECKPOINT}, {', '.join(path.name for path in paths)}")


class _Show(Callback):
    """Passes the trainer's figures on to what the user sees."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown

    def on_step_end(self, trainer: wl.Trainer, figures: Mapping[str, float]) -> None:
        self._shown.step(trainer.epoch + 1, int(figures["samples"]), figures)

    def on_epoch_end(self, trainer: wl.Trainer, epoch: int, record: Record) -> None:
        self._shown.epoch(epoch + 1, record)

    def on_fit_end(self, trainer: wl.Trainer) -> None:
        self._shown.close()
