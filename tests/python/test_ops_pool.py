"""Pooling: hand examples, gradients, every instruction set against the references, torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oracle import check_gradient, check_native, distinct, evaluate, every_isa, integers, normal, trace
from wiesel import ops

SQUARE = np.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]], float)

CASES: list[tuple[tuple[int, ...], Any, dict[str, Any]]] = [
    ((2, 4, 6, 3), 2, {}),
    ((1, 7, 7, 5), 3, {"stride": 2}),
    ((2, 5, 6, 4), (2, 3), {"stride": (1, 2), "padding": 1}),
    ((1, 7, 5, 17), 3, {"stride": 2, "padding": "same"}),
    ((1, 8, 8, 2), 3, {"stride": 2, "fit": "pad"}),
    ((1, 6, 7, 33), 2, {"stride": 3}),
    ((1, 17, 18, 2), (17, 18), {}),
    ((2, 5, 5, 1), 5, {"stride": 1, "padding": 4}),
]
KINDS = ["max", "average", "average inside", "sum"]


def pool(kind: str, kernel: Any, kw: dict[str, Any]) -> Any:
    if kind == "max":
        return lambda x: ops.max_pool2d(x, kernel, **kw)
    if kind == "sum":
        return lambda x: ops.sum_pool2d(x, kernel, **kw)
    return lambda x: ops.avg_pool2d(x, kernel, count_padding=kind == "average", **kw)


def on_square(fn: Any, *args: Any) -> list[list[float]]:
    return evaluate(lambda x: fn(x, *args), SQUARE[None, ..., None])[0, ..., 0].tolist()  # type: ignore[no-any-return]


def test_s44_max_pooling() -> None:
    assert on_square(ops.max_pool2d, 2) == [[6, 8], [3, 4]]


def test_s45_size_and_stride() -> None:
    assert evaluate(lambda x: ops.max_pool2d(x, 3, stride=2), np.zeros((1, 55, 55, 1))).shape == (1, 27, 27, 1)


def test_s46_average_pooling() -> None:
    assert on_square(ops.avg_pool2d, 2) == [[3.25, 5.25], [2, 2]]


def test_s47_sum_pooling() -> None:
    assert on_square(ops.sum_pool2d, 2) == [[13, 21], [8, 8]]
    x = normal((1, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(evaluate(lambda x: ops.sum_pool2d(x, 4), x), evaluate(lambda x: ops.avg_pool2d(x, 4), x) * 16)


def test_s50_depth_is_unchanged() -> None:
    assert evaluate(lambda x: ops.max_pool2d(x, 2), np.zeros((1, 224, 224, 64), np.uint8).astype(np.float32)).shape == (1, 112, 112, 64)


def test_s51_a_small_shift_inside_a_window_changes_nothing() -> None:
    x = np.zeros((1, 6, 6, 1))
    x[0, 2, 2] = 1
    np.testing.assert_array_equal(
        evaluate(lambda x: ops.max_pool2d(x, 2), x), evaluate(lambda x: ops.max_pool2d(x, 2), np.roll(x, (1, 1), (1, 2)))
    )


def test_s53_global_average_pooling() -> None:
    x = normal((2, 7, 7, 1024))
    y = evaluate(ops.global_avg_pool2d, x)
    assert y.shape == (2, 1024)
    np.testing.assert_allclose(y, x.mean((1, 2)), atol=1e-12)
    np.testing.assert_array_equal(evaluate(ops.global_max_pool2d, x), x.max((1, 2)))


def test_s06_subsample_tenfold_by_block_means() -> None:
    x = normal((1, 300, 400, 1))
    y = evaluate(lambda x: ops.avg_pool2d(x, 10), x)
    assert y.shape == (1, 30, 40, 1)
    np.testing.assert_allclose(y[0, ..., 0], x[0, ..., 0].reshape(30, 10, 40, 10).mean((1, 3)), atol=1e-6)


def test_s54_ties_go_to_the_first_in_row_order() -> None:
    traced = trace(lambda x: ops.max_pool2d(x, 2), np.array([[1, 3], [3, 3.0]])[None, ..., None], gradient=True)
    traced.inputs["s0"] = np.ones((1, 1, 1, 1))
    assert traced.reference()["d0"][0, ..., 0].tolist() == [[0, 1], [0, 0]]


def test_s54_average_is_spread_and_sum_is_copied() -> None:
    for fn, share in ((ops.avg_pool2d, 0.25), (ops.sum_pool2d, 1.0)):
        traced = trace(lambda x, fn=fn: fn(x, 2), np.zeros((1, 2, 2, 1)), gradient=True)
        traced.inputs["s0"] = np.ones((1, 1, 1, 1))
        assert (traced.reference()["d0"] == share).all()


def test_nan_wins_and_padding_never_does() -> None:
    x = np.full((1, 2, 2, 1), -5.0)
    assert (evaluate(lambda x: ops.max_pool2d(x, 3, stride=1, padding=1), x) == -5).all()
    x[0, 1, 0] = np.nan
    assert np.isnan(evaluate(lambda x: ops.max_pool2d(x, 2), x)).all()
    assert (evaluate(lambda x: ops.max_pool2d(x, 3, stride=1, padding=1), np.full((1, 2, 2, 1), -np.inf)) == -np.inf).all()


def test_count_padding() -> None:
    x = np.ones((1, 2, 2, 1))
    assert evaluate(lambda x: ops.avg_pool2d(x, 2, stride=1, padding=1), x)[0, 0, 0, 0] == 0.25
    assert (evaluate(lambda x: ops.avg_pool2d(x, 2, stride=1, padding=1, count_padding=False), x) == 1).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("x", "kernel", "kw"), CASES)
def test_s74_pooling_gradients(x: tuple[int, ...], kernel: Any, kw: dict[str, Any], kind: str) -> None:
    check_gradient(pool(kind, kernel, kw), distinct(x), batch=[0])


def test_s74_max_pooling_with_dilation() -> None:
    check_gradient(lambda x: ops.max_pool2d(x, 2, stride=1, dilation=3), distinct((1, 6, 7, 2)))


@every_isa()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("x", "kernel", "kw"), CASES)
def test_pooling_native(x: tuple[int, ...], kernel: Any, kw: dict[str, Any], kind: str, isa: str) -> None:
    if kind == "max":
        check_native(pool(kind, kernel, kw), integers(x), isa=isa, exact=True)  # with ties
    check_native(pool(kind, kernel, kw), normal(x), isa=isa, k=4)


@every_isa()
def test_global_pooling_native(isa: str) -> None:
    check_native(ops.global_avg_pool2d, normal((3, 7, 9, 21)), isa=isa, k=8)
    check_native(ops.global_max_pool2d, integers((3, 7, 9, 21)), isa=isa, exact=True)
    check_native(ops.global_max_pool2d, integers((1, 17, 19, 5)), isa=isa, exact=True)


@every_isa()
def test_positions_that_nobody_reads_are_not_written(isa: str) -> None:
    from wiesel.passes.fuse import fuse

    def pool(x: Any) -> Any:
        return ops.max_pool2d(x, 2)

    x = integers((2, 4, 4, 3))
    for gradient in (False, True):
        graph = fuse(trace(pool, x, gradient=gradient).graph, training=gradient)
        assert len(graph.nodes[0].outputs) == 1 + gradient
    check_native(pool, x, isa=isa, exact=True, gradient=False)


def test_functions_of_arrays() -> None:
    pytest.importorskip("wiesel._core")
    x = SQUARE[None, ..., None]
    assert ops.max_pool2d(x, 2)[0, ..., 0].tolist() == [[6, 8], [3, 4]]
    assert ops.max_pool2d_backward(np.ones((1, 2, 2, 1)), x, 2).sum() == 4
    assert (ops.avg_pool2d_backward(np.ones((1, 2, 2, 1)), x.shape, 2) == 0.25).all()
    assert (ops.sum_pool2d_backward(np.ones((1, 2, 2, 1)), x.shape, 2) == 1).all()
    assert ops.global_avg_pool2d(x).tolist() == [[SQUARE.mean()]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.max_pool2d(np.zeros((4, 4)), 2), r"x\[None, \.\.\., None\]"),
        (lambda: ops.max_pool2d(np.zeros((1, 4, 4, 1)), 5), "use a smaller kernel"),
        (lambda: evaluate(lambda x: ops.max_pool2d(x, 2, padding=2), np.zeros((1, 4, 4, 1))), "wholly in the padding"),
        (lambda: ops.max_pool2d(np.zeros((1, 4, 4, 1)), 0), "kernel must be at least 1"),
    ],
)
def test_bad_pooling_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("ceil", [False, True])
def test_pooling_against_torch(ceil: bool) -> None:
    torch = pytest.importorskip("torch")
    x = normal((2, 9, 12, 3))
    tx = torch.tensor(x.transpose(0, 3, 1, 2))
    fit = "pad" if ceil else "floor"
    pairs = [
        (lambda x: ops.max_pool2d(x, 3, stride=2, fit=fit), torch.nn.functional.max_pool2d(tx, 3, 2, ceil_mode=ceil)),
        (lambda x: ops.max_pool2d(x, 2, stride=1, dilation=2, padding=1), torch.nn.functional.max_pool2d(tx, 2, 1, 1, 2)),
        (lambda x: ops.avg_pool2d(x, 3, stride=2, padding=1), torch.nn.functional.avg_pool2d(tx, 3, 2, 1)),
        (
            lambda x: ops.avg_pool2d(x, 3, stride=2, padding=1, count_padding=False),
            torch.nn.functional.avg_pool2d(tx, 3, 2, 1, count_include_pad=False),
        ),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(evaluate(ours, x), theirs.numpy().transpose(0, 2, 3, 1), atol=1e-12)
