"""Bad input: each with a ValueError or TypeError before any computing that names the layer, the shapes and the mend (O-29, U-38)."""

from __future__ import annotations

import numpy as np
import pytest

import wiesel as wl
from wiesel import nn, ops, optim

rng = np.random.default_rng(0)


def net() -> nn.Module:
    return nn.Sequential(
        features=nn.Sequential(nn.Conv2d(4, 3, activation="relu"), nn.MaxPool2d(2)), classifier=nn.Sequential(nn.Flatten(), nn.Linear(3))
    ).build((10, 10, 3), seed=0)


def pictures(n: int = 4) -> np.ndarray:
    return rng.normal(size=(n, 10, 10, 3)).astype(np.float32)


LABELS = np.array([0, 1, 2, 0])


def test_o29_shape_errors_show_the_way() -> None:
    with pytest.raises(ValueError, match=r"classifier\.1 \(Linear\): built for 64 input features, got 100") as error:
        net()(np.zeros((2, 12, 12, 3)))
    text = str(error.value)
    for part in ("shapes on the way:", "features.0", "Conv2d", "f32(N, 10, 10, 4)", "classifier.0", "Flatten", "f32(N, 100) -> error"):
        assert part in text, part


def test_wrong_rank() -> None:
    for shape in ((10, 10), (4, 100), (1, 4, 10, 10, 3)):
        with pytest.raises(ValueError, match=r"features\.0 \(Conv2d\): .*expected x of shape \(n, h, w, c\)"):
            net()(np.zeros(shape))
    with pytest.raises(ValueError, match=r"x\[None\]"):
        net()(np.zeros((10, 10, 3)))


def test_s03_a_picture_without_channels_is_told_how_to_get_them() -> None:
    with pytest.raises(ValueError, match=r"x\[None, \.\.\., None\]"):
        nn.Conv2d(1, 3)(np.ones((5, 5)))
    assert nn.Conv2d(1, 3)(np.ones((5, 5))[None, ..., None]).shape == (1, 3, 3, 1)


def test_wrong_channels() -> None:
    with pytest.raises(ValueError, match=r"features\.0 \(Conv2d\): built for 3 input channels, got 1"):
        net()(np.zeros((4, 10, 10, 1)))


def test_nchw() -> None:
    x = np.zeros((4, 3, 10, 10))
    with pytest.raises(ValueError, match=r"NCHW.*x\.transpose\(0, 2, 3, 1\)"):
        net()(x)
    with pytest.raises(ValueError, match=r"NCHW.*x\.transpose\(0, 2, 3, 1\)"):
        nn.Sequential(nn.Conv2d(4, 3))(x)
    with pytest.raises(ValueError, match=r"NCHW.*x\.transpose\(0, 2, 3, 1\)"):
        wl.Trainer(net()).step(x, LABELS)
    assert net()(x.transpose(0, 2, 3, 1)).shape == (4, 3)
    assert nn.Conv2d(4, 3).build((3, 10, 10))(x).shape == (4, 1, 8, 4)  # meant so


@pytest.mark.parametrize(
    ("make", "torchs", "ours"),
    [
        (lambda: nn.Conv2d(3, 16, 3), "Conv2d(in_channels, out_channels, kernel_size", "Conv2d(out_channels, kernel_size, *"),
        (lambda: nn.Conv2d(3, 16, 3, 1, 1), "Conv2d(in_channels, out_channels, kernel_size", "Conv2d(out_channels, kernel_size, *"),
        (lambda: nn.Linear(784, 10), "Linear(in_features, out_features)", "Linear(out_features, *"),
        (lambda: nn.BatchNorm2d(16), "BatchNorm2d(num_features)", "BatchNorm2d(*"),
        (lambda: nn.MaxPool2d(2, 2), "MaxPool2d(kernel_size, stride", "MaxPool2d(kernel_size, *"),
        (lambda: nn.ConvTranspose2d(8, 4, 2, 2), "ConvTranspose2d(in_channels", "ConvTranspose2d(out_channels, kernel_size, *"),
        (lambda: nn.Conv1d(8, 4, 3), "Conv1d(in_channels", "Conv1d(out_channels, kernel_size, *"),
    ],
)
def test_torchs_positional_arguments(make, torchs: str, ours: str) -> None:
    with pytest.raises(TypeError) as error:
        make()
    assert "torch's form: " + torchs in str(error.value)
    assert "here:         " + ours in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(0, 3),
        lambda: nn.Conv2d(8, (3, 3, 3)),
        lambda: nn.Conv2d(8, 3, stride=0),
        lambda: nn.Conv2d(8, 3, groups=3),
        lambda: nn.Conv2d(8, 3, activation="rely"),
        lambda: nn.Conv2d(8.5, 3),
        lambda: nn.Dropout(1.0),
        lambda: nn.BatchNorm2d(eps=0),
        lambda: nn.Sequential(nn.ReLU),
        lambda: nn.Sequential([nn.ReLU()]),
        lambda: nn.ReLU(True),
        lambda: nn.Parameter(),
        lambda: wl.set_num_threads(0),
        lambda: wl.Trainer(nn.ReLU(), "crossentropy"),
        lambda: wl.Trainer(nn.ReLU(), clip_norm=0),
    ],
)
def test_arguments_that_make_no_sense(make) -> None:
    with pytest.raises((ValueError, TypeError)):
        make()


def test_labels() -> None:
    trainer = wl.Trainer(net())
    before = trainer.net.state_dict()
    with pytest.raises(ValueError, match=r"targets: NaN at index 2"):
        trainer.step(pictures(), np.array([0, 1, np.nan, 0]))
    with pytest.raises(ValueError, match=r"label 3 at index 1 is outside 0 … 2 .*at least 4 outputs"):
        trainer.step(pictures(), np.array([0, 3, 1, 0]))
    with pytest.raises(ValueError, match=r"label -1 at index 3"):
        trainer.step(pictures(), np.array([0, 1, 1, -1]))
    with pytest.raises(ValueError, match=r"must be whole, got 0\.5"):
        trainer.step(pictures(), np.array([0, 1, 0.5, 0]))
    with pytest.raises(ValueError, match=r"3 for 4 samples"):
        trainer.step(pictures(), LABELS[:3])
    with pytest.raises(ValueError, match=r"cross_entropy"):
        trainer.step(pictures(), np.ones((4, 7), np.float32))
    with pytest.raises(TypeError, match=r"dtype"):
        trainer.step(pictures(), np.array(["cat"] * 4))
    with pytest.raises(ValueError, match=r"sample_weight has shape"):
        trainer.step(pictures(), LABELS, np.ones(3))
    with pytest.raises(ValueError, match=r"label 9"):
        trainer.fit(pictures(), np.array([0, 9, 1, 0]))
    assert all(np.array_equal(before[name], value) for name, value in trainer.net.state_dict().items())


def test_empty_batches() -> None:
    for call in (net(), net().predict, lambda x: wl.Trainer(net()).step(x, LABELS[:0]), lambda x: wl.Trainer(net()).fit(x, LABELS[:0])):
        with pytest.raises(ValueError, match="empty"):
            call(pictures(0))


def test_a_softmax_before_cross_entropy() -> None:
    model = nn.Sequential(net(), nn.Softmax())
    with pytest.raises(ValueError, match=r"ends in a softmax \(1\).*takes logits.*Leave the softmax out"):
        wl.Trainer(model).step(pictures(), LABELS)
    with pytest.raises(ValueError, match="log-softmax"):
        wl.Trainer(nn.Sequential(nn.Flatten(), nn.Linear(3, activation="log_softmax"))).step(pictures(), LABELS)


def test_s20_s22_strides_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"^Conv2d: width 10.*Nearest valid width: 9 or 11") as error:
        nn.Conv2d(1, 3, stride=2, fit="error")(np.zeros((1, 11, 10, 1)))
    assert "4.5 positions" in str(error.value)
    for fit, size in (("floor", 4), ("pad", 5), ("crop", 4)):
        if fit == "crop":
            with pytest.warns(UserWarning, match="last pixel is cropped"):
                assert nn.Conv2d(1, 3, stride=2, fit=fit)(np.zeros((1, 10, 10, 1))).shape == (1, size, size, 1)
        else:
            assert nn.Conv2d(1, 3, stride=2, fit=fit)(np.zeros((1, 10, 10, 1))).shape == (1, size, size, 1)
    with pytest.raises(ValueError, match=r"54\.25 positions.*3 in total \(1 top, 2 bottom\), which makes it 227 and gives 55"):
        nn.Conv2d(96, 11, stride=4, fit="error").build((224, 224, 3))


def test_a_tensor_has_no_truth_value() -> None:
    class Branches(nn.Module):
        def forward(self, x):
            return x if x > 0 else -x  # the line that is named

    with pytest.raises(TypeError, match=r"test_errors\.py:\d+: a tensor has no truth value"):
        Branches()(np.ones((1, 3)))


def test_numpy_inside_forward() -> None:
    class UsesNumpy(nn.Module):
        def forward(self, x):
            return np.exp(np.asarray(x))

    with pytest.raises(TypeError, match=r"inside forward use wiesel\.ops, not NumPy"):
        UsesNumpy()(np.ones((1, 3)))


def test_layers_made_inside_forward() -> None:
    class Makes(nn.Module):
        def forward(self, x):
            return nn.Linear(3)(x)

    with pytest.raises(ValueError, match="belongs to no attribute"):
        Makes()(np.ones((1, 3)))


def test_what_forward_returns() -> None:
    class Nothing(nn.Module):
        def forward(self, x):
            ops.relu(x)

    with pytest.raises(TypeError, match="forward returns a tensor"):
        Nothing()(np.ones((1, 3)))


def test_wrong_use_of_the_trainer() -> None:
    trainer = wl.Trainer(net())
    for call, message in (
        (lambda: trainer.fit(pictures()), "targets are missing"),
        (lambda: trainer.evaluate(pictures()), "targets are missing"),
        (lambda: trainer.fit(pictures(), LABELS, batch_size=0), "batch_size"),
        (lambda: trainer.fit(pictures(), LABELS, validation=pictures()), "validation"),
        (lambda: wl.Trainer(net().freeze()).step(pictures(), LABELS), "nothing to train"),
        (lambda: wl.Trainer(net(), {"a": "mse"}).step(pictures(), {"a": pictures()}), "output 'a'"),
        (lambda: wl.Trainer(net(), "mse").step(pictures(), LABELS), "mse"),
        (lambda: wl.Trainer(net(), optimizer=optim.SGD(0.1)).apply({}), "missing"),
        (lambda: net().run(pictures(), fetch="features.9"), "features.9"),
        (lambda: nn.Linear(3).weight, "once the net is built"),
        (lambda: wl.Trainer(nn.Linear(2)).apply({}), "not built"),
    ):
        with pytest.raises((ValueError, TypeError, AttributeError), match=message):
            call()


def test_inputs_that_are_no_numbers() -> None:
    for x in (np.array([["a"] * 3]), np.ones((2, 3), complex), np.array([[None, 1, 2]], object)):
        with pytest.raises(TypeError, match="dtype"):
            nn.Linear(2)(x)
    with pytest.raises(ValueError, match="float32"):
        nn.Linear(2).build((3,))(np.full((1, 3), 1e300))


def test_assigning_another_shape() -> None:
    model = net()
    weight = model.features[0].weight
    with pytest.raises(ValueError, match=r"features\.0\.weight has shape \(3, 3, 3, 4\), the values assigned have \(3, 3\)"):
        weight.assign(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="read-only"):
        weight.value[...] = 0
