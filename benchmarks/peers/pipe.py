"""The side of a contender: answers requests on standard input, one JSON object per line. Standard library only; imported by each peer."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any


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
