"""Convolutions: hand examples, gradients by finite differences, every instruction set against the references, torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oracle import check_gradient, check_native, evaluate, every_isa, integers, isas, normal, trace
from wiesel import ops

IMAGE = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 0, 0]], float)
X_FILTER = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], float)
O_FILTER = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], float)
I_FILTER = np.array([[0, 1, 0], [0, 1, 0], [0, 1, 0]], float)

# (n, h, w, c), (kh, kw, oc), keywords: odd sizes, strides, paddings, dilations, groups, even and odd kernels
CASES: list[tuple[tuple[int, ...], tuple[int, int, int], dict[str, Any]]] = [
    ((2, 5, 6, 3), (3, 3, 4), {}),
    ((1, 7, 5, 2), (3, 3, 3), {"stride": 2, "padding": 1}),
    ((2, 6, 7, 4), (2, 3, 6), {"stride": (2, 1), "padding": "same"}),
    ((1, 8, 9, 4), (3, 2, 4), {"dilation": (2, 3), "padding": ((1, 2), (0, 3))}),
    ((2, 5, 5, 6), (3, 3, 6), {"groups": 6, "padding": 1}),
    ((1, 6, 5, 4), (3, 3, 8), {"groups": 4, "padding": "same", "stride": 2}),
    ((1, 7, 7, 6), (4, 4, 9), {"groups": 3, "padding": "full"}),
    ((2, 4, 4, 5), (1, 1, 7), {}),
    ((1, 9, 9, 2), (1, 1, 3), {"stride": 3}),
    ((1, 10, 11, 3), (5, 5, 2), {"stride": 3, "padding": (0, 2)}),
    ((1, 10, 7, 1), (3, 3, 2), {"stride": 4, "fit": "pad"}),
    ((3, 3, 3, 8), (3, 3, 5), {}),
]
IDS = [f"{x}-{k}-{'-'.join(f'{a}={b}' for a, b in kw.items())}" for x, k, kw in CASES]

# channels and widths around the tiles of the kernels
LARGER: list[tuple[tuple[int, ...], tuple[int, int, int], dict[str, Any]]] = [
    ((1, 13, 14, 17), (3, 3, 33), {"padding": 1}),
    ((2, 9, 23, 16), (3, 3, 64), {"padding": "same", "stride": 2}),
    ((1, 8, 8, 64), (1, 1, 70), {}),
    ((1, 11, 13, 40), (3, 3, 40), {"groups": 40, "padding": 1}),
    ((1, 12, 12, 34), (5, 5, 34), {"groups": 34, "padding": 2, "stride": 2}),
    ((1, 10, 19, 36), (3, 3, 72), {"groups": 2, "dilation": 2, "padding": 2}),
    ((2, 13, 14, 130), (3, 3, 136), {"groups": 2, "padding": 1}),
    ((1, 30, 31, 3), (7, 7, 24), {"stride": 2, "padding": 3}),
]


def weights_for(x: tuple[int, ...], kernel: tuple[int, int, int], kw: dict[str, Any]) -> tuple[int, ...]:
    return (kernel[0], kernel[1], x[3] // kw.get("groups", 1), kernel[2])


def conv(kw: dict[str, Any]) -> Any:
    return lambda x, w, b: ops.conv2d(x, w, b, **kw)


def plane(image: np.ndarray, *filters: np.ndarray, **kw: Any) -> np.ndarray:
    w = np.stack(filters, -1)[:, :, None]
    return evaluate(lambda x, w: ops.conv2d(x, w, **kw), image[None, ..., None], w)[0]


def test_s12_conv1d_marks_where_1_becomes_0() -> None:
    x, w = np.array([1, 1, 1, 1, 0, 0.0])[None, :, None], np.array([1, -1.0])[:, None, None]
    assert evaluate(ops.conv1d, x, w).ravel().tolist() == [0, 0, 0, 1, 0]


def test_s13_x_filter() -> None:
    assert plane(IMAGE, X_FILTER)[..., 0].tolist() == [[4, 3, 4], [2, 4, 3], [2, 3, 4]]


def test_s14_response_is_high_where_pattern_and_filter_agree() -> None:
    image = np.zeros((9, 9))
    image[4:7, 2:5] = X_FILTER
    y = plane(image, X_FILTER)[..., 0]
    assert np.unravel_index(y.argmax(), y.shape) == (4, 2)
    assert (plane(np.zeros((9, 9)), X_FILTER) == 0).all()


def test_s15_several_filters_make_the_depth() -> None:
    y = plane(IMAGE, X_FILTER, O_FILTER, I_FILTER)
    assert y.shape == (3, 3, 3)
    np.testing.assert_array_equal(y[..., 2], plane(IMAGE, I_FILTER)[..., 0])


def test_s16_edge_detectors() -> None:
    down, up = np.eye(5), np.eye(5)[::-1]
    for image, own, other in ((down, np.eye(3), np.eye(3)[::-1]), (up, np.eye(3)[::-1], np.eye(3))):
        assert plane(image, own).max() > plane(image, other).max()


def test_s17_a_filter_on_a_3d_input_gives_one_map() -> None:
    x, w = integers((1, 6, 6, 3)), integers((3, 3, 3, 4), 1)
    assert evaluate(ops.conv2d, x, w).shape == (1, 4, 4, 4)
    assert w[..., 0].size == 27


def test_s24_padding_keeps_border_information() -> None:
    one = np.zeros((5, 5))
    one[0, 0] = 1
    assert np.count_nonzero(plane(one, np.ones((3, 3)), padding=1)) > np.count_nonzero(plane(one, np.ones((3, 3))))


def test_s30_padding_is_zeros_on_every_channel() -> None:
    x, w = np.ones((1, 3, 3, 3)), np.ones((3, 3, 3, 1))
    assert evaluate(lambda x, w: ops.conv2d(x, w, padding=1), x, w)[0, :, :, 0].tolist() == [[12, 18, 12], [18, 27, 18], [12, 18, 12]]


def test_s31_a_convolution_is_a_dense_layer_with_tied_weights() -> None:
    x, w = integers((1, 6, 6, 1)), integers((3, 3, 1, 1), 1)
    toeplitz = np.zeros((36, 16))
    for oy, ox, ky, kx in np.ndindex(4, 4, 3, 3):
        toeplitz[(oy + ky) * 6 + ox + kx, oy * 4 + ox] = w[ky, kx, 0, 0]
    np.testing.assert_array_equal(x.reshape(1, 36) @ toeplitz, evaluate(ops.conv2d, x, w).reshape(1, 16))


def test_s32_rgb_is_the_sum_over_channels() -> None:
    x, w = normal((1, 6, 6, 3)), normal((3, 3, 3, 2), 1)
    parts = sum(evaluate(ops.conv2d, x[..., c : c + 1], w[:, :, c : c + 1]) for c in range(3))
    np.testing.assert_allclose(evaluate(ops.conv2d, x, w), parts, atol=1e-12)


def test_s33_maps_flow_from_layer_to_layer() -> None:
    x, w1, w2 = normal((1, 8, 8, 3)), normal((3, 3, 3, 5)), normal((3, 3, 5, 7))
    assert evaluate(lambda x, w1, w2: ops.conv2d(ops.conv2d(x, w1), w2), x, w1, w2).shape == (1, 4, 4, 7)


def test_s34_1x1_is_a_matrix_product_per_pixel() -> None:
    x, w = normal((1, 56, 56, 128)), normal((1, 1, 128, 64), 1)
    assert w.size == 8192
    np.testing.assert_allclose(evaluate(ops.conv2d, x, w), x @ w[0, 0], atol=1e-10)


def test_s35_1x1_reduces_the_work() -> None:
    def macs(*shapes: tuple[int, ...]) -> int:
        def net(x: Any) -> Any:
            for shape in shapes:
                x = ops.conv2d(x, np.zeros(shape), padding="same")
            return x

        graph = trace(net, np.zeros((1, 28, 28, 192))).graph
        types = [([v.type if v else None for v in node.inputs], [v.type for v in node.outputs]) for node in graph.nodes]
        return sum(node.op.cost(node.attrs, ins, outs).macs for node, (ins, outs) in zip(graph.nodes, types, strict=True))

    assert macs((5, 5, 192, 32)) == 120_422_400
    assert macs((1, 1, 192, 16), (5, 5, 16, 32)) == 12_443_648


def test_s39_translation_moves_the_map() -> None:
    x, w = normal((1, 12, 12, 2)), normal((3, 3, 2, 3))
    y = evaluate(ops.conv2d, x, w)
    moved = evaluate(ops.conv2d, np.roll(x, (2, 1), (1, 2)), w)
    np.testing.assert_array_equal(moved[:, 2:, 1:], y[:, :-2, :-1])


@every_isa()
def test_s39_direct_convolutions_move_bit_for_bit(isa: str) -> None:
    x, w = normal((1, 24, 24, 16)).astype(np.float32), normal((3, 3, 16, 32), 1).astype(np.float32)

    def run(x: np.ndarray, algorithm: str) -> np.ndarray:
        return trace(lambda x, w: ops.conv2d(x, w, algorithm=algorithm), x, w, batch=[0]).native(isa)["y0"]

    moved = np.roll(x, (2, 1), (1, 2))
    np.testing.assert_array_equal(run(moved, "direct")[:, 2:, 1:], run(x, "direct")[:, :-2, :-1])
    np.testing.assert_allclose(run(x, "winograd4"), run(x, "direct"), atol=2e-4)
    np.testing.assert_allclose(run(x, "winograd2"), run(x, "direct"), atol=5e-5)
    if isa != "ref":
        np.testing.assert_allclose(run(x, "ref"), run(x, "direct"), atol=5e-5)


@pytest.mark.parametrize("isa", [isa for isa in isas() if isa != "ref"])
@pytest.mark.parametrize(("k", "c"), [(70, 1700), (1700, 70)])
def test_winograd_of_large_weights_in_several_blocks(k: int, c: int, isa: str) -> None:
    """Weights that are transformed on the way, more tiles than a task takes, terms cut unevenly, columns that fill no panel."""
    x, w, dy = (normal(shape, i).astype(np.float32) for i, shape in enumerate([(14, 16, 16, k), (3, 3, k, c), (14, 16, 16, c)]))

    def run(algorithm: str) -> dict[str, np.ndarray]:
        def both(x: Any, w: Any, dy: Any) -> Any:
            y = ops.conv2d(x, w, padding=1, algorithm=algorithm)
            return y, ops.conv2d_backward(dy, x, w, padding=1, algorithm=algorithm)[0]

        return trace(both, x, w, dy, batch=[0, 2]).native(isa)

    found, expected = run("winograd4"), run("direct")
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], atol=3e-5 * np.abs(expected[name]).max())


def test_s43_two_convolutions_without_activation_are_one() -> None:
    x, w1, w2 = normal((1, 7, 7, 1)), normal((3, 3, 1, 1)), normal((3, 3, 1, 1), 1)
    composed = evaluate(lambda a, b: ops.conv2d(a, b, padding="full"), w1.transpose(2, 0, 1, 3), w2[::-1, ::-1])
    twice = evaluate(lambda x, w1, w2: ops.conv2d(ops.conv2d(x, w1), w2), x, w1, w2)
    np.testing.assert_allclose(evaluate(ops.conv2d, x, composed[0][..., None]), twice, atol=1e-12)


def test_depthwise_channel_order() -> None:
    x, w = integers((1, 4, 4, 2)), integers((3, 3, 1, 4), 1)
    y = evaluate(lambda x, w: ops.conv2d(x, w, groups=2), x, w)
    for channel, j in np.ndindex(2, 2):
        own = evaluate(ops.conv2d, x[..., channel : channel + 1], w[..., [channel * 2 + j]])
        np.testing.assert_array_equal(y[..., channel * 2 + j], own[..., 0])


def test_conv_transpose2d_is_the_backward_of_a_convolution() -> None:
    w = integers((3, 3, 2, 4), 1)  # a convolution from 2 to 4 channels
    y = evaluate(lambda x, w: ops.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1), integers((1, 3, 3, 4)), w)
    assert y.shape == (1, 6, 6, 2)
    assert evaluate(lambda x, w: ops.conv2d(x, w, stride=2, padding=1), y, w).shape == (1, 3, 3, 4)
    spread = evaluate(lambda x, w: ops.conv_transpose2d(x, w, stride=2), np.ones((1, 1, 2, 1)), np.ones((1, 3, 1, 1)))
    assert spread.ravel().tolist() == [1, 1, 2, 1, 1]


@pytest.mark.parametrize(("x", "kernel", "kw"), CASES, ids=IDS)
def test_s74_conv2d_gradients(x: tuple[int, ...], kernel: tuple[int, int, int], kw: dict[str, Any]) -> None:
    check_gradient(conv(kw), normal(x), normal(weights_for(x, kernel, kw), 1), normal(kernel[2:], 2), batch=[0])


def test_s74_second_order_gradients_of_convolutions() -> None:
    def dx(dy: Any, x: Any, w: Any) -> Any:
        return ops.conv2d_backward(dy, x, w, stride=2, padding=1)

    check_gradient(dx, normal((2, 3, 3, 4)), normal((2, 5, 6, 3), 1), normal((3, 3, 3, 4), 2))


@pytest.mark.parametrize("kw", [{}, {"stride": 2, "padding": 1, "output_padding": 1}, {"groups": 2, "dilation": 2, "padding": "full"}])
def test_s74_conv_transpose2d_gradients(kw: dict[str, Any]) -> None:
    w = normal((3, 2, 3, 4), 1)
    bias = normal((3 * kw.get("groups", 1),), 2)
    check_gradient(lambda x, w, b: ops.conv_transpose2d(x, w, b, **kw), normal((2, 5, 5, 4)), w, bias)


@pytest.mark.parametrize("kw", [{}, {"stride": 2, "padding": "same"}, {"dilation": 3, "padding": (2, 0), "groups": 2}])
def test_s74_conv1d_gradients(kw: dict[str, Any]) -> None:
    x, w = normal((2, 9, 4)), normal((3, 4 // kw.get("groups", 1), 6), 1)
    check_gradient(lambda x, w, b: ops.conv1d(x, w, b, **kw), x, w, normal((6,), 2), batch=[0])


def test_backward_functions_agree_with_the_gradient_rules() -> None:
    x, w, dy = normal((2, 7, 6, 4)), normal((3, 2, 2, 6), 1), normal((2, 4, 6, 6), 2)
    kw: dict[str, Any] = {"stride": (2, 1), "padding": "same", "groups": 2}
    for found in (evaluate(lambda d, x, w: ops.conv2d_backward(d, x, w, **kw), dy, x, w),):
        y = trace(conv(kw), x, w, np.zeros(6), gradient=True)
        y.inputs["s0"] = dy
        expected = y.reference()
        for i in range(3):
            np.testing.assert_allclose(found[i], expected[f"d{i}"], atol=1e-12)


@every_isa()
@pytest.mark.parametrize(("x", "kernel", "kw"), CASES, ids=IDS)
def test_conv2d_native_exact(x: tuple[int, ...], kernel: tuple[int, int, int], kw: dict[str, Any], isa: str) -> None:
    check_native(conv(kw), integers(x), integers(weights_for(x, kernel, kw), 1), integers(kernel[2:], 2), isa=isa, exact=True)


@every_isa()
@pytest.mark.parametrize(("x", "kernel", "kw"), LARGER)
def test_conv2d_native(x: tuple[int, ...], kernel: tuple[int, int, int], kw: dict[str, Any], isa: str) -> None:
    w = weights_for(x, kernel, kw)
    check_native(conv(kw), normal(x), normal(w, 1), normal(kernel[2:], 2), isa=isa, k=np.prod(w[:3]) ** 0.5)


@every_isa()
@pytest.mark.parametrize("groups", [1, 2])
def test_conv_transpose2d_native(isa: str, groups: int) -> None:
    def up(x: Any, w: Any, b: Any) -> Any:
        return ops.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=groups)

    check_native(up, integers((2, 5, 6, 8)), integers((3, 3, 5, 8), 1), integers((5 * groups,), 2), isa=isa, exact=True)


@every_isa()
def test_conv1d_native(isa: str) -> None:
    def along(x: Any, w: Any, b: Any) -> Any:
        return ops.conv1d(x, w, b, stride=2, padding="same")

    check_native(along, integers((3, 17, 5)), integers((4, 5, 6), 1), integers((6,), 2), isa=isa, exact=True)


@every_isa()
@pytest.mark.parametrize("kind", ["relu", "sigmoid", "gelu", "hard_swish"])
def test_s36_fused_bias_residual_and_activation(isa: str, kind: str) -> None:
    def block(x: Any, w: Any, b: Any, r: Any) -> Any:
        return ops.activation(ops.add(ops.conv2d(x, w, b, padding=1), r), kind)

    operands = normal((2, 6, 7, 5)), normal((3, 3, 5, 9), 1), normal((9,), 2), normal((2, 6, 7, 9), 3)
    check_native(block, *operands, isa=isa, k=8, batch=(0, 3))


def test_functions_of_arrays() -> None:
    pytest.importorskip("wiesel._core")
    x, w = integers((2, 6, 6, 3)), integers((3, 3, 3, 4), 1)
    y = ops.conv2d(x, w, padding=1)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, evaluate(lambda x, w: ops.conv2d(x, w, padding=1), x, w))
    views = np.asfortranarray(x), x.transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1), x.astype(np.int64), x.astype(np.float32)[::1]
    for view in views:
        np.testing.assert_array_equal(ops.conv2d(view, w, padding=1), y)
    dx, dw, db = ops.conv2d_backward(np.ones_like(y), x, w, padding=1)
    assert (dx.shape, dw.shape, db.tolist()) == (x.shape, w.shape, [72.0] * 4)
    line = ops.conv1d([[[1], [1], [1], [1], [0], [0]]], [[[1]], [[-1]]])
    assert line.ravel().tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.conv2d(np.zeros((5, 5)), np.zeros((3, 3, 1, 1))), r"x\[None, \.\.\., None\]"),
        (lambda: ops.conv2d(np.zeros((2, 5, 5)), np.zeros((3, 3, 1, 1))), r"channel axis is missing: use x\[\.\.\., None\]"),
        (lambda: ops.conv2d(np.zeros((5, 5, 3)), np.zeros((3, 3, 3, 1))), r"batch axis is missing: use x\[None\]"),
        (lambda: ops.conv2d(np.zeros((2, 3, 9, 9)), np.zeros((3, 3, 3, 1))), r"x\.transpose\(0, 2, 3, 1\)"),
        (lambda: ops.conv2d(np.zeros((2, 9, 9, 4)), np.zeros((3, 3, 3, 1))), r"take 3 channels but x of shape \(2, 9, 9, 4\) has 4"),
        (lambda: ops.conv2d(np.zeros((1, 9, 9, 4)), np.zeros((3, 3, 4))), "expected w of shape"),
        (lambda: ops.conv2d(np.zeros((1, 9, 9, 4)), np.zeros((3, 3, 2, 3)), groups=2), "do not divide into 2 groups"),
        (lambda: ops.conv2d(np.zeros((1, 9, 9, 4)), np.zeros((3, 3, 4, 3)), groups=0), "groups must be"),
        (lambda: ops.conv2d(np.zeros((1, 2, 9, 4)), np.zeros((3, 3, 4, 3))), "padding of at least 1 in total"),
        (lambda: ops.conv2d(np.zeros((1, 9, 9, 4)), np.zeros((3, 3, 4, 3)), np.zeros(4)), r"bias has shape \(4,\), expected \(3,\)"),
        (lambda: ops.conv2d(np.zeros((1, 9, 9, 4)), np.zeros((3, 3, 4, 3)), algorithm="fft"), "algorithm must be one of automatic"),
        (lambda: ops.conv1d(np.zeros((2, 3, 9)), np.zeros((3, 3, 1))), r"x\.transpose\(0, 2, 1\)"),
        (lambda: ops.conv_transpose2d(np.zeros((1, 4, 4, 2)), np.zeros((3, 3, 1, 2)), output_padding=1), "less than the stride"),
        (lambda: ops.conv_transpose2d(np.zeros((1, 4, 4, 2)), np.zeros((3, 3, 1, 2)), padding="same"), "must be numbers"),
        (lambda: ops.conv2d_backward(np.zeros((1, 4, 4, 1)), np.zeros((1, 9, 9, 1)), np.zeros((3, 3, 1, 1))), r"dy has shape"),
    ],
)
def test_s03_bad_shapes_name_the_mend(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("x", "kernel", "kw"), [c for c in CASES if not isinstance(c[2].get("padding"), str) and "fit" not in c[2]])
def test_conv2d_against_torch(x: tuple[int, ...], kernel: tuple[int, int, int], kw: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    given, padding = dict(kw), kw.get("padding", 0)
    a, w, b = normal(x), normal(weights_for(x, kernel, kw), 1), normal(kernel[2:], 2)
    wide = torch.nn.functional.pad(torch.tensor(a.transpose(0, 3, 1, 2)), _torch_padding(padding)).requires_grad_()
    given.pop("padding", None)
    tw = torch.tensor(w.transpose(3, 2, 0, 1).copy(), requires_grad=True)
    y = torch.nn.functional.conv2d(wide, tw, torch.tensor(b), **given)
    traced = trace(conv(kw), a, w, b, gradient=True)
    found = traced.reference()
    np.testing.assert_allclose(found["y0"], y.detach().numpy().transpose(0, 2, 3, 1), atol=1e-10)
    y.backward(torch.tensor(traced.inputs["s0"].transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(found["d1"], tw.grad.numpy().transpose(2, 3, 1, 0), atol=1e-10)


@pytest.mark.parametrize("kw", [{}, {"stride": 3, "padding": 1, "output_padding": 2}, {"groups": 2, "dilation": 2}])
def test_conv_transpose2d_against_torch(kw: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    x, w = normal((2, 4, 5, 4)), normal((3, 2, 3, 4), 1)
    y = torch.nn.functional.conv_transpose2d(torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(w.transpose(3, 2, 0, 1).copy()), **kw)
    ours = evaluate(lambda x, w: ops.conv_transpose2d(x, w, **kw), x, w)
    np.testing.assert_allclose(ours, y.numpy().transpose(0, 2, 3, 1), atol=1e-10)


def _torch_padding(padding: Any) -> tuple[int, int, int, int]:
    from wiesel.ops.geometry import split_padding

    (top, bottom), (left, right) = split_padding("conv2d", padding)  # type: ignore[misc]
    return left, right, top, bottom
