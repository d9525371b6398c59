"""Batch normalisation, local response normalisation, dropout, normalisation of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oracle import check_gradient, check_native, evaluate, every_isa, normal, trace
from wiesel import ops
from wiesel.ops.dispatch import call
from wiesel.ops.dropout import dropout_mask, philox, random_bits, random_key


def training(x: Any, gamma: Any = None, beta: Any = None) -> Any:
    return ops.batch_norm(x, *ops.batch_stats(x), gamma, beta, eps=1e-3, frozen=False)


def frozen(x: Any, mean: Any, var: Any, gamma: Any, beta: Any) -> Any:
    return ops.batch_norm(x, ops.stop_gradient(mean), ops.stop_gradient(var), gamma, beta)


def test_batch_norm_makes_mean_0_and_variance_1() -> None:
    x = normal((4, 5, 6, 3)) * [1, 10, 0.1] + [5, -3, 0]
    y = evaluate(lambda x: ops.batch_norm(x, *ops.batch_stats(x), eps=0.0, frozen=False), x)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, atol=1e-12)


def test_running_statistics_are_unbiased() -> None:
    x, old = normal((5, 2)), np.array([1.0, 2.0])
    mean, var = evaluate(lambda x, m, v: ops.running_stats(*ops.batch_stats(x), x, m, v, momentum=0.25), x, old, old)
    np.testing.assert_allclose(mean, 0.75 * old + 0.25 * x.mean(0))
    np.testing.assert_allclose(var, 0.75 * old + 0.25 * x.var(0, ddof=1))


def test_s74_batch_norm_gradients() -> None:
    x, gamma, beta = normal((3, 4, 2, 5)), normal((5,), 1), normal((5,), 2)
    check_gradient(training, x, batch=[0])
    check_gradient(training, x, gamma, beta, batch=[0])
    check_gradient(lambda x, g: training(x, g), x, gamma)
    check_gradient(lambda x, b: training(x, None, b), x, beta)
    constants = normal((5,), 3), np.abs(normal((5,), 4)) + 0.5
    check_gradient(lambda x, g, b: ops.batch_norm(x, *constants, g, b), x, gamma, beta, batch=[0])
    check_gradient(lambda x: ops.batch_norm(x, *constants), x[:, 0, 0], batch=[0])


def test_a_frozen_batch_norm_has_constant_statistics() -> None:
    with pytest.raises(ValueError, match="mean and var are constants"):
        trace(ops.batch_norm, normal((3, 2)), np.zeros(2), np.ones(2), gradient=True)
    with pytest.raises(ValueError, match=r"gamma has shape \(3,\), expected \(2,\)"):
        trace(ops.batch_norm, normal((3, 2)), np.zeros(2), np.ones(2), np.ones(3))


@every_isa()
@pytest.mark.parametrize(
    ("shape", "weight", "options"),
    [
        ((3, 14, 14, 16), (1, 1, 16, 40), {"algorithm": "direct"}),
        ((2, 9, 7, 5), (3, 3, 5, 33), {"algorithm": "direct", "stride_h": 2}),
        ((2, 20, 300, 3), (3, 3, 3, 32), {"algorithm": "direct"}),  # rows of blocks: a pass of its own
        ((2, 6, 6, 12), (1, 1, 4, 9), {"algorithm": "direct", "groups": 3}),
        ((5, 1, 1, 7), (1, 1, 7, 3), {"algorithm": "direct"}),
        ((2, 40, 12, 24), (3, 3, 1, 24), {"algorithm": "depthwise", "groups": 24}),
        ((2, 12, 12, 32), (3, 3, 32, 32), {"algorithm": "winograd4"}),
        ((3, 31, 27, 36), (3, 3, 36, 33), {"algorithm": "winograd4"}),  # tiles cut by the edge
        ((1, 2, 700, 4), (3, 3, 4, 8), {"algorithm": "winograd2", "pad_top": 1}),  # long rows of tiles: a pass of its own
        ((2, 7, 6, 350), (3, 3, 350, 340), {"algorithm": "winograd4"}),  # large weights
        ((3, 13, 9, 40), (3, 3, 20, 42), {"algorithm": "winograd4", "groups": 2}),
        ((2, 12, 12, 2), (3, 3, 2, 6), {"algorithm": "planar"}),
    ],
)
def test_statistics_of_a_convolution(shape: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], isa: str) -> None:
    """Against float64 where the mean is a thousand times the standard deviation; the same bits for any number of threads."""
    x, w = normal(shape), normal(weight, 1)
    bias = np.full(weight[3], 1000 * np.prod(weight[:3]) ** 0.5)
    traced = trace(lambda x, w, b: call("conv_fwd", [x, w, b], {**options, "stats": True}), x, w, bias, batch=[0])
    found = traced.native(isa, threads=1, n=shape[0] + 1)
    y = found["y0"].astype(np.float64)
    np.testing.assert_allclose(found["y1"], y.mean((0, 1, 2)), rtol=2e-7)
    np.testing.assert_allclose(found["y2"], y.var((0, 1, 2)), rtol=1e-4)
    again = traced.native(isa, threads=2)
    assert all(found[name].tobytes() == again[name].tobytes() for name in found)


@every_isa()
@pytest.mark.parametrize(
    ("shape", "weight", "options"),  # of dx, of w
    [
        ((3, 14, 14, 40), (1, 1, 40, 16), {"algorithm": "direct"}),
        ((2, 9, 9, 33), (3, 3, 33, 24), {"algorithm": "direct", "pad_top": 1, "pad_bottom": 1, "pad_left": 1, "pad_right": 1}),
        ((2, 6, 8, 12), (2, 2, 12, 20), {"algorithm": "direct", "stride_h": 2, "stride_w": 2}),  # phases: a pass of its own
        ((2, 6, 6, 12), (1, 1, 4, 9), {"algorithm": "direct", "groups": 3}),
        ((5, 3, 3, 1024), (1, 1, 1024, 6), {"algorithm": "direct"}),
        ((2, 12, 7, 20), (3, 3, 1, 20), {"groups": 20, "stride_h": 2}),
        ((2, 5, 7, 6), (3, 3, 1, 12), {"groups": 6}),  # a multiplier: a pass of its own
        ((2, 8, 8, 40), (3, 3, 40, 32), {"algorithm": "winograd4"}),
        ((3, 23, 18, 40), (3, 3, 40, 36), {"algorithm": "winograd2"}),
        ((2, 13, 9, 66), (3, 3, 33, 68), {"algorithm": "winograd4", "groups": 2}),
    ],
)
@pytest.mark.parametrize("activation", ["none", "relu6"])
def test_gradient_sums_of_a_convolution(
    shape: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], activation: str, isa: str
) -> None:
    """Those that bn_bwd begins with, against its own reference; the same bits for any number of threads."""
    x, w, channels = normal(shape), normal(weight, 1), shape[3:]
    rows, columns = (
        (shape[axis] + 2 * options.get(pad, 0) - weight[axis - 1]) // options.get(stride, 1) + 1
        for axis, pad, stride in ((1, "pad_top", "stride_h"), (2, "pad_left", "stride_w"))
    )
    dy = normal((shape[0], rows, columns, weight[3]), 2)
    norm = (normal(channels, 3), np.abs(normal(channels, 4)) + 0.5, normal(channels, 5), normal(channels, 6))
    attrs = {**options, "in_h": shape[1], "in_w": shape[2], "sums": True, "activation": activation, "eps": 1e-3}

    def step(dy: Any, w: Any, x: Any, *norm: Any) -> Any:
        return call("conv_bwd_data", [dy, w, x, *norm], attrs)

    traced = trace(step, dy, w, x, *norm, batch=[0, 2])
    found, expected = traced.native(isa, threads=1, n=shape[0] + 1), traced.reference()
    np.testing.assert_allclose(found["y1"], expected["y1"], rtol=1e-4, atol=1e-4 * np.abs(expected["y1"]).max())
    again = traced.native(isa, threads=2)
    assert all(found[name].tobytes() == again[name].tobytes() for name in found)


@every_isa()
@pytest.mark.parametrize(
    ("shape", "weight", "options"),
    [
        ((3, 14, 14, 40), (1, 1, 40, 16), {}),
        ((2, 5, 7, 16), (1, 1, 16, 3), {}),  # few channels: planar could not
        ((3, 3, 3, 1024), (1, 1, 1024, 70), {"algorithm": "direct"}),
        ((17, 9, 9, 256), (1, 1, 256, 64), {}),
        ((2, 12, 7, 20), (3, 3, 1, 20), {"groups": 20, "stride_h": 2}),
        ((2, 30, 60, 70), (3, 3, 1, 70), {"groups": 70, "pad_top": 1, "pad_bottom": 1, "pad_left": 1, "pad_right": 1}),
        ((1, 9, 9, 500), (5, 5, 1, 500), {"groups": 500, "pad_top": 2, "dilation_h": 2}),
    ],
)
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
def test_a_convolution_that_normalises_its_input(
    shape: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], activation: str, isa: str
) -> None:
    """The bits of a batch normalisation and a convolution of its result, for any number of threads; the reference agrees."""
    x, w, channels = normal(shape), normal(weight, 1), shape[3:]
    norm = (normal(channels, 3), np.abs(normal(channels, 4)) + 0.5, normal(channels, 5), normal(channels, 6))
    at_once = {**options, "norm": True, "in_activation": activation, "eps": 1e-3}
    apart = {"algorithm": "depthwise" if "groups" in options else "direct", **options}

    def both(x: Any, w: Any, *norm: Any) -> Any:
        y = call("conv_fwd", [x, w, None, None, *norm], at_once)
        a = call("bn_apply", [x, *norm], {"eps": 1e-3, "activation": activation})
        kernel = {"kernel_h": weight[0], "kernel_w": weight[1]}
        dw = call("conv_bwd_weights", [x, y, *norm], {**at_once, **kernel})
        return y, dw, call("conv_fwd", [a, w], apart), call("conv_bwd_weights", [a, y], {**apart, **kernel})

    traced = trace(both, x, w, *norm, batch=[0])
    found, expected = traced.native(isa, threads=1, n=shape[0] + 1), traced.reference()
    assert found["y0"].tobytes() == found["y2"].tobytes()
    assert found["y1"].tobytes() == found["y3"].tobytes()
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-4 * np.abs(expected[name]).max())
    again = traced.native(isa, threads=2)
    assert all(found[name].tobytes() == again[name].tobytes() for name in found)


def test_convolutions_that_cannot_normalise_their_input_say_so() -> None:
    x, w, c = normal((2, 6, 6, 8)), normal((3, 3, 8, 8), 1), np.ones(8)
    with pytest.raises(ValueError, match="only a depthwise convolution without a multiplier, or a 1x1"):
        call("conv_fwd", [x, w, None, None, c, c], {"norm": True})
    with pytest.raises(ValueError, match="in_activation is none, relu or relu6"):
        call("conv_fwd", [x, w[:1, :1], None, None, c, c], {"norm": True, "in_activation": "tanh"})
    with pytest.raises(ValueError, match="var"):
        call("conv_fwd", [x, w[:1, :1], None, None, c], {"norm": True})


@every_isa()
@pytest.mark.parametrize("shape", [(7, 3), (2, 5, 6, 17), (3, 9, 11, 64), (1, 4, 4, 1), (130, 33)])
def test_batch_norm_native(shape: tuple[int, ...], isa: str) -> None:
    x, gamma, beta = normal(shape) + 3, normal(shape[-1:], 1), normal(shape[-1:], 2)
    k = 4 * np.prod(shape[:-1]) ** 0.5
    check_native(training, x, gamma, beta, isa=isa, k=k)
    check_native(training, x, isa=isa, k=k)
    check_native(frozen, x, normal(shape[-1:], 3), np.abs(normal(shape[-1:], 4)) + 0.5, gamma, beta, isa=isa, k=k)
    stats = trace(lambda x: ops.batch_stats(x), x + 1000, batch=[0])
    stats.inputs["x0"] = stats.inputs["x0"].astype(np.float32).astype(np.float64)
    expected, found = stats.reference(), stats.native(isa)
    np.testing.assert_allclose(found["y0"], expected["y0"], rtol=1e-6)
    np.testing.assert_allclose(found["y1"], expected["y1"], rtol=1e-3)  # no cancellation: E[x²] - E[x]² would lose all digits


@every_isa()
def test_fused_batch_norm_native(isa: str) -> None:
    def block(x: Any, gamma: Any, beta: Any, residual: Any) -> Any:
        return ops.relu(ops.add(training(x, gamma, beta), residual))

    shape = (3, 5, 4, 19)
    check_native(block, normal(shape), normal((19,), 1), normal((19,), 2), normal(shape, 3), isa=isa, k=32, batch=(0, 3))


@every_isa()
def test_running_statistics_native(isa: str) -> None:
    def update(x: Any, m: Any, v: Any) -> Any:
        return ops.running_stats(*ops.batch_stats(x), x, m, v)

    check_native(update, normal((4, 3, 3, 9)), normal((9,), 1), np.abs(normal((9,), 2)), isa=isa, k=8, gradient=False)


# --- local response normalisation -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "channels"), [(5, 11), (2, 3), (1, 4), (9, 4)])
def test_s74_lrn_gradients(size: int, channels: int) -> None:
    check_gradient(lambda x: ops.local_response_norm(x, size, alpha=0.5, beta=0.6, k=1.5), normal((2, 3, 2, channels)), batch=[0])


@every_isa()
@pytest.mark.parametrize(("size", "channels"), [(5, 96), (3, 17), (2, 5), (1, 4), (9, 4), (4, 1)])
def test_lrn_native(size: int, channels: int, isa: str) -> None:
    check_native(lambda x: ops.local_response_norm(x, size, alpha=0.5, beta=0.75, k=2.0), normal((2, 3, 2, channels)), isa=isa, k=8)


def test_lrn_against_torch() -> None:
    torch = pytest.importorskip("torch")
    x = normal((2, 3, 4, 7))
    for size in (1, 2, 3, 5):
        theirs = torch.nn.functional.local_response_norm(torch.tensor(x.transpose(0, 3, 1, 2)), size, 0.3, 0.8, 1.2)
        ours = evaluate(lambda x, s=size: ops.local_response_norm(x, s, alpha=0.3, beta=0.8, k=1.2), x)
        np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-12)


def test_batch_norm_against_torch() -> None:
    torch = pytest.importorskip("torch")
    x, gamma, beta = normal((3, 4, 2, 5)), normal((5,), 1), normal((5,), 2)
    tx = torch.tensor(x.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    running = torch.zeros(5).double(), torch.ones(5).double()
    y = torch.nn.functional.batch_norm(tx, *running, torch.tensor(gamma), torch.tensor(beta), training=True, eps=1e-3)
    traced = trace(training, x, gamma, beta, gradient=True)
    found = traced.reference()
    np.testing.assert_allclose(found["y0"], y.detach().numpy().transpose(0, 2, 3, 1), atol=1e-12)
    y.backward(torch.tensor(traced.inputs["s0"].transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(found["d0"], tx.grad.numpy().transpose(0, 2, 3, 1), atol=1e-12)
    update = evaluate(lambda x, m, v: ops.running_stats(*ops.batch_stats(x), x, m, v), x, np.zeros(5), np.ones(5))
    for ours, theirs in zip(update, running, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-12)


# --- dropout ----------------------------------------------------------------------------------------------------------


def test_philox_known_answers() -> None:
    """Random123's vectors for philox4x32-10."""
    assert philox(np.array([0], np.uint64), 0, 0)[:, 0].tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    counter, sample, key = 0x85A308D3243F6A88, 0x0370734413198A2E, 0x299F31D0A4093822
    assert philox(np.array([counter], np.uint64), sample, key)[:, 0].tolist() == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_s82_share_of_zeros_and_new_masks() -> None:
    rate, n = 0.3, 10**6
    keep = dropout_mask((1, n), rate)
    assert abs((~keep).mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / n)
    masks = [dropout_mask((1, 1000), rate, **kw) for kw in ({}, {"step": 1}, {"seed": 1}, {"stream": 1}, {"micro_step": 1}, {"sample": 1})]
    assert len({m.tobytes() for m in masks}) == len(masks)
    np.testing.assert_array_equal(dropout_mask((3, 100), rate, sample=4)[1], dropout_mask((1, 100), rate, sample=5)[0])


def test_two_dropouts_of_one_layer_differ() -> None:
    first, second = evaluate(lambda x: (ops.dropout(x), ops.dropout(x)), np.ones((2, 100)))
    assert (first != second).any()


def test_s84_the_expectation_stays() -> None:
    y = evaluate(lambda x: ops.dropout(x, 0.5), np.ones((100, 1000)))
    assert abs(y.mean() - 1) < 0.02
    assert set(np.unique(y)) == {0, 2}


def test_s86_units_drop_equally_often() -> None:
    steps, units, rate = 10_000, 16, 0.5
    keys = np.array([random_key(0, 2, 7, step, 0) for step in range(steps)], np.uint64)
    bits = philox(np.arange(units, dtype=np.uint64), 0, keys[:, None])[0]  # the first 16 elements of a sample
    np.testing.assert_array_equal(bits[5], random_bits(int(keys[5]), 0, units))
    dropped = (bits < rate * 2**32).sum(0)
    chi_square = ((dropped - steps * rate) ** 2 / (steps * rate * (1 - rate))).sum()
    assert chi_square < 39.3  # 99.9 % of chi-square with 16 degrees of freedom


def test_s74_dropout_gradient_has_the_mask() -> None:
    check_gradient(lambda x: ops.dropout(x, 0.4), normal((3, 50)), batch=[0])


@every_isa()
@pytest.mark.parametrize("shape", [(3, 5), (2, 7, 9, 11), (1, 5000)])
def test_s82_dropout_native(shape: tuple[int, ...], isa: str) -> None:
    check_native(lambda x: ops.dropout(x, 0.3), normal(shape), isa=isa)
    for threads in (1, 2):
        traced = trace(lambda x: ops.dropout(x, 0.5), np.ones(shape), batch=[0])
        np.testing.assert_array_equal(traced.native(isa, threads)["y0"], traced.reference()["y0"])


def test_dropout_of_arrays() -> None:
    pytest.importorskip("wiesel._core")
    y = ops.dropout(np.ones((2, 1000)), 0.25, seed=3)
    assert set(np.unique(y)) == {0, np.float32(4 / 3)}
    assert (y != ops.dropout(np.ones((2, 1000)), 0.25, seed=4)).any()
    with pytest.raises(ValueError, match="rate must be"):
        ops.dropout(np.ones((2, 3)), 1.0)


# --- pixels -----------------------------------------------------------------------------------------------------------


@every_isa()
def test_normalize_native(isa: str) -> None:
    mean, scale = np.array([1.5, 100.0, 30.0]), np.array([0.25, 2.0, 0.5])
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3)).astype(np.uint8)
    check_native(lambda x: ops.normalize(x, mean, scale), pixels, isa=isa, exact=True)
    check_native(lambda x: ops.normalize(x, mean, scale), pixels.astype(np.float32), isa=isa, exact=True)
    check_gradient(lambda x: ops.normalize(x, mean, scale), normal((2, 3, 3)))


def test_uint8_needs_normalize() -> None:
    with pytest.raises(TypeError, match=r"wl\.ops\.normalize"):
        trace(ops.relu, np.zeros((2, 3), np.uint8))
