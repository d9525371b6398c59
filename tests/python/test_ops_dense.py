"""Matrix products, dense layers, softmax and losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oracle import check_gradient, check_native, distinct, evaluate, every_isa, integers, normal, trace
from wiesel import ops
from wiesel.graph.ir import BATCH, Builder, Graph, Type, Value
from wiesel.graph.reference import run_reference


def test_s62_a_dense_layer_is_a_product_plus_bias() -> None:
    x, w, b = normal((3, 5)), normal((5, 4), 1), normal((4,), 2)
    np.testing.assert_allclose(evaluate(ops.linear, x, w, b), x @ w + b, atol=1e-12)
    assert 4096 * 1000 + 1000 == 4_097_000
    cost = trace(lambda x: ops.linear(x, np.zeros((4096, 1000))), np.zeros((2, 4096)), batch=[0]).graph.nodes[0]
    assert cost.op.cost(cost.attrs, [v.type for v in cost.inputs if v], [cost.outputs[0].type]).macs == 4_096_000


@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("trans_a", [False, True])
def test_s74_matmul_gradients(trans_a: bool, trans_b: bool) -> None:
    from wiesel.ops.dispatch import call

    a = normal((4, 3) if trans_a else (3, 4))
    b = normal((5, 4) if trans_b else (4, 5), 1)
    check_gradient(lambda a, b, c: call("matmul", [a, b, c], {"trans_a": trans_a, "trans_b": trans_b}), a, b, normal((5,), 2))


@pytest.mark.parametrize(("a", "b"), [((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (6, 4, 5))])
def test_s74_batched_matmul_gradients(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    check_gradient(ops.matmul, normal(a), normal(b, 1))


def test_s74_linear_gradients() -> None:
    check_gradient(ops.linear, normal((3, 5)), normal((5, 4), 1), normal((4,), 2), batch=[0])
    check_gradient(ops.linear, normal((3, 2, 5)), normal((5, 4), 1), normal((4,), 2), batch=[0])


@every_isa()
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (1, 7, 5), (3, 17, 33), (7, 64, 10), (33, 31, 65), (64, 120, 84), (250, 5, 1)])
def test_linear_native(m: int, k: int, n: int, isa: str) -> None:
    def layer(x: Any, w: Any, b: Any) -> Any:
        return ops.relu(ops.linear(x, w, b))

    check_native(ops.linear, integers((m, k)), integers((k, n), 1), integers((n,), 2), isa=isa, exact=True)
    check_native(layer, normal((m, k)), normal((k, n), 1), normal((n,), 2), isa=isa, k=(k + m) ** 0.5)


@every_isa()
@pytest.mark.parametrize(("a", "b"), [((2, 3, 4), (4, 5)), ((2, 3, 17), (2, 17, 9)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (6, 4, 5))])
def test_batched_matmul_native(a: tuple[int, ...], b: tuple[int, ...], isa: str) -> None:
    check_native(ops.matmul, integers(a), integers(b, 1), isa=isa, exact=True, batch=(0, 1) if a[0] == b[0] else ())


# --- softmax ----------------------------------------------------------------------------------------------------------


def test_s63_softmax() -> None:
    x = np.array([[1e4, -1e4, 0.0], [3, 3, 3], [-1e4, -1e4, -1e4 + 1]])
    y = evaluate(ops.softmax, x)
    assert (np.abs(y.sum(-1) - 1) <= 1e-6).all()
    assert y.min() >= 0
    np.testing.assert_allclose(evaluate(ops.softmax, x + 5), y, atol=1e-9)


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("fn", [ops.softmax, ops.log_softmax])
def test_s74_softmax_gradients(fn: Any, axis: int) -> None:
    check_gradient(lambda x: fn(x, axis), normal((3, 4, 5)))


@every_isa()
@pytest.mark.parametrize("classes", [1, 2, 10, 17, 100, 1003])
def test_softmax_native(classes: int, isa: str) -> None:
    x = 5 * normal((7, classes))
    check_native(ops.softmax, x, isa=isa, k=8 + classes**0.5)
    check_native(ops.log_softmax, x, isa=isa, k=8 + classes**0.5)
    found = trace(ops.softmax, 1e4 * normal((5, classes))).native(isa)["y0"]
    assert (np.abs(found.sum(-1, dtype=np.float64) - 1) <= 1e-6).all()


# --- losses -----------------------------------------------------------------------------------------------------------


def test_s68_cross_entropy_of_a_uniform_output_is_ln_10() -> None:
    assert abs(float(evaluate(ops.cross_entropy, np.zeros((4, 10)), np.arange(4))) - 2.302585) < 1e-6


def test_s69_losses_fall_with_the_score_of_the_true_class() -> None:
    for loss in (ops.cross_entropy, ops.hinge, lambda y, t: ops.mse(y, ops.one_hot(t, 3))):
        values = [float(evaluate(loss, np.array([[p, 0.2, 0.1]]), np.array([0]))) for p in (0.0, 0.3, 0.6, 0.9)]
        assert values == sorted(values, reverse=True)
        assert len(set(values)) == 4


def test_s70_gradient_descent_on_a_quadratic_bowl() -> None:
    curvature = np.array([[3.0, 1.0], [1.0, 2.0]])  # L = largest eigenvalue
    rate = 1.9 / np.linalg.eigvalsh(curvature)[-1]
    x, losses = np.array([[4.0, -3.0]]), []
    for _ in range(20):
        traced = trace(lambda x, a: ops.affine(ops.sum(ops.multiply(x, ops.matmul(x, a))), 0.5), x, curvature, gradient=True)
        traced.inputs["s0"] = np.ones(())
        found = traced.reference()
        losses.append(float(found["y0"]))
        x = x - rate * found["d0"]
    assert (np.diff(losses) < 0).all()


def test_cross_entropy_forms_agree() -> None:
    logits, labels = normal((5, 4)), np.array([0, 3, 1, 2, 2])
    hard = np.eye(4)[labels]

    def loss(target: np.ndarray, **kw: Any) -> float:
        return float(evaluate(lambda x, t: ops.cross_entropy(x, t, **kw), logits, target))

    assert abs(loss(labels) - loss(hard)) < 1e-12
    assert abs(loss(labels, label_smoothing=0.2) - loss(0.8 * hard + 0.05)) < 1e-12
    assert abs(loss(labels, reduction="sum") - 5 * loss(labels)) < 1e-12
    weighted = evaluate(lambda x, t, w: ops.cross_entropy(x, t, w), logits, labels, np.array([2.0, 0, 1, 1, 1]))
    rows = [float(evaluate(ops.cross_entropy, logits[i : i + 1], labels[i : i + 1])) for i in range(5)]
    assert abs(float(weighted) - (2 * rows[0] + rows[2] + rows[3] + rows[4]) / 5) < 1e-12


LOSSES: dict[str, Any] = {
    "mean": lambda x, t, w: ops.cross_entropy(x, t, w),
    "sum": lambda x, t, w: ops.cross_entropy(x, t, w, reduction="sum"),
    "smooth": lambda x, t, w: ops.cross_entropy(x, t, w, label_smoothing=0.1),
    "hinge": lambda x, t, w: ops.hinge(x, t, w),
    "hinge sum": lambda x, t, w: ops.hinge(x, t, w, margin=0.5, reduction="sum"),
}


def loss_of(name: str) -> Any:
    """The loss as a function of logits and labels, with fixed weights: those have no gradient."""
    return lambda x, t, w: LOSSES[name](x, t, ops.stop_gradient(w))


@pytest.mark.parametrize("name", LOSSES)
def test_s74_loss_gradients(name: str) -> None:
    labels, weight = np.array([0, 4, 2, 1]), np.array([1.0, 0.5, 2, 3])
    check_gradient(lambda x: LOSSES[name](x, labels, weight), distinct((4, 5)))
    check_gradient(lambda x: LOSSES[name](x, labels, None), distinct((4, 5)))


def test_s74_gradients_of_soft_targets_mse_and_pixelwise_losses() -> None:
    soft = np.abs(normal((4, 5)))
    check_gradient(lambda x: ops.cross_entropy(x, soft, label_smoothing=0.3), normal((4, 5)))
    check_gradient(lambda x: ops.cross_entropy(x, np.array([[0, 1], [2, 2]])), normal((2, 2, 3)))
    check_gradient(ops.mse, normal((4, 5)), normal((4, 5), 1), batch=[0, 1])
    operands = normal((4, 2, 5)), normal((4, 2, 5), 1), normal((4,))
    check_gradient(lambda a, b, w: ops.mse(a, b, w, reduction="sum"), *operands, batch=[0, 1, 2])


@every_isa()
@pytest.mark.parametrize("classes", [2, 10, 33])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_native(name: str, classes: int, isa: str) -> None:
    labels = np.random.default_rng(0).integers(0, classes, 9)
    weight = np.abs(normal((9,), 3))
    check_native(loss_of(name), 3 * normal((9, classes)), labels, weight, isa=isa, k=8, batch=(0, 1, 2))


@every_isa()
def test_more_losses_native(isa: str) -> None:
    soft = np.abs(normal((6, 7)))
    soft /= soft.sum(-1, keepdims=True)

    def distil(x: Any, t: Any) -> Any:
        return ops.cross_entropy(x, ops.stop_gradient(t), label_smoothing=0.1)

    check_native(distil, normal((6, 7)), soft, isa=isa, k=8, batch=(0, 1))
    check_native(ops.mse, normal((6, 3, 7)), normal((6, 3, 7), 1), isa=isa, k=8, batch=(0, 1))
    check_native(lambda i: ops.one_hot(i, 11), np.arange(9).reshape(3, 3), isa=isa, exact=True)
    pixels = np.random.default_rng(1).integers(0, 3, (2, 4, 5))
    check_native(lambda x, t: ops.cross_entropy(x, t), normal((2, 4, 5, 3)), pixels, isa=isa, k=8, batch=(0, 1))


def test_means_divide_by_the_batch_that_runs() -> None:
    """A graph for a free batch gives the mean over n, whatever n: on the references and natively (planned for more)."""
    graph = Graph()
    x = graph.inputs["x"] = Value(Type((BATCH, 3)), "input", "x")
    b = Builder(graph)
    graph.outputs["y"] = b.op("reduce", x, kind="mean", axes=(0, 1))
    for n in (1, 4):
        array = normal((n, 3))
        assert abs(float(run_reference(graph, {"x": array})["y"]) - array.mean()) < 1e-12


def test_functions_of_arrays() -> None:
    pytest.importorskip("wiesel._core")
    x, labels = normal((4, 3)), [0, 1, 2, 1]
    loss = ops.cross_entropy(x, labels)
    assert loss.shape == ()
    np.testing.assert_allclose(ops.cross_entropy_backward(x, labels), (ops.softmax(x) - np.eye(3)[labels]) / 4, atol=1e-6)
    dx, dw, db = ops.linear_backward(np.ones((4, 2)), x, normal((3, 2)))
    assert (dx.shape, dw.shape, db.tolist()) == ((4, 3), (3, 2), [4, 4])
    np.testing.assert_allclose(ops.softmax_backward(np.eye(4, 3), x, 0).sum(0), 0, atol=1e-6)
    assert float(ops.hinge([[2.0, 1.5, 0.0]], [0])) == pytest.approx(0.5 / 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.linear(np.zeros((2, 7, 7, 3)), np.zeros((147, 10))), r"use flatten\(x\)"),
        (lambda: ops.linear(np.zeros((2, 4)), np.zeros((3, 4))), r"use w\.T"),
        (lambda: ops.linear(np.zeros(3), np.zeros((3, 4))), r"use x\[None\]"),
        (lambda: trace(ops.matmul, np.zeros((2, 3)), np.zeros((2, 3))), r"do not fit: \(3,\) against \(2,\)"),
        (lambda: trace(ops.matmul, np.zeros(3), np.zeros((3, 2))), "at least two axes"),
        (lambda: ops.cross_entropy(np.zeros((2, 3)), [0, 3]), "label 3 of sample 1 is no class: there are 3"),
        (lambda: ops.cross_entropy(np.zeros((2, 3)), np.full((2, 3), np.nan)), "NaN or infinity, first at sample 0"),
        (lambda: trace(ops.cross_entropy, np.zeros((2, 3)), np.zeros(2)), "class numbers must be integers"),
        (lambda: trace(ops.cross_entropy, np.zeros((2, 3)), np.zeros(3, int)), "integer targets have shape"),
        (lambda: trace(ops.cross_entropy, np.zeros(3), np.zeros((), int)), "expected logits of shape"),
        (lambda: ops.cross_entropy(np.zeros((2, 3)), [0, 1], reduction="none"), '"mean" or "sum"'),
        (lambda: ops.cross_entropy(np.zeros((2, 3)), [0, 1], label_smoothing=1.0), "label_smoothing"),
        (lambda: ops.mse(np.zeros((2, 3)), np.zeros((2, 1))), "differ in shape"),
        (lambda: ops.hinge(np.zeros((2, 3)), np.zeros((2, 3))), "expected integers"),
        (lambda: ops.one_hot([0, 5], 3), "label 5 of sample 1"),
    ],
)
def test_bad_operands_are_named(call: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_losses_against_torch() -> None:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    x, labels = normal((6, 5)), np.array([0, 4, 2, 1, 1, 3])
    tx, tl = torch.tensor(x), torch.tensor(labels)
    pairs = [
        (lambda a, t: ops.cross_entropy(a, t, label_smoothing=0.2), f.cross_entropy(tx, tl, label_smoothing=0.2)),
        (lambda a, t: ops.hinge(a, t), f.multi_margin_loss(tx, tl)),
        (lambda a, t: ops.mse(a, ops.one_hot(t, 5)), f.mse_loss(tx, f.one_hot(tl, 5).double())),
    ]
    for ours, theirs in pairs:
        assert abs(float(evaluate(ours, x, labels)) - float(theirs)) < 1e-10
