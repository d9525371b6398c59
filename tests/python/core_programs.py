"""Small programs written straight through the emitter, for tests of the core alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from wiesel.graph.ir import BATCH, Type, Value
from wiesel.program.container import write_container
from wiesel.program.emit import Emitter, Place

PREPARE, FORWARD, GRAD, UPDATE = 1, 2, 4, 8


def unary_chain(n: int, columns: int, *, kind: str = "relu", steps: int = 1, dtype: str = "f32") -> bytes:
    """``y = kind(kind(… x))`` on rows of ``columns``; the values between lie in the arena, in place."""
    from wiesel import _core

    x = Value(Type((BATCH, columns), dtype), "input", "x")
    y = Value(Type((BATCH, columns)), "node", "y")
    t = Value(Type((BATCH, columns)), "node", "t")
    em = Emitter(n, {x: Place("input"), y: Place("output"), t: Place("arena")}, {"arena": 4 * n * columns})
    ids = [em.tensor(x)] + [em.tensor(t)] * (steps - 1) + [em.tensor(y)]
    with em.within("forward", "chain"):
        for source, target in pairwise(ids):
            em.step("unary", [source], [target], kind=_core.UNARY_KINDS[kind])
    return write_container({"PROG": em.finish([ids[0]], [ids[-1]])})


def sgd(n: int, columns: int) -> bytes:
    """forward: y = x * w (w repeated over rows); grad: g = sum of y over rows; update: w -= lr * g."""
    from wiesel import _core

    x = Value(Type((BATCH, columns)), "input", "x")
    y = Value(Type((BATCH, columns)), "node", "y")
    w = Value(Type((columns,)), "param", "w")
    g = Value(Type((columns,)), "node", "w.grad")
    em = Emitter(
        n, {x: Place("input"), y: Place("output"), w: Place("params"), g: Place("grads")}, {"params": 4 * columns, "grads": 4 * columns}
    )
    rows = em.view(w, (BATCH, columns), (0, 1))
    with em.within("forward", "scale"):
        em.step("binary", [em.tensor(x), rows], [em.tensor(y)], kind=_core.BINARY_KINDS["mul"])
    with em.within("grad", "scale"):
        em.step("reduce", [em.tensor(y)], [em.view(g, (1, columns))], kind=_core.REDUCE_KINDS["sum"], axes=1)
    with em.within("update", "scale"):
        em.step("sgd_update", [em.tensor(g), em.tensor(w)], [em.tensor(w)], momentum=0.0, weight_decay=0.0, slot=_core.SLOTS["first_group"])
    return write_container({"PROG": em.finish([em.tensor(x)], [em.tensor(y)])})


def scalars(lr: float = 0.0) -> np.ndarray:
    from wiesel import _core

    slots = np.zeros(_core.SLOTS["count"], np.int64)
    slots.view(np.float64)[_core.SLOTS["first_group"]] = lr
    return slots
