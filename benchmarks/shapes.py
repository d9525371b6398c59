"""Random legal shapes of every op that takes time in training, for sweep.py.

A shape is written as in tests/cases: words of letters and a number ("n8 ih28 iw28 ic16 oc32 kh3 kw3 pt1 ..."), names as in docs/naming.md.
``draw`` gives the words of a random one, ``problem`` the op with its operands; so one that was found slow can be named and timed again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wiesel.graph.ir import NUMPY_DTYPES, Builder, Graph, Type, Value
from wiesel.ops.binary import KINDS as BINARY_KINDS
from wiesel.ops.unary import KINDS as UNARY_KINDS
from wiesel.ops.unary import PIECEWISE_LINEAR

Words = dict[str, int]
Draw = Callable[[np.random.Generator], Words]

MOST_MACS = 1 << 29
"""A shape is timed in some milliseconds: multiply-adds of a convolution or a product."""
MOST_BYTES = 96 << 20
"""Of all operands."""
LEAST_BYTES = 1 << 14
"""Below, little but the call would be timed."""

BATCHES = (1, 2, 3, 4, 7, 8, 16, 32, 64)
UPDATES = ("sgd_update", "adam_update")


@dataclass(frozen=True)
class Problem:
    """One op on operands of given types. ``kind`` is the class whose median it is held against."""

    op: str
    kind: str
    inputs: tuple[Type, ...]
    attrs: Mapping[str, Any]

    def graph(self) -> Graph:
        """A graph of this op alone. Raises ValueError for a shape that is not legal."""
        graph = Graph()
        values = [Value(t, "input", f"x{i}") for i, t in enumerate(self.inputs)]
        graph.inputs = {value.name: value for value in values}
        made = Builder(graph, path=self.op).op(self.op, *values, **self.attrs)
        graph.outputs = {f"y{i}": value for i, value in enumerate(made if isinstance(made, tuple) else (made,))}
        return graph

    @property
    def nbytes(self) -> int:
        outputs = [value.type for value in self.graph().outputs.values()]
        return sum(math.prod(t.shape) * NUMPY_DTYPES[t.dtype].itemsize for t in (*self.inputs, *outputs))


def parse(text: str) -> Words:
    """
    >>> parse("n2 ih7 iw9 ic5")
    {'n': 2, 'ih': 7, 'iw': 9, 'ic': 5}
    """
    return {word: int(number) for word, number in re.findall(r"([a-z_]+)(\d+)", text)}


def text(words: Words) -> str:
    return " ".join(f"{word}{number}" for word, number in words.items())


def draw(op: str, rng: np.random.Generator) -> Words:
    """The words of a random legal shape within the limits."""
    while True:
        words = _OPS[op][0](rng)
        try:
            found = problem(op, words)
            if op in UPDATES:
                return words
            if LEAST_BYTES <= found.nbytes <= MOST_BYTES and macs(op, words) <= MOST_MACS:
                return words
        except ValueError:
            continue  # not legal: the window is larger than the picture


def problem(op: str, words: Words) -> Problem:
    """The op on operands of these extents. ValueError where they are not legal."""
    kind, inputs, attrs = _OPS[op][1](op, words)
    return Problem(op, kind, tuple(inputs), attrs)


# --- drawing -------------------------------------------------------------------------------------------------------------------------


def _log(rng: np.random.Generator, low: int, high: int) -> int:
    """low … high, as likely between 1 and 2 as between 100 and 200."""
    return int(math.exp(rng.uniform(math.log(low), math.log(high + 1))))


def _pick(rng: np.random.Generator, weights: Mapping[int, float]) -> int:
    return int(rng.choice(list(weights), p=np.array(list(weights.values())) / sum(weights.values())))


def _channels(rng: np.random.Generator, most: int = 768) -> int:
    """Half of them multiples of 8, as nets have them, half any number."""
    return 8 * _log(rng, 1, most // 8) if rng.random() < 0.5 else _log(rng, 1, most)


def _picture(rng: np.random.Generator) -> Words:
    height = _log(rng, 1, 224)
    width = height if rng.random() < 0.8 else _log(rng, 1, 224)
    return {"n": int(rng.choice(BATCHES)), "ih": height, "iw": width}


def _draw_conv(rng: np.random.Generator) -> Words:
    words = _picture(rng)
    kh = _pick(rng, {1: 0.28, 3: 0.4, 5: 0.1, 7: 0.08, 11: 0.04, 2: 0.05, 4: 0.05})
    kw = kh if rng.random() < 0.9 else _pick(rng, {1: 0.4, 3: 0.3, 5: 0.15, 7: 0.15})
    sh = _pick(rng, {1: 0.68, 2: 0.25, 3: 0.04, 4: 0.03})
    sw = sh if rng.random() < 0.95 else _pick(rng, {1: 0.6, 2: 0.4})
    dil = _pick(rng, {1: 0.88, 2: 0.08, 4: 0.04})
    form = _pick(rng, {0: 0.6, 1: 0.12, 2: 0.14, 3: 0.14})  # plain, first layer, grouped, depthwise
    ic, oc, g = _channels(rng), _channels(rng), 1
    if form == 1:
        ic = _log(rng, 1, 3)
    elif form == 2:
        g = _log(rng, 2, 32)
        ic, oc = g * _log(rng, 2, 64), g * _log(rng, 1, 64)
    elif form == 3:
        g = ic
        oc = ic * _pick(rng, {1: 0.85, 2: 0.1, 3: 0.05})
    same = rng.random() < 0.75
    ph, pw = ((dil * (k - 1) // 2) if same else int(rng.integers(0, k)) for k in (kh, kw))
    words |= {"ic": ic, "oc": oc, "kh": kh, "kw": kw, "sh": sh, "sw": sw, "dh": dil, "dw": dil, "g": g}
    return words | {"pt": ph, "pl": pw, "pb": ph, "pr": pw}


def _draw_matmul(rng: np.random.Generator) -> Words:
    m, n, k = (_log(rng, 1, 4096) for _ in range(3))
    return {"m": m, "n": n, "k": k, "ta": int(rng.integers(2)), "tb": int(rng.integers(2))}


def _draw_pool(rng: np.random.Generator) -> Words:
    words = _picture(rng) | {"ic": _channels(rng)}
    if rng.random() < 0.1:  # one value of each channel
        return words | {"kh": words["ih"], "kw": words["iw"], "sh": 1, "sw": 1, "pt": 0, "pl": 0, "pb": 0, "pr": 0}
    kh = _pick(rng, {2: 0.45, 3: 0.4, 5: 0.1, 7: 0.05})
    kw = kh if rng.random() < 0.9 else _pick(rng, {1: 0.3, 2: 0.4, 3: 0.3})
    stride = kh if rng.random() < 0.4 else _pick(rng, {1: 0.3, 2: 0.6, 3: 0.1})
    pad = 0 if rng.random() < 0.5 else kh // 2 if kh <= kw else 0
    more = int(rng.integers(2))  # ceil mode
    return words | {"kh": kh, "kw": kw, "sh": stride, "sw": stride, "pt": pad, "pl": pad, "pb": pad * (1 - more), "pr": pad * (1 - more)}


def _draw_rows(rng: np.random.Generator) -> Words:
    return {"rows": _log(rng, 1, 200_000), "c": _channels(rng, 2048)}


def _draw_unary(rng: np.random.Generator) -> Words:
    return _draw_rows(rng) | {"kind": int(rng.integers(len(UNARY_KINDS)))}


def _draw_binary(rng: np.random.Generator) -> Words:
    """``form``: which operand is spread, 0 none, 1 a row, 2 a column, 3 one number per picture and channel."""
    kind = int(rng.integers(len(BINARY_KINDS)))
    return {"n": int(rng.choice(BATCHES)), "rows": _log(rng, 1, 4096), "c": _channels(rng), "form": int(rng.integers(4)), "kind": kind}


def _draw_reduce(rng: np.random.Generator) -> Words:
    """``axes``: bit i for axis i of (a, b, c)."""
    return {
        "a": _log(rng, 1, 512),
        "b": _log(rng, 1, 512),
        "c": _log(rng, 1, 512),
        "axes": int(rng.integers(1, 8)),
        "kind": int(rng.integers(3)),
    }


def _draw_transpose(rng: np.random.Generator) -> Words:
    return {
        "a": _log(rng, 1, 256),
        "b": _log(rng, 1, 256),
        "c": _log(rng, 1, 256),
        "d": _log(rng, 1, 64),
        "order": int(rng.integers(1, 24)),
    }


def _draw_softmax(rng: np.random.Generator) -> Words:
    return {"rows": _log(rng, 1, 20_000), "c": _log(rng, 2, 4096)}


def _draw_count(rng: np.random.Generator) -> Words:
    return {"count": _log(rng, 500, 5_000_000)}


# --- the ops -------------------------------------------------------------------------------------------------------------------------

Parts = tuple[str, Sequence[Type], Mapping[str, Any]]


def _window(words: Words) -> dict[str, Any]:
    names = {"kernel": "k", "stride": "s", "dilation": "d"}
    attrs = {f"{name}_{axis}": words.get(short + axis, 1) for name, short in names.items() for axis in "hw"}
    return attrs | {f"pad_{side}": words[f"p{side[0]}"] for side in ("top", "left", "bottom", "right")}


def _out(words: Words) -> tuple[int, int]:
    """Extents of the output; ValueError where there are none."""
    found = []
    for axis, before, after in (("h", "pt", "pb"), ("w", "pl", "pr")):
        span = words.get("d" + axis, 1) * (words["k" + axis] - 1) + 1
        room = words["i" + axis] + words[before] + words[after] - span
        if room < 0:
            raise ValueError(f"a window of {span} does not fit")
        found.append(room // words["s" + axis] + 1)
    return found[0], found[1]


def conv_kind(words: Words) -> str:
    """Convolutions whose best algorithm may differ are different classes."""
    kh, kw, g, ic, oc = (words[word] for word in ("kh", "kw", "g", "ic", "oc"))
    if g > 1:
        return "depthwise" if g == ic else "grouped"
    if min(ic, oc) < 16:
        return "first layer" if ic < 4 else "fewer than 16 channels"
    if (kh, kw) == (1, 1):
        return "1x1"
    if (kh, kw) == (3, 3):
        plain = all(words[word] == 1 for word in ("sh", "sw", "dh", "dw"))
        return "3x3, stride 1" if plain else "3x3, strided or dilated"
    return "other kernels"


def _conv(op: str, words: Words) -> Parts:
    oh, ow = _out(words)
    x = Type((words["n"], words["ih"], words["iw"], words["ic"]))
    w = Type((words["kh"], words["kw"], words["ic"] // words["g"], words["oc"]))
    y = Type((words["n"], oh, ow, words["oc"]))
    attrs = _window(words) | {"groups": words["g"]}
    if op == "conv_bwd_data":
        attrs |= {"in_h": words["ih"], "in_w": words["iw"]}
    return conv_kind(words), {"conv_fwd": (x, w), "conv_bwd_data": (y, w), "conv_bwd_weights": (x, y)}[op], attrs


def _matmul(op: str, words: Words) -> Parts:
    m, n, k, ta, tb = (words[word] for word in ("m", "n", "k", "ta", "tb"))
    kind = "few rows" if m < 16 else "few columns" if n < 16 else "short sums" if k < 16 else "plain"
    a, b = Type((k, m) if ta else (m, k)), Type((n, k) if tb else (k, n))
    return kind, (a, b), {"trans_a": bool(ta), "trans_b": bool(tb)}


def macs(op: str, words: Words) -> int:
    """Multiply-adds of a convolution or a product, without those with padding; 0 for other ops."""
    if op == "matmul":
        return words["m"] * words["n"] * words["k"]
    if not op.startswith("conv"):
        return 0
    meetings = 1  # of a tap with a pixel, over all outputs of a picture
    for axis, before, out in zip("hw", (words["pt"], words["pl"]), _out(words), strict=True):
        at = np.arange(out)[:, None] * words["s" + axis] + np.arange(words["k" + axis]) * words.get("d" + axis, 1) - before
        meetings *= int(((at >= 0) & (at < words["i" + axis])).sum())
    return words["n"] * meetings * words["oc"] * words["ic"] // words["g"]


def _pool(op: str, words: Words) -> Parts:
    attrs = _window(words)
    x = Type((words["n"], words["ih"], words["iw"], words["ic"]))
    thin = ", fewer than 16 channels" if words["ic"] < 16 else ""
    kind = ("whole pictures" if (words["kh"], words["kw"]) == (words["ih"], words["iw"]) else "windows") + thin
    if not op.endswith("_bwd"):
        return kind, (x,), attrs
    y = (words["n"], *_out(words), words["ic"])
    inputs = [Type(y)]
    if op == "pool_max_bwd":
        inputs.append(Type(y, "u8" if words["kh"] * words["kw"] <= 256 else "i32"))
    return kind, inputs, attrs | {"in_h": words["ih"], "in_w": words["iw"]}


def _batch_norm(op: str, words: Words) -> Parts:
    x, c = Type((words["rows"], words["c"])), Type((words["c"],))
    kind = "fewer than 16 channels" if words["c"] < 16 else "16 channels and more"
    if op == "bn_stats":
        return kind, (x,), {}
    vectors = (c, c, c, c)  # mean, var, gamma, beta
    return kind, (x, *vectors) if op == "bn_apply" else (x, x, *vectors), {"activation": "relu"}


def _unary(op: str, words: Words) -> Parts:
    name = list(UNARY_KINDS)[words["kind"]]
    x = Type((words["rows"], words["c"]))
    return "piecewise linear" if name in PIECEWISE_LINEAR else name, (x,) if op == "unary" else (x, x), {"kind": name, "alpha": 0.5}


def _binary(op: str, words: Words) -> Parts:
    n, rows, c = words["n"], words["rows"], words["c"]
    form = {0: (n, rows, c), 1: (1, 1, c), 2: (n, rows, 1), 3: (n, 1, c)}[words["form"]]
    kind = ("alike", "row spread", "column spread", "picture spread")[words["form"]]
    return kind, (Type((n, rows, c)), Type(form)), {"kind": list(BINARY_KINDS)[words["kind"]]}


def _reduce(op: str, words: Words) -> Parts:
    axes = tuple(axis for axis in range(3) if words["axes"] >> axis & 1)
    kind = "all" if len(axes) == 3 else "last axis" if 2 in axes else "leading axes"
    return kind, (Type((words["a"], words["b"], words["c"])),), {"kind": ("sum", "mean", "max")[words["kind"]], "axes": axes}


def _transpose(op: str, words: Words) -> Parts:
    axes, rest, number = [], [0, 1, 2, 3], words["order"]
    for size in (6, 2, 1, 1):
        axes.append(rest.pop(number // size % len(rest)))
    kind = "last axis stays" if axes[-1] == 3 else "last axis moves"
    return kind, (Type((words["a"], words["b"], words["c"], words["d"])),), {"axes": tuple(axes)}


def _softmax(op: str, words: Words) -> Parts:
    x = Type((words["rows"], words["c"]))
    kind = "fewer than 16 classes" if words["c"] < 16 else "16 classes and more"
    if op.startswith("cross_entropy"):
        return kind, (x, Type((words["rows"],), "i32")), {}
    return kind, (x,) if op == "softmax" else (x, x), {}


def _update(op: str, words: Words) -> Parts:
    return "all", (Type((words["count"],)),), {}


_OPS: Mapping[str, tuple[Draw, Callable[[str, Words], Parts]]] = {
    **dict.fromkeys(("conv_fwd", "conv_bwd_data", "conv_bwd_weights"), (_draw_conv, _conv)),
    "matmul": (_draw_matmul, _matmul),
    **dict.fromkeys(("pool_max", "pool_max_bwd", "pool_avg", "pool_avg_bwd"), (_draw_pool, _pool)),
    **dict.fromkeys(("bn_stats", "bn_apply", "bn_bwd"), (_draw_rows, _batch_norm)),
    **dict.fromkeys(("unary", "unary_bwd"), (_draw_unary, _unary)),
    "binary": (_draw_binary, _binary),
    "reduce": (_draw_reduce, _reduce),
    "transpose": (_draw_transpose, _transpose),
    **dict.fromkeys(("softmax", "softmax_bwd", "cross_entropy"), (_draw_softmax, _softmax)),
    **dict.fromkeys(UPDATES, (_draw_count, _update)),
}
OPS = tuple(_OPS)
