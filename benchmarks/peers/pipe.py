"""The side of a contender: answers requests on standard input, one JSON object per line. Imported by each peer, so NumPy at most."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def serve(handlers: dict[str, Callable[..., Any]]) -> None:
    """Runs ``handlers[request["do"]](**rest)`` for every request until the pipe closes; replies {"ok": value} or {"error": text}."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not end up among the replies
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"ok": handlers[request.pop("do")](**request)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        replies.write(json.dumps(reply) + "\n")


class Work:
    """What a contender does over and over. A subclass prepares it in its constructor, from what ``setup`` was asked with."""

    about: dict[str, Any]
    """The reply to ``setup``."""

    def step(self, number: int) -> Any:
        """Step ``number``: the loss of a training step, the result of a layer or a net."""
        raise NotImplementedError

    def planned(self) -> int | None:
        """Bytes that a step takes by the contender's own forecast, if it makes one."""
        return None


def serve_work(make: Callable[..., Work | None]) -> None:
    """Answers ``setup`` (None where ``make`` cannot), ``first`` (values of the first steps), ``run`` (times) and ``cost``."""
    current: list[Work] = []

    def work() -> Work:
        if not current:
            raise RuntimeError("no setup yet")
        return current[0]

    def setup(**settings: Any) -> dict[str, Any] | None:
        current.clear()
        made = make(**settings)
        if made is None:
            return None
        current.append(made)
        return made.about

    def cost() -> dict[str, Any]:
        return {"growth": growth(work().step), "planned": work().planned()}

    serve(
        {
            "setup": setup,
            "first": lambda count: [work().step(i) for i in range(count)],
            "run": lambda seconds, least: timed(work().step, seconds, least),
            "cost": cost,
        }
    )


def timed(step: Callable[[int], Any], seconds: float, least: int) -> dict[str, Any]:
    """Calls ``step(i)`` for about ``seconds``, at least ``least`` times; the median and the least of the calls' seconds."""
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < least or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        step(len(times))
        times.append(time.perf_counter() - start)
    return {"median": statistics.median(times), "fastest": min(times), "steps": len(times)}


# --- memory --------------------------------------------------------------------------------------------------------------------------

_marked: dict[str, int] = {}


def resident() -> dict[str, int]:
    """This process's resident memory in bytes: "VmRSS" now, "VmHWM" its peak, "RssFile" the part that is mapped files (libraries)."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0][:-1]: 1024 * int(words[1]) for words in lines if words and words[0] in ("VmRSS:", "VmHWM:", "RssFile:")}


def mark() -> None:
    """What is resident now (the interpreter, the libraries, the data) is not the net's; ``growth`` counts from here."""
    _marked.clear()
    if Path("/proc/self/clear_refs").exists():
        _marked.update(resident())


def growth(step: Callable[[int], Any], steps: int = 2) -> int | None:
    """Bytes by which the peak of resident memory during warm ``steps`` lies above ``mark``; None where the system does not tell.

    Parts of libraries that were loaded meanwhile are not counted.
    """
    if not _marked:
        return None
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is resident now
    for i in range(steps):
        step(i)
    now = resident()
    return (now["VmHWM"] - now["RssFile"]) - (_marked["VmRSS"] - _marked["RssFile"])


# --- numbers -------------------------------------------------------------------------------------------------------------------------


def operands(layer: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``x`` (n, ih, iw, ic), ``w`` (kh, kw, ic/g, oc), ``dy`` (n, oh, ow, oc) of a convolution: the same numbers for every contender."""
    rng = np.random.default_rng(0)
    oh, ow = ((layer["i" + a] + 2 * layer["p" + a] - layer["dil" + a] * (layer["k" + a] - 1) - 1) // layer["s" + a] + 1 for a in ("h", "w"))
    x = rng.standard_normal((layer["n"], layer["ih"], layer["iw"], layer["ic"]), dtype=np.float32)
    w = rng.standard_normal((layer["kh"], layer["kw"], layer["ic"] // layer["g"], layer["oc"]), dtype=np.float32)
    dy = rng.standard_normal((layer["n"], oh, ow, layer["oc"]), dtype=np.float32)
    return x, w, dy


def digest(result: np.ndarray) -> list[float]:
    """Norm of ``result`` (in NHWC or HWIO), and its product with fixed random numbers: equal for equal arrays, hardly ever else."""
    flat = np.asarray(result, np.float64).ravel()
    return [float(np.linalg.norm(flat)), float(flat @ np.random.default_rng(1).standard_normal(flat.size))]


def nchw(x: np.ndarray) -> np.ndarray:
    """(n, h, w, c) pictures as (n, c, h, w), in that order in memory."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
