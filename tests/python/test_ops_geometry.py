"""Windows: output sizes, padding forms, fit, receptive fields."""

from __future__ import annotations

import numpy as np
import pytest

from oracle import evaluate
from wiesel import ops
from wiesel.ops.geometry import ReceptiveField, Window, padding_table, pair, same_padding, split_padding, window


def positions(extent: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """By a plain loop: the windows that lie inside the padded axis."""
    return sum(1 for start in range(0, extent + 2 * padding, stride) if start + dilation * (kernel - 1) < extent + 2 * padding)


def test_s18_narrow_output_sizes() -> None:
    for extent in range(1, 21):
        for kernel in range(1, min(7, extent) + 1):
            assert window("conv2d", "height", extent, kernel).out == extent - kernel + 1


def test_s19_output_sizes_with_stride_and_padding() -> None:
    for extent in range(1, 41):
        for kernel in range(1, 8):
            for padding in range(4):
                for stride in range(1, 5):
                    if extent + 2 * padding >= kernel:
                        found = window("conv2d", "width", extent, kernel, stride, padding=padding).out
                        assert found == positions(extent, kernel, stride, padding)


def test_s20_fit() -> None:
    with pytest.raises(ValueError, match=r"4\.5 positions.*width: 9 or 11\..*padding: 1 in total \(0 left, 1 right\)"):
        window("conv2d", "width", 10, 3, 2, fit="error")
    assert window("conv2d", "width", 10, 3, 2, fit="floor").out == 4
    assert window("conv2d", "width", 10, 3, 2, fit="pad").out == 5
    cropped = window("conv2d", "width", 10, 3, 2, fit="crop")
    assert cropped.out == 4
    assert "the last pixel is cropped" in cropped.note
    with pytest.warns(UserWarning, match="cropped"):
        evaluate(lambda x, w: ops.conv2d(x, w, stride=2, fit="crop"), np.ones((1, 10, 10, 1)), np.ones((3, 3, 1, 1)))


def test_s21_alexnet_conv1() -> None:
    found = window("conv2d", "height", 227, 11, 4)
    assert found.out == 55
    assert found.out**2 * 96 == 290_400
    assert 11 * 11 * 3 * 96 + 96 == 34_944


def test_s22_the_224_puzzle() -> None:
    with pytest.raises(ValueError, match=r"54\.25 positions.*3 in total \(1 left, 2 right\), which makes it 227 and gives 55"):
        window("conv2d", "width", 224, 11, 4, fit="error")
    padded = window("conv2d", "width", 224, 11, 4, fit="pad")
    assert (padded.before, padded.after, padded.out) == (1, 2, 55)


def test_s23_stride() -> None:
    assert [window("conv2d", "height", 7, 3, stride).out for stride in (1, 2)] == [5, 3]
    with pytest.raises(ValueError, match="fit"):
        window("conv2d", "height", 7, 3, 3, fit="error")


def test_s24_padding_per_side() -> None:
    assert split_padding("conv2d", 1) == ((1, 1), (1, 1))
    assert split_padding("conv2d", (1, 2)) == ((1, 1), (2, 2))
    assert split_padding("conv2d", ((0, 1), (2, 3))) == ((0, 1), (2, 3))
    ones, w = np.ones((1, 4, 4, 1)), np.ones((3, 3, 1, 1))
    for padding in (0, 1, 2):
        y = evaluate(lambda x, w, p=padding: ops.conv2d(x, w, padding=p), ones, w)[0, ..., 0]
        assert (y.min() < 9) == (padding > 0)
        assert y.max() == 9


def test_s25_narrow_wide_same() -> None:
    for name in ("valid", "narrow"):
        assert window("conv2d", "height", 9, 3, padding=name).out == 7
    for name in ("full", "wide"):
        found = window("conv2d", "height", 9, 3, dilation=2, padding=name)
        assert (found.before, found.after) == (4, 4)
    for extent in range(1, 12):
        for stride in range(1, 4):
            for kernel in range(1, 6):
                assert window("conv2d", "height", extent, kernel, stride, padding="same").out == -(-extent // stride)


def test_s26_same_keeps_the_size() -> None:
    for kernel in (1, 3, 5, 7, 11):
        assert same_padding(kernel) == ((kernel - 1) // 2, (kernel - 1) // 2)
        assert window("conv2d", "height", 13, kernel, padding="same").out == 13


def test_s27_bigger_kernels_need_more_padding() -> None:
    assert padding_table() == "f = 3: p = 1\nf = 5: p = 2\nf = 7: p = 3\nf = 11: p = 5"


def test_s28_even_kernels() -> None:
    assert same_padding(2) == (0, 1)
    assert same_padding(4) == (1, 2)
    assert same_padding(2, lower=True) == (1, 0)
    row, w = np.arange(1.0, 4.0).reshape(1, 1, 3, 1), np.ones((1, 2, 1, 1))
    assert evaluate(lambda x, w: ops.conv2d(x, w, padding="same"), row, w)[0, 0, :, 0].tolist() == [3, 5, 3]
    assert evaluate(lambda x, w: ops.conv2d(x, w, padding="same_lower"), row, w)[0, 0, :, 0].tolist() == [1, 3, 5]


def test_s48_pooling_follows_the_same_rule() -> None:
    x = np.zeros((1, 4, 4, 1))
    assert evaluate(lambda x: ops.max_pool2d(x, 2), x).shape == (1, 2, 2, 1)
    with pytest.raises(ValueError, match="Nearest valid height"):
        ops.max_pool2d(np.zeros((1, 5, 5, 1)), 2, fit="error")


def test_receptive_fields_of_alexnet() -> None:
    conv1 = ReceptiveField().through(11, 4)
    pool1 = conv1.through(3, 2)
    conv2 = pool1.through(5, 1, before=2)
    assert (conv1.size, pool1.size, conv2.size) == (11, 19, 51)
    assert (conv1.jump, pool1.jump, conv2.jump) == (4, 8, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: window("conv2d", "height", 3, 5), "at least 2 in total"),
        (lambda: window("conv2d", "height", 3, 1, fit="ceil"), "fit must be one of"),  # type: ignore[arg-type]
        (lambda: split_padding("conv2d", "smae"), "'smae'"),
        (lambda: split_padding("conv2d", -1), "negative"),
        (lambda: split_padding("conv2d", (1, 2, 3)), "padding must be"),
        (lambda: split_padding("conv2d", 1.5), "padding must be"),  # type: ignore[arg-type]
        (lambda: pair(0, "stride", "conv2d"), "stride must be at least 1"),
        (lambda: pair((1, 2, 3), "stride", "conv2d"), "int or a pair"),
        (lambda: pair(True, "stride", "conv2d"), "int or a pair"),
    ],
)
def test_bad_geometry_is_named(call: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()  # type: ignore[operator]


def test_numpy_integers_are_integers() -> None:
    assert pair(np.int64(2), "stride", "conv2d") == (2, 2)
    assert Window(5, 3).out == 3
