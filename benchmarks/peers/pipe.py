"""The side of a contender: answers requests on standard input, one JSON object per line. Imported by each peer, so NumPy at most."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
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


def timed(step: Callable[[int], Any], seconds: float, least: int) -> dict[str, Any]:
    """Calls ``step(i)`` for about ``seconds``, at least ``least`` times; each call's time in seconds and the last value."""
    times: list[float] = []
    begin = time.perf_counter()
    value = None
    while len(times) < least or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        value = step(len(times))
        times.append(time.perf_counter() - start)
    return {"median": statistics.median(times), "fastest": min(times), "steps": len(times), "value": value}


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
