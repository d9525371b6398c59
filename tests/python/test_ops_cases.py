"""The shared problems of ``tests/cases``, forward and backward, on every instruction set: small integers, so the results agree exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cases import problems, window
from oracle import check_native, integers, isas, trace
from wiesel import ops
from wiesel.ops.dispatch import call

pytestmark = pytest.mark.skipif(not isas(), reason="the extension is not built")

CONVOLUTIONS = [problem for name in ("conv", "conv_bwd_weights", "depthwise") for problem in problems(name)]


def of(found: list[tuple[str, dict[str, int]]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("words", [words for _, words in found], ids=[line.replace(" ", "") for line, _ in found])


@of(CONVOLUTIONS)
def test_convolutions(words: dict[str, int]) -> None:
    ic = words["ic"]
    groups = words.get("g", ic if "oc" not in words else 1)
    oc = words.get("oc", ic * words.get("m", 1))
    x, w = (words.get("n", 1), words["ih"], words["iw"], ic), (words["kh"], words["kw"], ic // groups, oc)

    def conv(x: Any, w: Any, b: Any) -> Any:
        return ops.conv2d(x, w, b, groups=groups, **window(words))

    check_native(conv, integers(x), integers(w, 1), integers((oc,), 2), isa=isas(), exact=True)


@of(problems("pool"))
@pytest.mark.parametrize("kind", ["max", "average", "inside", "sum"])
def test_pooling(words: dict[str, int], kind: str) -> None:
    kernel, around = (words["kh"], words["kw"]), window(words)
    attrs = trace(lambda x: ops.max_pool2d(x, kernel, **around), np.zeros((1, words["ih"], words["iw"], 1))).graph.nodes[0].attrs
    if kind != "max":
        attrs = {name: value for name, value in attrs.items() if name != "index"}
        attrs |= {"kind": "sum" if kind == "sum" else "average", "count_padding": kind != "inside"}

    def pool(x: Any) -> Any:
        return call("pool_max", [x], attrs)[0] if kind == "max" else call("pool_avg", [x], attrs)

    x = integers((words.get("n", 1), words["ih"], words["iw"], words["ic"]))
    check_native(pool, x, isa=isas(), exact=kind in ("max", "sum"), k=4)


@of(problems("matmul"))
def test_products(words: dict[str, int]) -> None:
    m, n, k, batch = words["m"], words["n"], words["k"], words.get("batch", 0)
    a, b = (k, m) if words.get("ta") else (m, k), (n, k) if words.get("tb") else (k, n)
    a_front = (batch,) if batch and words.get("ba", 1) else ()
    b_front = (batch,) if batch and words.get("bb", 1) else ()

    def product(a: Any, b: Any, c: Any) -> Any:
        return call("matmul", [a, b, c], {"trans_a": bool(words.get("ta")), "trans_b": bool(words.get("tb"))})

    operands = integers((*a_front, *a)), integers((*b_front, *b), 1), integers((n,), 2)
    check_native(product, *operands, isa=isas(), exact=True, batch=())
