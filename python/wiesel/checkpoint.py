"""Trainers as files: the net, the optimizer's memory and the position, so that training continues to the same bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from wiesel.callbacks import History
from wiesel.files import net_sections, read_net
from wiesel.program.container import load as load_container
from wiesel.program.container import pack_arrays, unpack_arrays, write_container
from wiesel.program.container import save as save_container

if TYPE_CHECKING:
    from os import PathLike

    from wiesel.train import Trainer

_STATE = "state.json"


def save_trainer(trainer: Trainer, path: str | PathLike[str]) -> None:
    """See ``Trainer.save``."""
    with trainer.net.engine.lock:
        sums = trainer._sums
        state = {
            "step": trainer.step_count,
            "epoch": trainer.epoch,
            "batch": trainer.batch,
            "batches": trainer.batches,
            "batch_size": trainer.batch_size,
            "fit_begin": trainer.fit_begin,
            "planned": trainer.planned,
            "seed": trainer.seed,
            "seconds": trainer._seconds,
            "sums": {"samples": sums.samples, "loss": sums.loss, "hits": sums.hits},
            "settings": _settings(trainer),
            "history": trainer.history.records,
        }
        arrays = {_STATE: np.frombuffer(json.dumps(state).encode(), np.uint8), **trainer.memory.values()}
        save_container(path, write_container({**net_sections(trainer.net), "TRNR": pack_arrays(arrays)}))


def resume_trainer(trainer: Trainer, path: str | PathLike[str]) -> None:
    """See ``Trainer.resume``."""
    file = str(path)
    sections = load_container(path)
    if "TRNR" not in sections:
        raise ValueError(f"{file}: there is no section TRNR: it is a net (wl.load), not a checkpoint of a trainer")
    arrays = dict(unpack_arrays(sections["TRNR"], file, "TRNR"))
    state = _read_state(arrays, file)
    _compare(state["settings"], _settings(trainer), file)
    saved = read_net(sections, file)
    net = trainer.net
    if not net.built:
        net.engine.trace(saved.engine.sample_types, seed=trainer.seed)
    net.load_state_dict(saved.state_dict())
    trainable = {name for name, p in net.parameters().items() if p.trainable}
    expected = {f"moment{m}.{name}": net.parameters()[name].shape for m in range(trainer.optimizer.moments) for name in trainable}
    if arrays:  # a trainer that never stepped has none
        for name, shape in expected.items():
            if name not in arrays or arrays[name].shape != shape:
                raise ValueError(f"{file}: the optimizer's memory {name} is missing or of another shape; are the same parameters frozen?")
    trainer.memory.restore(arrays)
    net.engine.release()
    trainer.step_count, trainer.epoch, trainer.batch = state["step"], state["epoch"], state["batch"]
    trainer.batches, trainer.batch_size, trainer.fit_begin = state["batches"], state["batch_size"], state["fit_begin"]
    trainer.planned = state["planned"]
    trainer.seed, trainer._seconds = state["seed"], state["seconds"]
    trainer._sums.samples, trainer._sums.loss, trainer._sums.hits = (state["sums"][key] for key in ("samples", "loss", "hits"))
    trainer.history = History(state["history"])
    trainer._recent = None
    trainer._resuming = True


def _settings(trainer: Trainer) -> dict[str, Any]:
    """What must be equal for the run to continue as it was."""
    optimizer = trainer.optimizer
    return {
        **optimizer.config(),
        "schedules": [repr(schedule) for schedule in optimizer.schedules],
        "loss": trainer.loss if isinstance(trainer.loss, str) else type(trainer.loss).__name__,
        "accumulate": trainer.accumulate,
        "clip_norm": trainer.clip_norm,
        "clip_value": trainer.clip_value,
    }


def _compare(saved: Any, ours: dict[str, Any], file: str) -> None:
    if not isinstance(saved, dict):
        raise ValueError(f"{file}: the trainer's settings are malformed")
    different = [f"{key}: {saved.get(key)!r} there, {ours.get(key)!r} here" for key in {**saved, **ours} if saved.get(key) != ours.get(key)]
    if different:
        raise ValueError(f"{file}: the checkpoint was made with other settings; {'; '.join(different)}")


def _read_state(arrays: dict[str, Any], file: str) -> dict[str, Any]:
    if _STATE not in arrays:
        raise ValueError(f"{file}: section TRNR has no {_STATE}")
    try:
        state = json.loads(arrays.pop(_STATE).tobytes().decode())
        numbers = ("step", "epoch", "batch", "batches", "batch_size", "fit_begin", "planned", "seed")
        if not all(isinstance(state[key], int) for key in numbers) or min(state[key] for key in numbers[:-1]) < 0:
            raise ValueError("a count is no number of at least 0")
        if not isinstance(state["history"], list) or not all(isinstance(record, dict) for record in state["history"]):
            raise ValueError("the history is no list of records")
        if not isinstance(state["sums"], dict) or not {"samples", "loss", "hits"} <= state["sums"].keys():
            raise ValueError("the sums are incomplete")
        state["seconds"] = float(state["seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: the trainer's state is malformed: {error}") from None
    found: dict[str, Any] = state
    return found
