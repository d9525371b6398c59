"""Modules and layers: shapes, names, sharing, values, the figures of the capabilities."""

from __future__ import annotations

import numpy as np
import pytest

import wiesel as wl
from wiesel import nn, ops
from wiesel.summary import summarize

rng = np.random.default_rng(0)


def filled(layer: nn.Module, shape: tuple[int, ...], **values: object) -> nn.Module:
    layer.build(shape)
    for name, value in values.items():
        layer.parameters()[name].assign(value)
    return layer


def picture(text: str) -> np.ndarray:
    rows = [[float(c) for c in row] for row in text.split("/")]
    return np.array(rows)[None, ..., None]


X = picture("101/010/101")[0]


def test_s12_1d_edge() -> None:
    layer = filled(nn.Conv1d(1, 2, bias=False), (5, 1), weight=np.array([1.0, -1.0])[:, None, None])
    y = layer(np.array([1, 1, 1, 1, 0, 0])[None, :, None])
    assert y[0, :, 0].tolist() == [0, 0, 0, 1, 0]


def test_s13_x_filter() -> None:
    layer = filled(nn.Conv2d(1, 3, bias=False), (5, 5, 1), weight=X[..., None])
    y = layer(picture("11100/01110/00111/00110/01100"))
    assert y[0, ..., 0].tolist() == [[4, 3, 4], [2, 4, 3], [2, 3, 4]]


def test_s14_response_is_highest_at_the_pattern() -> None:
    layer = filled(nn.Conv2d(1, 3, bias=False), (9, 9, 1), weight=X[..., None])
    x = np.zeros((1, 9, 9, 1))
    x[0, 4:7, 2:5, 0] = X[..., 0]
    y = layer(x)[0, ..., 0]
    assert np.unravel_index(y.argmax(), y.shape) == (4, 2)
    assert (y == y.max()).sum() == 1
    assert not layer(np.zeros((1, 9, 9, 1))).any()


def test_s15_s17_filters_stack_to_depth() -> None:
    assert nn.Conv2d(3, 3)(np.zeros((1, 5, 5, 1))).shape == (1, 3, 3, 3)
    layer = nn.Conv2d(4, 3, bias=False).build((6, 6, 3))
    assert layer(np.zeros((1, 6, 6, 3))).shape == (1, 4, 4, 4)
    assert layer.weight.shape[:3] == (3, 3, 3)
    assert layer.weight.size // 4 == 27


def test_s16_diagonal_edges() -> None:
    down, up = np.eye(3), np.eye(3)[::-1]
    layer = filled(nn.Conv2d(2, 3, bias=False), (8, 8, 1), weight=np.stack([down, up], -1)[:, :, None, :])
    lines = np.stack([np.eye(8), np.eye(8)[::-1]])[..., None]
    y = layer(lines)
    assert y[0, ..., 0].max() > y[0, ..., 1].max()
    assert y[1, ..., 1].max() > y[1, ..., 0].max()


def test_s21_alexnet_first_layer() -> None:
    layer = nn.Conv2d(96, 11, stride=4).build((227, 227, 3))
    summary = summarize(layer)
    assert layer.parameter_count == 34_944
    assert layer.weight.shape == (11, 11, 3, 96)
    assert "(N, 55, 55, 96)" in summary.layers[0].output
    assert 55 * 55 * 96 == 290_400


def test_s25_padding_by_name() -> None:
    x = np.zeros((1, 9, 9, 1))
    for name, size in (("valid", 7), ("narrow", 7), ("same", 9), ("full", 11), ("wide", 11)):
        assert nn.Conv2d(1, 3, padding=name)(x).shape == (1, size, size, 1), name
    assert nn.Conv2d(1, 3, padding=((1, 0), (2, 2)))(x).shape == (1, 8, 11, 1)


def test_s31_parameters_do_not_depend_on_the_picture() -> None:
    assert nn.Conv2d(8, 3).build((6, 6, 3)).parameter_count == nn.Conv2d(8, 3).build((60, 61, 3)).parameter_count
    layer = filled(nn.Conv2d(1, 3, bias=False), (6, 6, 1), weight=rng.normal(size=(3, 3, 1, 1)))
    w = layer.weight.value[..., 0, 0]
    toeplitz = np.zeros((36, 16), np.float32)
    for oy in range(4):
        for ox in range(4):
            for ky in range(3):
                for kx in range(3):
                    toeplitz[(oy + ky) * 6 + ox + kx, oy * 4 + ox] = w[ky, kx]
    x = rng.normal(size=(2, 6, 6, 1)).astype(np.float32)
    np.testing.assert_allclose(layer(x).reshape(2, 16), x.reshape(2, 36) @ toeplitz, rtol=1e-5, atol=1e-5)


def test_s32_rgb_is_a_sum_over_channels() -> None:
    layer = nn.Conv2d(4, 3, bias=False).build((7, 7, 3))
    x = rng.normal(size=(1, 7, 7, 3)).astype(np.float32)
    parts = []
    for c in range(3):
        one = filled(nn.Conv2d(4, 3, bias=False), (7, 7, 1), weight=layer.weight.value[:, :, c : c + 1])
        parts.append(one(x[..., c : c + 1]))
    np.testing.assert_allclose(layer(x), sum(parts), rtol=1e-5, atol=1e-5)


def test_s34_one_by_one_is_a_matrix_product() -> None:
    layer = nn.Conv2d(64, 1, bias=False).build((14, 14, 128))
    x = rng.normal(size=(2, 14, 14, 128)).astype(np.float32)
    assert layer.weight.size == 8192
    np.testing.assert_allclose(layer(x), x @ layer.weight.value[0, 0], rtol=2e-4, atol=2e-4)


def test_s36_fused_activation_equals_unfused() -> None:
    fused = nn.Conv2d(8, 1, activation="relu").build((5, 5, 4), seed=3)
    apart = nn.Sequential(nn.Conv2d(8, 1), nn.ReLU()).build((5, 5, 4))
    apart[0].weight.assign(fused.weight)
    x = rng.normal(size=(3, 5, 5, 4))
    assert np.array_equal(fused(x), apart(x))


def test_s39_translation() -> None:
    layer = nn.Conv2d(3, 3).build((12, 12, 2))
    x = rng.normal(size=(1, 12, 12, 2)).astype(np.float32)
    y = layer(x)
    shifted = layer(np.roll(x, (2, 1), (1, 2)))
    np.testing.assert_allclose(shifted[:, 2:, 1:], y[:, :-2, :-1], rtol=1e-5, atol=1e-6)


def test_s43_two_linear_layers_are_one() -> None:
    two = nn.Sequential(nn.Conv2d(3, 3, bias=False), nn.Conv2d(2, 2, bias=False)).build((9, 9, 1))
    w1, w2 = two[0].weight.value[:, :, 0], two[1].weight.value
    composed = np.zeros((4, 4, 1, 2), np.float32)
    for ky in range(2):
        for kx in range(2):
            composed[ky : ky + 3, kx : kx + 3, 0] += w1 @ w2[ky, kx]
    one = filled(nn.Conv2d(2, 4, bias=False), (9, 9, 1), weight=composed)
    x = rng.normal(size=(2, 9, 9, 1))
    np.testing.assert_allclose(two(x), one(x), rtol=1e-4, atol=1e-5)
    assert "linear right after linear" in two.summary()
    assert "linear right after linear" not in nn.Sequential(nn.Conv2d(3, 3), nn.ReLU(), nn.Conv2d(2, 2)).build((9, 9, 1)).summary()


SQUARE = picture("1124/5678/3210/1234")


def test_s44_s46_s47_pooling() -> None:
    assert nn.MaxPool2d(2)(SQUARE)[0, ..., 0].tolist() == [[6, 8], [3, 4]]
    assert nn.AvgPool2d(2)(SQUARE)[0, ..., 0].tolist() == [[3.25, 5.25], [2, 2]]
    assert nn.SumPool2d(2)(SQUARE)[0, ..., 0].tolist() == [[13, 21], [8, 8]]


def test_s45_s48_s49_s50_pool_shapes() -> None:
    assert nn.MaxPool2d(3, stride=2)(np.zeros((1, 55, 55, 2))).shape == (1, 27, 27, 2)
    layer = nn.MaxPool2d(2).build((224, 224, 64))
    assert layer(np.zeros((1, 224, 224, 64), np.float32)).shape == (1, 112, 112, 64)
    assert layer.parameter_count == 0
    with pytest.raises(ValueError, match="Nearest valid"):
        nn.MaxPool2d(2, fit="error")(np.zeros((1, 5, 5, 1)))


def test_s51_small_shifts_inside_a_window_vanish() -> None:
    x = np.zeros((1, 8, 8, 1))
    x[0, 2, 4, 0] = 1.0
    assert np.array_equal(nn.MaxPool2d(2)(x), nn.MaxPool2d(2)(np.roll(x, 1, axis=2)))


def test_s52_pooling_quarters_what_follows() -> None:
    def net(*pool: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Conv2d(4, 3, padding="same"), *pool, nn.Flatten(), nn.Linear(10, bias=False)).build((8, 8, 1))

    with_pool, without = summarize(net(nn.MaxPool2d(2))), summarize(net())
    assert without.layers[-1].parameters == 4 * with_pool.layers[-1].parameters
    assert without.layers[0].activations == 4 * with_pool.layers[1].activations


def test_s53_global_average() -> None:
    x = rng.normal(size=(2, 7, 7, 1024)).astype(np.float32)
    y = nn.GlobalAvgPool2d()(x)
    assert y.shape == (2, 1024)
    np.testing.assert_allclose(y, x.mean((1, 2)), rtol=1e-4, atol=1e-6)


def test_s61_flatten_order() -> None:
    assert nn.Flatten()(np.zeros((1, 7, 7, 512))).shape == (1, 25_088)
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    assert np.array_equal(nn.Flatten()(x), x.reshape(2, -1))


def test_s62_linear() -> None:
    layer = nn.Linear(1000).build((4096,))
    assert layer.parameter_count == 4_097_000
    small = nn.Linear(7).build((33,))
    x = rng.normal(size=(5, 33)).astype(np.float32)
    np.testing.assert_allclose(small(x), x @ small.weight.value + small.bias.value, rtol=1e-5, atol=1e-5)


def test_s63_s64_probabilities_and_names() -> None:
    y = nn.Softmax()(np.array([[1e4, -1e4, 0.0], [1.0, 2.0, 3.0]]))
    assert np.abs(y.sum(1) - 1).max() <= 1e-6
    np.testing.assert_allclose(nn.Softmax()(np.array([[1.0, 2.0]])), nn.Softmax()(np.array([[101.0, 102.0]])), rtol=1e-6)
    net = nn.Sequential(nn.Linear(3)).build((4,))
    x = rng.normal(size=(6, 4))
    p = net.predict_proba(x)
    assert np.abs(p.sum(1) - 1).max() <= 1e-6
    assert net.predict(x).dtype == np.int64
    net.class_names = ["cat", "dog", "boot"]
    assert set(net.predict(x)) <= {"cat", "dog", "boot"}
    ends = nn.Sequential(net[0], nn.Softmax())
    np.testing.assert_allclose(ends.predict_proba(x), p, rtol=1e-6)


def test_s65_cycles_are_refused() -> None:
    a, b = nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU())
    a.inner, b.inner = b, a
    with pytest.raises(ValueError, match="cycle"):
        a(np.zeros((1, 3)))


def test_s83_dropout_is_off_in_inference() -> None:
    net = nn.Sequential(nn.Linear(50), nn.Dropout(0.5)).build((8,))
    x = rng.normal(size=(4, 8))
    assert np.array_equal(net(x), net(x))
    assert (net(x) != 0).all()


def test_s95_hyper_parameters_are_listed() -> None:
    net = nn.Sequential(nn.Conv2d(8, 3, stride=2), nn.Dropout(0.25)).build((8, 8, 1))
    text = net.summary(config=True)
    assert "out_channels=8" in text
    assert "stride=(2, 2)" in text
    assert "rate=0.25" in text


def test_s29_even_filters_get_a_note() -> None:
    assert "no central pixel" in nn.Conv2d(4, 4, padding="same").build((8, 8, 1)).summary()
    assert "no central pixel" not in nn.Conv2d(4, 3, padding="same").build((8, 8, 1)).summary()


def test_s35_one_by_one_reduces_the_work() -> None:
    direct = nn.Conv2d(32, 5, padding="same").build((28, 28, 192))
    reduced = nn.Sequential(nn.Conv2d(16, 1), nn.ReLU(), nn.Conv2d(32, 5, padding="same")).build((28, 28, 192))
    assert summarize(direct).macs == 120_422_400
    assert summarize(reduced).macs == 12_443_648
    assert "120,422,400" in direct.summary()


def test_s38_cost_per_layer() -> None:
    one, two = nn.Conv2d(4, 3, padding=1).build((16, 16, 3)), nn.Conv2d(4, 3, padding=1, stride=2).build((16, 16, 3))
    assert summarize(one).macs == 4 * summarize(two).macs
    assert "16·16/(2·2)" in two.summary()


def test_shapes_follow_the_first_call() -> None:
    net = nn.Sequential(nn.Conv2d(4, 3), nn.Flatten(), nn.Linear(5))
    assert not net.built
    assert net(np.zeros((2, 8, 8, 3))).shape == (2, 5)
    assert net.built
    assert {name: p.shape for name, p in net.parameters().items()} == {
        "0.weight": (3, 3, 3, 4), "0.bias": (4,), "2.weight": (144, 5), "2.bias": (5,),
    }  # fmt: skip


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        self.shared = nn.Linear(6, activation="relu")
        self.a, self.b = nn.Linear(3), nn.Linear(1)

    def forward(self, x, z):
        h = self.shared(x) + self.shared(z)  # one layer used twice
        return {"a": self.a(h), "b": (self.b(h), h)}


def test_several_inputs_and_outputs_and_a_layer_used_twice() -> None:
    net = TwoHeads()
    x, z = rng.normal(size=(4, 5)).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    y = net(x, z)
    assert sorted(net.parameters()) == ["a.bias", "a.weight", "b.bias", "b.weight", "shared.bias", "shared.weight"]
    w, b = net.shared.weight.value, net.shared.bias.value
    h = np.maximum(x @ w + b, 0) + np.maximum(z @ w + b, 0)
    np.testing.assert_allclose(y["b"][1], h, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y["a"], h @ net.a.weight.value + net.a.bias.value, rtol=1e-5, atol=1e-5)
    found = net.run(x, z, fetch=["shared", "shared@2", "a"])
    np.testing.assert_allclose(found["shared"] + found["shared@2"], h, rtol=1e-5, atol=1e-5)


def test_own_parameters_are_tensors_inside_forward() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            self.factor = nn.Parameter([1.0, 2.0, 3.0])

        def forward(self, x):
            return ops.exp(self.factor) * x + self.factor

    net = Scale()
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(net(x), np.exp([1, 2, 3]) + np.array([[1, 2, 3]] * 2), rtol=1e-6)
    loss, grads = wl.value_and_grad(net, "mse")(x, np.zeros((2, 3)))
    f = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(grads["factor"], 2 * (np.exp(f) + f) * (np.exp(f) + 1) / 3, rtol=1e-5)
    assert loss > 0


def test_lists_of_modules_are_kept() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            self.blocks = [nn.Linear(4), nn.Linear(4)]

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    assert sorted(Chain().build((4,)).parameters()) == ["blocks.0.bias", "blocks.0.weight", "blocks.1.bias", "blocks.1.weight"]


def test_changing_an_attribute_invalidates_programs() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, padding=0), nn.ReLU()).build((8, 8, 1))
    assert net(np.zeros((1, 8, 8, 1))).shape == (1, 6, 6, 2)
    net[0].padding = "same"
    assert net(np.zeros((1, 8, 8, 1))).shape == (1, 8, 8, 2)


def test_parts_share_the_memory_of_their_net() -> None:
    net = nn.Sequential(features=nn.Sequential(nn.Conv2d(2, 3), nn.ReLU()), head=nn.Sequential(nn.Flatten(), nn.Linear(3))).build((6, 6, 1))
    x = rng.normal(size=(2, 6, 6, 1)).astype(np.float32)
    inner = net.features(x)
    np.testing.assert_array_equal(net.run(x, fetch="features")["features"], inner)
    np.testing.assert_array_equal(net.head(inner), net(x))
    net.features[0].weight.assign(np.zeros((3, 3, 1, 2)))
    assert not net.features(x).any() or net.features[0].bias.value.any()
    assert net.features.run(x, fetch=["0"])["0"].shape == (2, 4, 4, 2)


def test_a_part_moved_into_another_net_keeps_its_values() -> None:
    old = nn.Sequential(nn.Linear(4), nn.Linear(2)).build((3,), seed=5)
    before = old[0].weight.value.copy()
    new = nn.Sequential(old[0], nn.Linear(7))
    x = rng.normal(size=(2, 3)).astype(np.float32)
    y_old = old(x)
    assert new(x).shape == (2, 7)
    assert np.array_equal(new[0].weight.value, before)
    assert np.array_equal(old(x), y_old)


def test_initialisation_depends_on_path_and_seed_alone() -> None:
    def net(order: bool) -> nn.Module:
        class Net(nn.Module):
            def __init__(self) -> None:
                if order:
                    self.a, self.b = nn.Linear(5), nn.Linear(6)
                else:
                    self.b = nn.Linear(6)
                    self.a = nn.Linear(5)

            def forward(self, x):
                return self.b(self.a(x))

        return Net()

    one, two = net(True).build((4,), seed=7).state_dict(), net(False).build((4,), seed=7).state_dict()
    assert one.keys() == two.keys()
    for name in one:
        assert np.array_equal(one[name], two[name]), name
    other = net(True).build((4,), seed=8).state_dict()
    assert not np.array_equal(one["a.weight"], other["a.weight"])
    assert not np.array_equal(one["a.weight"][:4, :4], one["b.weight"][:4, :4])


def test_initialisation_keeps_the_variance() -> None:
    layer = nn.Conv2d(64, 3).build((8, 8, 32))
    assert abs(layer.weight.value.std() / np.sqrt(2 / (9 * 32)) - 1) < 0.03
    assert not layer.bias.value.any()


def test_batch_norm_inference_uses_running_statistics() -> None:
    layer = nn.BatchNorm2d(eps=1e-3).build((4, 4, 3))
    values = {"weight": [1, 2, 3], "bias": [0, 1, 0], "running_mean": [1, 2, 3], "running_var": [1, 4, 9]}
    layer.load_state_dict({name: np.array(v, np.float32) for name, v in values.items()})
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    expected = (x - [1, 2, 3]) / np.sqrt(np.array([1, 4, 9]) + 1e-3) * [1, 2, 3] + [0, 1, 0]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_depthwise_equals_grouped() -> None:
    depthwise = nn.DepthwiseConv2d(3, padding=1, multiplier=2).build((7, 7, 6))
    grouped = filled(nn.Conv2d(12, 3, padding=1, groups=6), (7, 7, 6), weight=depthwise.weight, bias=depthwise.bias)
    x = rng.normal(size=(2, 7, 7, 6))
    np.testing.assert_array_equal(depthwise(x), grouped(x))


def test_transposed_convolution_shapes() -> None:
    for stride, padding, extra in ((1, 0, 0), (2, 1, 1), (3, 0, 2)):
        layer = nn.ConvTranspose2d(5, 3, stride=stride, padding=padding, output_padding=extra)
        size = (6 - 1) * stride - 2 * padding + 2 + extra + 1
        assert layer(np.zeros((1, 6, 6, 4))).shape == (1, size, size, 5)


def test_s04_pixels_are_scaled_inside_the_net() -> None:
    net = nn.Sequential(nn.Normalize((0.5, 0.25), (0.5, 1.0)), nn.Flatten()).build((2, 2, 2))
    x = rng.integers(0, 256, (3, 2, 2, 2), dtype=np.uint8)
    expected = (x / 255 - [0.5, 0.25]) / [0.5, 1.0]
    np.testing.assert_allclose(net(x), expected.reshape(3, -1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(net(x), net(x.astype(np.float64)))


ACTIVATIONS = [
    "ReLU", "ReLU6", "LeakyReLU", "PReLU", "Sigmoid", "Tanh", "ELU", "SELU", "GELU", "SiLU", "Softplus", "HardSwish", "HardSigmoid",
    "LogSoftmax",
]  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_a_layer(name: str) -> None:
    y = getattr(nn, name)()(np.linspace(-4, 7, 24).reshape(2, 12))
    assert y.shape == (2, 12)
    assert np.isfinite(y).all()


def test_s55_relu() -> None:
    assert nn.ReLU()(np.array([[-2.0, -0.0, 0.0, 3.0]])).tolist() == [[0, 0, 0, 3]]
    assert np.isnan(nn.ReLU()(np.array([[np.nan]]))).all()


def test_s56_s57_no_overflow() -> None:
    with np.errstate(all="raise"):
        assert nn.Sigmoid()(np.array([[-1000.0, 0.0, 1000.0]])).tolist() == [[0, 0.5, 1]]
        np.testing.assert_allclose(nn.Tanh()(np.array([[-20.0, 20.0]])), [[-1, 1]], atol=1e-7)


def test_u20_any_strides_and_dtypes_give_equal_bits() -> None:
    net = nn.Sequential(nn.Conv2d(4, 3), nn.ReLU()).build((9, 9, 3))
    x = np.ascontiguousarray(rng.integers(-8, 8, (2, 9, 9, 3)), np.float32)
    y = net(x)
    nchw = np.ascontiguousarray(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    assert not nchw.flags.c_contiguous
    readonly = x.copy()
    readonly.flags.writeable = False
    for same in (nchw, x.astype(np.float64), x.astype(np.int16), readonly, x[::-1][::-1], x.astype(np.float16)):
        assert np.array_equal(net(same), y)


def test_states_and_frozen_layers() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3), nn.BatchNorm2d()).build((6, 6, 1))
    assert net.freeze() is net
    assert all(not p.trainable for p in net.parameters().values())
    assert net[1].frozen
    net.freeze(False)
    assert all(p.trainable for p in net.parameters().values())


def test_s39_a_layer_can_ask_for_direct_convolution() -> None:
    """The algorithm is kept with the net, reaches the step, and an unknown one is refused when the layer is made."""
    net = nn.Sequential(nn.Conv2d(32, 3, padding=1, algorithm="direct")).build((16, 16, 32), seed=0)
    chosen = nn.Sequential(nn.Conv2d(32, 3, padding=1)).build((16, 16, 32), seed=0)
    assert "direct" in str(wl.explain(net, (8, 16, 16, 32)))
    assert "winograd" in str(wl.explain(chosen, (8, 16, 16, 32)))
    x = np.random.default_rng(0).standard_normal((8, 16, 16, 32)).astype(np.float32)
    np.testing.assert_allclose(net(x), chosen(x), atol=1e-4)
    np.testing.assert_array_equal(net(x[:, 1:, 1:])[:, 1:-1, 1:-1], net(x)[:, 2:-1, 2:-1])
    with pytest.raises(ValueError, match="fastest"):
        nn.Conv2d(8, 3, algorithm="fastest")
