"""The shared problems of ``tests/cases``, forward and backward, on every instruction set: small integers, so the results agree exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cases import problems, window
from oracle import check_native, integers, isas, normal, trace
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


def random_convolution(seed: int) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """(keywords, shape of x, shape of w) with odd extents, strides, paddings, dilations, groups."""
    rng = np.random.default_rng(seed)

    def draw(*choices: int) -> int:
        return int(rng.choice(choices))

    groups, ic, oc = draw(1, 1, 1, 2, 3, 5), draw(1, 2, 3, 7, 8, 16, 17), draw(1, 2, 5, 8, 16, 33)
    if draw(0, 0, 0, 1):
        groups, ic, oc = draw(3, 16, 19, 37), 1, draw(1, 1, 2)  # depthwise
    kernel, dilation = (draw(1, 2, 3, 3, 5), draw(1, 2, 3, 3, 4)), (draw(1, 1, 2, 3), draw(1, 1, 2))
    padding = ((draw(0, 1, 2), draw(0, 1, 3)), (draw(0, 1, 2), draw(0, 2, 4)))
    extents = [draw(1, 2, 3, 7, 10) + d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    around = {"stride": (draw(1, 1, 2, 3), draw(1, 1, 2, 4)), "dilation": dilation, "padding": padding, "groups": groups}
    return around, (draw(1, 2, 3), *extents, ic * groups), (*kernel, ic, oc * groups)


def check_random_convolution(seed: int) -> None:
    around, x, w = random_convolution(seed)

    def conv(x: Any, w: Any, b: Any) -> Any:
        return ops.conv2d(x, w, b, **around)

    check_native(conv, integers(x), integers(w, 1), integers(w[3:], 2), isa=isas(), exact=True)


@pytest.mark.parametrize("seed", range(40))
def test_random_convolutions(seed: int) -> None:
    check_random_convolution(seed)


@pytest.mark.slow
def test_many_random_convolutions() -> None:
    for seed in range(40, 1000):
        check_random_convolution(seed)


@pytest.mark.parametrize("seed", range(20))
def test_random_pooling(seed: int) -> None:
    around, x, w = random_convolution(seed)
    around = {**around, "padding": tuple((min(a, k - 1), min(b, k - 1)) for (a, b), k in zip(around["padding"], w, strict=False))}
    del around["groups"]
    check_native(lambda x: ops.max_pool2d(x, w[:2], **around), integers(x), isa=isas(), exact=True)
    del around["dilation"]
    check_native(lambda x: ops.sum_pool2d(x, w[:2], **around), integers(x), isa=isas(), exact=True)


@pytest.mark.parametrize("name", ["conv", "depthwise", "dense", "pool", "norm", "loss", "moves"])
def test_bits_depend_on_neither_threads_nor_the_planned_batch(name: str) -> None:
    x = normal((3, 9, 10, 17))
    functions: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "conv": (lambda x, w: ops.relu(ops.conv2d(x, w, padding="same", stride=2)), (x, normal((3, 3, 17, 40), 1))),
        "depthwise": (lambda x, w: ops.conv2d(x, w, padding=1, groups=17), (x, normal((3, 3, 1, 17), 1))),
        "dense": (lambda x, w: ops.linear(ops.flatten(x), w), (x, normal((1530, 10), 1))),
        "pool": (lambda x: (ops.max_pool2d(x, 3, stride=2), ops.avg_pool2d(x, 2), ops.global_avg_pool2d(x)), (x,)),
        "norm": (lambda x: ops.local_response_norm(ops.batch_norm(x, *ops.batch_stats(x), frozen=False)), (x,)),
        "loss": (lambda x: ops.cross_entropy(ops.global_avg_pool2d(x), np.arange(3)), (x,)),
        "moves": (lambda x: ops.concat([ops.dropout(x), ops.pad(ops.slice(x, [None, slice(1, 9)]), [0, (0, 1), 0, 0])]), (x,)),
    }
    fn, operands = functions[name]
    batch = () if name == "loss" else (0,)
    traced = trace(fn, *operands, gradient=True, batch=batch)
    for isa in isas():
        expected = traced.native(isa)
        for threads, n in ((2, None), (3, None), (4, None), (1, 8), (2, 5)):
            if batch or n is None:
                found = traced.native(isa, threads, n)
                for key, array in expected.items():
                    np.testing.assert_array_equal(found[key], array, err_msg=f"{key}, {threads} threads, planned for {n}, {isa}")
