"""Unary and binary functions, reductions, shape ops: hand examples, gradients, every instruction set against the references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oracle import check_gradient, check_native, distinct, evaluate, every_isa, integers, isas, normal, trace
from wiesel import ops
from wiesel.ops import binary, unary

DIFFERENTIABLE = [k for k in unary.KINDS if k not in ("none", "log", "sqrt")]
ALPHA = {"leaky_relu": 0.1, "elu": 0.7}


def unary_fn(kind: str) -> Any:
    if kind == "affine":
        return lambda x: ops.affine(x, -1.5, 0.25)
    return lambda x: ops.activation(x, kind, alpha=ALPHA.get(kind))


# --- activations ------------------------------------------------------------------------------------------------------


def test_s55_relu() -> None:
    assert evaluate(ops.relu, np.array([-2, -0.0, 0, 3])).tolist() == [0, 0, 0, 3]
    assert np.isnan(evaluate(ops.relu, np.array([np.nan]))).all()


def test_s56_sigmoid() -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y = evaluate(ops.sigmoid, np.array([-700.0, 0, 1000.0]))
    assert y[1] == 0.5
    assert y[2] == 1
    assert 0 <= y[0] < 1e-300


def test_s57_tanh() -> None:
    np.testing.assert_allclose(evaluate(ops.tanh, np.array([-20.0, 20.0])), [-1, 1], atol=1e-7)


def test_s59_activation_values() -> None:
    x = np.array([-4.0, -1.0, 0.5, 7.0])
    expected = {
        ops.relu6: [0, 0, 0.5, 6],
        ops.hard_sigmoid: [0, 1 / 3, 3.5 / 6, 1],
        ops.hard_swish: [0, -1 / 3, 0.5 * 3.5 / 6, 7],
        ops.silu: x / (1 + np.exp(-x)),
        ops.softplus: np.log1p(np.exp(x)),
        ops.elu: [np.expm1(-4), np.expm1(-1), 0.5, 7],
        ops.selu: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
        ops.gelu: [-0.000126685, -0.158655254, 0.345731230, 7.0],
    }
    for fn, values in expected.items():
        np.testing.assert_allclose(evaluate(fn, x), values, atol=1e-8, err_msg=fn.__name__)
    np.testing.assert_allclose(evaluate(lambda x: ops.leaky_relu(x, 0.1), x), [-0.4, -0.1, 0.5, 7])


@pytest.mark.parametrize("kind", DIFFERENTIABLE)
def test_s59_activation_gradients(kind: str) -> None:
    check_gradient(unary_fn(kind), distinct((3, 5, 7)), batch=[0])


@pytest.mark.parametrize("kind", ["log", "sqrt"])
def test_s74_gradients_of_log_and_sqrt(kind: str) -> None:
    check_gradient(unary_fn(kind), np.abs(normal((4, 5))) + 0.5)


def test_s75_conventions_where_there_is_no_derivative() -> None:
    def derivative(kind: str, at: float) -> float:
        traced = trace(unary_fn(kind), np.array([at]), gradient=True)
        traced.inputs["s0"] = np.ones(1)
        return float(traced.reference()["d0"][0])

    assert [derivative(k, 0.0) for k in ("relu", "relu6", "abs", "leaky_relu")] == [0, 0, 0, 0.1]
    assert derivative("relu6", 6.0) == 0
    assert [derivative("hard_swish", at) for at in (-3.0, 3.0)] == [0, 1]
    assert [derivative("hard_sigmoid", at) for at in (-3.0, 3.0)] == [0, 0]


def test_prelu() -> None:
    assert evaluate(ops.prelu, np.array([[-2.0, -2.0], [1.0, 3.0]]), np.array([0.5, 0.25])).tolist() == [[-1, -0.5], [1, 3]]
    check_gradient(ops.prelu, distinct((2, 3, 4, 5)), normal((5,), 1), batch=[0])
    check_gradient(ops.prelu, distinct((2, 3, 4, 5)), normal((1,), 1), batch=[0])


@every_isa()
@pytest.mark.parametrize("kind", sorted(set(unary.KINDS) - {"none"}))
def test_unary_native(kind: str, isa: str) -> None:
    x = np.concatenate([3 * normal((431,)), [-30, -3, 0, 3, 6, 30]])
    x = np.abs(x) + 0.1 if kind in ("log", "sqrt") else x
    x = np.clip(x, -8, 8) if kind in ("exp", "square") else x
    check_native(unary_fn(kind), x[None], isa=isa, k=3)
    check_native(unary_fn(kind), x, isa=isa, k=3, batch=())


@every_isa()
def test_s55_s56_special_values_native(isa: str) -> None:
    x = np.array([np.nan, -np.inf, np.inf, -1000.0, 1000.0, -0.0])
    for fn in (ops.relu, ops.sigmoid, ops.tanh, ops.softplus):
        expected = evaluate(fn, x)
        found = trace(fn, x).native(isa)["y0"]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-37, err_msg=fn.__name__)


@pytest.mark.skipif(not isas(), reason="the extension is not built")
def test_tables_agree_with_the_core() -> None:
    from wiesel import _core
    from wiesel.ops import reduce

    assert {name: kind.saves for name, kind in unary.KINDS.items()} == _core.UNARY_SAVES
    assert set(_core.BINARY_KINDS) == set(binary.KINDS)
    assert set(_core.REDUCE_KINDS) == set(reduce.KINDS)


def test_activation_by_name() -> None:
    with pytest.raises(ValueError, match="no activation named 'relo'"):
        ops.activation(np.zeros(1), "relo")
    with pytest.raises(ValueError, match="relu has no parameter alpha"):
        ops.activation(np.zeros(1), "relu", alpha=0.1)
    with pytest.raises(ValueError, match="alpha must be a positive number"):
        ops.leaky_relu(np.zeros(1), -1.0)


# --- binary -----------------------------------------------------------------------------------------------------------

SHAPES = [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (4,)), ((2, 1, 4), (3, 1)), ((3,), (2, 1, 3)), ((2, 3), ()), ((1, 3, 1), (2, 1, 4))]
SMOOTH = {"add": ops.add, "sub": ops.subtract, "mul": ops.multiply, "div": ops.divide, "maximum": ops.maximum, "minimum": ops.minimum}
COMPARE = {"greater": ops.greater, "greater_equal": ops.greater_equal, "less": ops.less, "less_equal": ops.less_equal, "equal": ops.equal}


@pytest.mark.parametrize(("a", "b"), SHAPES)
@pytest.mark.parametrize("kind", SMOOTH)
def test_s74_binary_gradients_reduce_to_the_operand(kind: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    check_gradient(SMOOTH[kind], distinct(a) + 0.01, distinct(b, 1) + (0.5 if kind == "div" else 0))


def test_binary_with_a_batch_extent() -> None:
    check_gradient(ops.multiply, normal((3, 2, 4)), normal((4,), 1), batch=[0])
    check_gradient(ops.divide, normal((3, 1)), np.abs(normal((3, 5), 1)) + 1, batch=[0, 1])
    with pytest.raises(ValueError, match="batch extent must stay the leading axis"):
        trace(ops.add, np.zeros((3, 3)), np.zeros((2, 1, 3)), batch=[0])


def test_comparisons() -> None:
    a, b = np.array([1.0, 2, 3]), np.array([2.0, 2, 2])
    found = {name: evaluate(fn, a, b).tolist() for name, fn in COMPARE.items()}
    assert found == {"greater": [0, 0, 1], "greater_equal": [0, 1, 1], "less": [1, 0, 0], "less_equal": [1, 1, 0], "equal": [0, 1, 0]}


def test_s75_equal_operands_of_maximum_give_the_gradient_to_the_first() -> None:
    for fn in (ops.maximum, ops.minimum):
        traced = trace(fn, np.ones(1), np.ones(1), gradient=True)
        traced.inputs["s0"] = np.ones(1)
        found = traced.reference()
        assert (found["d0"], found["d1"]) == (1, 0)


@every_isa()
@pytest.mark.parametrize(("a", "b"), [*SHAPES, ((5, 7, 33), (5, 7, 33)), ((5, 7, 33), (33,)), ((5, 7, 33), (5, 1, 1))])
def test_binary_native(a: tuple[int, ...], b: tuple[int, ...], isa: str) -> None:
    for kind, fn in {**SMOOTH, **COMPARE}.items():
        check_native(fn, integers(a), integers(b, 1, 1, 5), isa=isa, exact=kind != "div", k=4, batch=())


def test_bad_broadcast_is_named() -> None:
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(4,\) do not broadcast"):
        trace(ops.add, np.zeros((2, 3)), np.zeros(4))


# --- reductions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("fn", [ops.sum, ops.mean, ops.max])
def test_s74_reduction_gradients(fn: Any, axis: Any, keepdims: bool) -> None:
    for batch in ((), (0,)):
        check_gradient(lambda x: fn(x, axis, keepdims=keepdims), distinct((3, 4, 5)), batch=batch)


def test_s75_ties_of_max_share_the_gradient() -> None:
    traced = trace(ops.max, np.array([1.0, 2, 2]), gradient=True)
    traced.inputs["s0"] = np.ones(())
    assert traced.reference()["d0"].tolist() == [0, 0.5, 0.5]


@every_isa()
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 33, 65), (130, 1, 17)])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, (0, 1), (0, 2), (1, 2)])
def test_reductions_native(shape: tuple[int, ...], axis: Any, isa: str) -> None:
    check_native(lambda x: ops.sum(x, axis), integers(shape), isa=isa, exact=True)
    check_native(lambda x: ops.mean(x, axis, keepdims=True), normal(shape), isa=isa, k=8)
    check_native(lambda x: ops.max(x, axis), normal(shape), isa=isa)


def test_bad_axes_are_named() -> None:
    with pytest.raises(ValueError, match="axis 3 does not exist"):
        ops.sum(np.zeros((2, 3)), 3)
    with pytest.raises(ValueError, match="twice"):
        ops.sum(np.zeros((2, 3)), (0, -2))


# --- shapes -----------------------------------------------------------------------------------------------------------

X = np.arange(24.0).reshape(2, 3, 4)
MOVES: dict[str, tuple[Any, Any]] = {
    "reshape": (lambda x: ops.reshape(x, (2, -1, 2)), X.reshape(2, 6, 2)),
    "flatten": (ops.flatten, X.reshape(2, 12)),
    "transpose": (lambda x: ops.transpose(x, (0, 2, 1)), X.transpose(0, 2, 1)),
    "slice": (lambda x: ops.slice(x, [None, slice(0, 3, 2), slice(1, None)]), X[:, 0:3:2, 1:]),
    "index": (lambda x: ops.slice(x, [None, -1]), X[:, -1]),
    "pad": (lambda x: ops.pad(x, [0, (1, 2), 3], 9.0), np.pad(X, [(0, 0), (1, 2), (3, 3)], constant_values=9)),
    "broadcast_to": (lambda x: ops.broadcast_to(ops.reshape(x, (2, 3, 1, 4)), (2, 3, 5, 4)), np.repeat(X[:, :, None], 5, 2)),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves(name: str) -> None:
    fn, expected = MOVES[name]
    np.testing.assert_array_equal(evaluate(fn, X), expected)
    check_gradient(fn, X)


def test_s61_flatten_order() -> None:
    x = np.zeros((1, 7, 7, 512))
    x[0, 2, 3, 5] = 1
    flat = evaluate(ops.flatten, x)
    assert flat.shape == (1, 25088)
    assert flat[0, (2 * 7 + 3) * 512 + 5] == 1


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_concat(axis: int) -> None:
    shapes = [[2, 3, 4], [2, 3, 4], [2, 3, 4]]
    for i, shape in enumerate(shapes):
        shape[axis] = i + 1
    parts = [normal(shape, i) for i, shape in enumerate(shapes)]
    np.testing.assert_array_equal(evaluate(lambda *p: ops.concat(p, axis), *parts), np.concatenate(parts, axis))
    check_gradient(lambda *p: ops.concat(p, axis), *parts, batch=[0, 1, 2])


def test_stop_gradient() -> None:
    traced = trace(lambda x: ops.multiply(x, ops.stop_gradient(x)), np.array([3.0]), gradient=True)
    traced.inputs["s0"] = np.ones(1)
    assert traced.reference()["d0"].tolist() == [3]


@every_isa()
def test_moves_native(isa: str) -> None:
    x = integers((4, 5, 6, 7))
    for fn in (
        lambda x: ops.transpose(x, (0, 3, 1, 2)),
        lambda x: ops.slice(x, [None, slice(1, 4), slice(0, 6, 2), slice(2, 7, 3)]),
        lambda x: ops.pad(x, [0, (1, 2), (0, 3), 2], -4.0),
        lambda x: ops.concat([x, ops.relu(x), ops.affine(x, 2.0)], -1),
        lambda x: ops.concat([x, x], 1),
        lambda x: ops.broadcast_to(ops.reshape(x, (-1, 5, 6, 1, 7)), (-1, 5, 6, 3, 7)),
        lambda x: ops.flatten(ops.relu(x)),
    ):
        check_native(fn, x, isa=isa, exact=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.reshape(np.zeros((2, 3)), (4, -1)), "cannot be arranged"),
        (lambda: ops.reshape(np.zeros((2, 3)), (-1, -1)), "only one extent"),
        (lambda: trace(lambda x: ops.reshape(x, (7,)), np.zeros((2, 3))), "elements"),
        (lambda: trace(lambda x: ops.reshape(x, (6,)), np.zeros((2, 3)), batch=[0]), "must start with -1"),
        (lambda: trace(lambda x: ops.transpose(x, (1, 0)), np.zeros((2, 3)), batch=[0]), "batch axis"),
        (lambda: trace(lambda x: ops.slice(x, [0]), np.zeros((2, 3)), batch=[0]), "batch axis"),
        (lambda: trace(lambda x: ops.pad(x, [1, 1]), np.zeros((2, 3)), batch=[0]), "batch axis"),
        (lambda: trace(lambda x: ops.concat([x, x], 0), np.zeros((2, 3)), batch=[0]), "batch axis"),
        (lambda: trace(lambda x, y: ops.concat([x, y], 1), np.zeros((2, 3)), np.zeros((3, 3))), "does not fit beside"),
        (lambda: ops.slice(np.zeros((2, 3)), [5]), "outside axis 0"),
        (lambda: trace(lambda x: ops.slice(x, [slice(1, 1)]), np.zeros((2, 3))), "empty"),
    ],
)
def test_bad_moves_are_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
