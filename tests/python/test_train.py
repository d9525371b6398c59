"""Trainer: fit, step, apply, evaluate, several inputs and outputs, weights, callbacks, the rules that keep learning honest."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import wiesel as wl
from reference_training import ReferenceTrainer, assert_follows
from wiesel import callbacks, nn, ops, optim
from wiesel.data import Dataset

rng = np.random.default_rng(0)


def classes(n: int = 240, seed: int = 0):
    """Points of three classes that a small net separates."""
    r = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return (r.normal(size=(n, 4)) + 3 * np.eye(3, 4)[y]).astype(np.float32), y


def mlp(outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(16, activation="relu"), nn.Linear(outputs))


def test_s76_s77_history_has_an_entry_per_epoch() -> None:
    x, y = classes()
    trainer = wl.Trainer(mlp(), optimizer=optim.SGD(0.1))
    history = trainer.fit(x, y, epochs=4, batch_size=32, validation=classes(60, 1))
    assert len(history) == len(history["loss"]) == 4
    assert history.names() == ["loss", "accuracy", "lr", "seconds", "images_per_second", "val_loss", "val_accuracy"]
    assert history.loss[-1] < history.loss[0]
    assert history.val_accuracy[-1] > 0.9
    assert trainer.step_count == 4 * 8
    again = trainer.fit(x, y, epochs=1, batch_size=32)
    assert len(again) == 1
    assert len(trainer.history) == 5
    with pytest.raises(KeyError, match="it has: loss"):
        again["val_loss"]


def test_s42_weights_change_and_sizes_do_not() -> None:
    net = mlp().build((4,), seed=0)
    before = net.state_dict()
    wl.Trainer(net).fit(*classes(), epochs=1)
    after = net.state_dict()
    assert all(after[name].shape == before[name].shape and not np.array_equal(after[name], before[name]) for name in before)


def test_s66_universal_approximation() -> None:
    x = np.linspace(-np.pi, np.pi, 256, dtype=np.float32)[:, None]
    net = nn.Sequential(nn.Linear(64, activation="tanh"), nn.Linear(1))
    trainer = wl.Trainer(net, "mse", optim.Adam(optim.Cosine(3e-2, epochs=1000)))
    trainer.fit(x, np.sin(x), epochs=1000, batch_size=64)
    assert np.sqrt(np.mean((net(x) - np.sin(x)) ** 2)) < 0.01


def test_s68_uniform_cross_entropy_is_ln_ten() -> None:
    net = nn.Linear(10).build((4,))
    net.load_state_dict({"weight": np.zeros((4, 10)), "bias": np.zeros(10)})
    found = wl.Trainer(net).evaluate(np.ones((7, 4)), np.arange(7))
    assert abs(found["loss"] - 2.302585) < 1e-5


def test_s69_losses_fall_as_the_true_class_gains() -> None:
    scores = [np.array([[s, 0.0, 0.0]]) for s in (-1.0, 0.0, 0.5, 2.0)]
    for loss in ("cross_entropy", "hinge"):
        values = [wl.Trainer(nn.Identity(), loss).evaluate(s, [0])["loss"] for s in scores]
        assert values == sorted(values, reverse=True), loss
        assert len(set(values)) == len(values), loss


def test_s72_sorted_data_warn() -> None:
    x, y = classes()
    order = np.argsort(y, kind="stable")
    trainer = wl.Trainer(mlp(), seed=0)
    with pytest.warns(UserWarning, match="sorted by class"):
        trainer.fit(x[order], y[order], shuffle=False, batch_size=32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fit(x[order], y[order], batch_size=32)
        trainer.fit(x, y, shuffle=False, batch_size=32)


def test_s72_shuffled_learns_better_than_sorted() -> None:
    x, y = classes(600)
    order = np.argsort(y, kind="stable")
    accuracy = []
    for shuffle in (False, True):
        trainer = wl.Trainer(mlp(), optimizer=optim.SGD(0.1, momentum=0.9), seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(x[order], y[order], shuffle=shuffle, epochs=2, batch_size=20)
        accuracy.append(trainer.evaluate(*classes(300, 1))["accuracy"])
    assert accuracy[1] > accuracy[0] + 0.2


def test_s78_sealed_test_data() -> None:
    x, y = classes()
    train, validation, test = Dataset(x, y).split(validation=0.2, test=0.2)
    trainer = wl.Trainer(mlp())
    with pytest.raises(ValueError, match="sealed"):
        trainer.fit(test)
    with pytest.raises(ValueError, match="sealed"):
        trainer.fit(train, validation=test)
    with pytest.raises(ValueError, match="share"):
        trainer.fit(train, validation=train)
    trainer.fit(train, validation=validation)
    trainer.evaluate(test)
    with pytest.warns(UserWarning, match="evaluated 2 times"):
        trainer.evaluate(test)


def test_u33_validation_share_is_stratified() -> None:
    x, y = classes(90)
    order = np.argsort(y, kind="stable")
    trainer = wl.Trainer(mlp(), optimizer=optim.SGD(0.1))
    history = trainer.fit(x[order], y[order], validation=0.2, epochs=5, batch_size=16)
    assert history.val_accuracy[-1] > 0.8  # a validation set of the last class alone would not have been learned from the others


def test_s82_s85_dropped_units_are_not_updated() -> None:
    net = nn.Sequential(nn.Linear(40, activation="relu"), nn.Dropout(0.5), nn.Linear(3)).build((4,), seed=2)
    net[0].bias.assign(np.ones(40))
    before = net.state_dict()
    wl.Trainer(net, optimizer=optim.SGD(0.5)).step(np.ones((1, 4)), [1])
    after = net.state_dict()
    rows = (after["2.weight"] != before["2.weight"]).any(1)
    columns = (after["0.weight"] != before["0.weight"]).any(0)
    assert 5 < rows.sum() < 35
    assert not (columns & ~rows).any()


def test_dropout_draws_a_new_mask_each_step_and_repeats_it_for_a_seed() -> None:
    def masks(seed: int) -> list[np.ndarray]:
        net = nn.Sequential(nn.Linear(64, bias=False), nn.Dropout(0.5), nn.Linear(1, bias=False)).build((1,), seed=1)
        compute = wl.value_and_grad(net, "mse", seed=seed)
        return [compute(np.ones((1, 1)), np.ones((1, 1)), step=step)[1]["2.weight"][:, 0] != 0 for step in range(2)]

    one, two = masks(0), masks(0)
    assert np.array_equal(one[0], two[0])
    assert not np.array_equal(one[0], one[1])
    assert not np.array_equal(one[0], masks(1)[0])


class TwoInTwoOut(nn.Module):
    def __init__(self) -> None:
        self.left, self.right = nn.Linear(8, activation="relu"), nn.Linear(8, activation="relu")
        self.mix = nn.Linear(6, activation="tanh")
        self.digit, self.size = nn.Linear(3), nn.Linear(2)

    def forward(self, x, z):
        h = self.mix(self.mix_in(x, z))
        return {"digit": self.digit(h), "size": self.size(h)}

    def mix_in(self, x, z):
        return self.left(x) + self.right(z)


def test_two_inputs_two_outputs_weighted_losses_and_sample_weights() -> None:
    net = TwoInTwoOut().build((4,), (5,), seed=0)
    start = net.state_dict()
    losses = {"digit": "cross_entropy", "size": "mse"}
    trainer = wl.Trainer(net, losses, optim.SGD(0.1, momentum=0.9), loss_weights={"size": 0.3})

    def loss(o, t, w):
        return ops.cross_entropy(o["digit"], t["digit"], w) + 0.3 * ops.mse(o["size"], t["size"], w)

    reference = ReferenceTrainer(net, loss, optim.SGD(0.1, momentum=0.9))
    for _ in range(20):
        x = (rng.normal(size=(12, 4)).astype(np.float32), rng.normal(size=(12, 5)).astype(np.float32))
        y = {"digit": rng.integers(0, 3, 12).astype(np.int32), "size": rng.normal(size=(12, 2)).astype(np.float32)}
        w = rng.uniform(0.5, 2, 12).astype(np.float32)
        expected = reference.step(x, y, w)
        assert abs(trainer.step(x, y, w) - expected) < 1e-3 * abs(expected)
    assert_follows(net.state_dict(), reference.values, start)
    figures = trainer.evaluate(x, y, w)
    assert set(figures) == {"loss", "accuracy_digit"}
    history = trainer.fit(x, y, epochs=2, batch_size=5, sample_weight=w)
    assert len(history["accuracy_digit"]) == 2


def test_tuple_outputs_and_a_layer_used_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            self.same = nn.Linear(4, activation="tanh")
            self.norm = nn.BatchNorm2d()
            self.out = nn.Linear(3)

        def forward(self, x):
            h = self.norm(self.same(self.norm(self.same(x))))
            return self.out(h), h

    net = Twice().build((4,), seed=0)
    start = net.state_dict()
    loss = lambda o, t, w: ops.cross_entropy(o[0], t[0]) + ops.mse(o[1], t[1])  # noqa: E731
    trainer = wl.Trainer(net, ("cross_entropy", "mse"), optim.SGD(0.1))
    reference = ReferenceTrainer(net, loss, optim.SGD(0.1))
    for _ in range(10):
        x = rng.normal(size=(9, 4)).astype(np.float32)
        y = (rng.integers(0, 3, 9).astype(np.int32), rng.normal(size=(9, 4)).astype(np.float32))
        reference.step(x, y)
        trainer.step(x, y)
    assert_follows(net.state_dict(), reference.values, start)


def test_soft_targets_equal_their_integers() -> None:
    x, y = classes(64)
    one, two = mlp().build((4,), seed=0), mlp().build((4,), seed=0)
    a, b = wl.Trainer(one), wl.Trainer(two)
    for _ in range(5):
        assert abs(a.step(x, y) - b.step(x, np.eye(3)[y])) < 1e-6
    for name, value in one.state_dict().items():
        np.testing.assert_allclose(two.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert a.evaluate(x, y)["accuracy"] == b.evaluate(x, np.eye(3)[y])["accuracy"]


def test_label_dtypes() -> None:
    x, y = classes(30)
    trainer = wl.Trainer(mlp())
    losses = {round(trainer.evaluate(x, y.astype(d))["loss"], 6) for d in (np.int64, np.uint8, np.int32, np.float64)}
    losses |= {round(trainer.evaluate(x, list(map(int, y)))["loss"], 6)}
    assert len(losses) == 1


def test_own_loss_functions() -> None:
    x, y = classes(48)

    def focal(outputs, targets, sample_weight):
        return ops.mean(ops.square(1.0 - ops.sum(ops.softmax(outputs) * ops.one_hot(targets, 3), 1)))

    trainer = wl.Trainer(mlp(), focal, optim.SGD(0.5))
    history = trainer.fit(x, y, epochs=10, batch_size=16)
    assert history.loss[-1] < history.loss[0]
    with pytest.raises(ValueError, match="scalar"):
        wl.Trainer(mlp(), lambda o, t, w: ops.square(o)).step(x, y)
    smooth = wl.Trainer(mlp(), wl.losses.with_smoothing(0.1)).fit(x, y, epochs=1)
    assert np.isfinite(smooth.loss[0])


def test_apply_equals_step() -> None:
    x, y = classes(32)
    one, two = mlp().build((4,), seed=0), mlp().build((4,), seed=0)
    a, b = wl.Trainer(one, optimizer=optim.Adam(1e-2)), wl.Trainer(two, optimizer=optim.Adam(1e-2))
    compute = wl.value_and_grad(two, "cross_entropy")
    for _ in range(5):
        loss, grads = compute(x, y)
        assert a.step(x, y) == loss
        b.apply(grads)
    for name, value in one.state_dict().items():
        assert np.array_equal(two.state_dict()[name], value), name
    with pytest.raises(ValueError, match=r"missing: 0\.weight"):
        b.apply({})
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        b.apply({**grads, "0.bias": np.zeros(2)})


def test_early_stopping_keeps_the_best_weights() -> None:
    x, y = classes(60)
    seen: list[dict[str, np.ndarray]] = []
    trainer = wl.Trainer(mlp(), optimizer=optim.SGD(3.0))
    stop = callbacks.EarlyStopping("val_loss", patience=3)
    hooks = [lambda t, r: seen.append(t.net.state_dict()), stop]
    history = trainer.fit(x, y, epochs=40, batch_size=6, validation=classes(60, 1), callbacks=hooks)
    best = int(np.argmin(history.val_loss))
    assert len(history) <= 40
    assert stop.best_epoch == best
    for name, value in trainer.net.state_dict().items():
        assert np.array_equal(value, seen[best][name])


def test_callbacks_hear_everything() -> None:
    heard: list[str] = []

    class Listener(callbacks.Callback):
        def on_fit_begin(self, trainer):
            heard.append(f"begin {trainer.plan_of_fit.epochs} {trainer.plan_of_fit.batches} {trainer.plan_of_fit.samples}")

        def on_epoch_begin(self, trainer, epoch):
            heard.append(f"epoch {epoch}")

        def on_step_end(self, trainer, figures):
            heard.append(f"step {figures['batch']} {figures['samples']}")
            assert {"loss", "accuracy", "lr"} <= figures.keys()

        def on_epoch_end(self, trainer, epoch, record):
            heard.append(f"end {epoch} {len(trainer.history)}")

        def on_fit_end(self, trainer):
            heard.append("done")

    wl.Trainer(mlp()).fit(*classes(20), epochs=2, batch_size=12, callbacks=[Listener()])
    assert heard == ["begin 2 2 20", "epoch 0", "step 1 12", "step 2 20", "end 0 1", "epoch 1", "step 1 12", "step 2 20", "end 1 2", "done"]


def test_s71_order_depends_on_seed_and_epoch_alone() -> None:
    x, y = np.arange(40, dtype=np.float32)[:, None], np.arange(40) % 2
    from wiesel.data import Loader

    orders = [Loader(Dataset(x, y), 8, seed=3).order(epoch).tolist() for epoch in (0, 1, 0)]
    assert sorted(orders[0]) == list(range(40))
    assert orders[0] == orders[2] != orders[1]
    arrays = wl.Trainer(nn.Linear(2), seed=3)
    data = wl.Trainer(nn.Linear(2), seed=3)
    one = arrays.fit((x,), (y), epochs=2, batch_size=8)
    two = data.fit(Dataset(x, y), epochs=2, batch_size=8)
    assert one.loss == two.loss


def test_one_epoch_compiles_one_training_and_one_inference_program() -> None:
    trainer = wl.Trainer(mlp())
    trainer.fit(*classes(200), epochs=3, batch_size=64, validation=classes(50, 1))
    assert trainer.net.engine.compilations == 2


def test_step_predict_assign_predict_step() -> None:
    x, y = classes(32)
    net = nn.Sequential(nn.Linear(16), nn.BatchNorm2d(), nn.ReLU(), nn.Linear(3)).build((4,), seed=0)
    trainer = wl.Trainer(net, optimizer=optim.SGD(0.1))

    def by_hand() -> np.ndarray:
        v = net.state_dict()
        h = x @ v["0.weight"] + v["0.bias"]
        h = (h - v["1.running_mean"]) / np.sqrt(v["1.running_var"] + 1e-5) * v["1.weight"] + v["1.bias"]
        return np.maximum(h, 0) @ v["3.weight"] + v["3.bias"]

    for _ in range(3):
        trainer.step(x, y)
        np.testing.assert_allclose(net(x), by_hand(), rtol=1e-4, atol=1e-4)
        net[0].weight.assign(net[0].weight.value * 1.5)
        np.testing.assert_allclose(net(x), by_hand(), rtol=1e-4, atol=1e-4)


def test_s115_eight_steps_in_twelve_lines() -> None:
    images, labels = striped()  # 1 input
    net = nn.Sequential(
        nn.Conv2d(4, 3),  # 2 convolution
        nn.MaxPool2d(2),  # 3 pooling
        nn.ReLU(),  # 4 activation
        nn.Flatten(),  # 5 flatten
        nn.Linear(2),  # 6 fully connected
    )
    trainer = wl.Trainer(net, "cross_entropy", optim.SGD(0.1))
    history = trainer.fit(images, labels, epochs=8, batch_size=16)  # 8 repeat
    assert history.accuracy[-1] > 0.9
    assert net.predict_proba(images).shape == (64, 2)  # 7 probabilities
    swapped = nn.Sequential(net[0], nn.ReLU(), nn.MaxPool2d(2))
    assert np.array_equal(swapped(images), nn.Sequential(net[0], nn.MaxPool2d(2), nn.ReLU())(images))


def test_s116_four_steps_and_a_loss() -> None:
    images, labels = striped()
    net = nn.Sequential(nn.Conv2d(4, 3), nn.AvgPool2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(2))
    assert wl.Trainer(net, "cross_entropy", optim.SGD(0.3)).fit(images, labels, epochs=8, batch_size=16).accuracy[-1] > 0.9


def striped(n: int = 64):
    """Pictures of vertical (0) and horizontal (1) stripes."""
    y = np.arange(n) % 2
    r = np.random.default_rng(0)
    stripe = (np.arange(10) // 2 % 2).astype(np.float32)
    x = np.where(y[:, None, None] == 0, stripe[None, None, :], stripe[None, :, None])
    return (x + 0.3 * r.normal(size=(n, 10, 10)))[..., None].astype(np.float32), y


def test_gradients_by_hand() -> None:
    layer = nn.Linear(3).build((5,), seed=0)
    x = rng.normal(size=(4, 5)).astype(np.float32)
    y, backward = wl.vjp(layer, x)
    np.testing.assert_allclose(y, x @ layer.weight.value + layer.bias.value, rtol=1e-5, atol=1e-6)
    dy = rng.normal(size=(4, 3)).astype(np.float32)
    dx, grads = backward(dy)
    np.testing.assert_allclose(dx, dy @ layer.weight.value.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grads["weight"], x.T @ dy, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grads["bias"], dy.sum(0), rtol=1e-5, atol=1e-5)


def test_vjp_of_a_net_equals_value_and_grad() -> None:
    net = nn.Sequential(nn.Conv2d(4, 3, activation="relu"), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2)).build((8, 8, 1), seed=0)
    x = rng.normal(size=(3, 8, 8, 1)).astype(np.float32)
    t = rng.normal(size=(3, 2)).astype(np.float32)
    y, backward = wl.vjp(net, x)
    _, by_hand = backward(2 * (y - t) / y.size)
    loss, grads = wl.value_and_grad(net, "mse")(x, t)
    assert abs(loss - np.mean((y - t) ** 2)) < 1e-5
    for name in grads:
        np.testing.assert_allclose(by_hand[name], grads[name], rtol=1e-4, atol=1e-6)


def test_grad_of_any_tensor_with_rules() -> None:
    net = nn.Sequential(features=nn.Sequential(nn.Linear(6), nn.ReLU()), head=nn.Linear(4)).build((5,), seed=0)
    x = rng.normal(size=(3, 5)).astype(np.float32)
    found = wl.grad(net, of="logits[2]", wrt=["input", "features.1"])(x)
    w = net.head.weight.value
    h = net.run(x, fetch="features.0")["features.0"]
    np.testing.assert_allclose(found["features.1"], np.broadcast_to(w[:, 2], (3, 6)), rtol=1e-5)
    np.testing.assert_allclose(found["input"], ((h > 0) * w[:, 2]) @ net.features[0].weight.value.T, rtol=1e-4, atol=1e-5)
    guided = wl.grad(net, of="output[2]", wrt="input", rules={"relu": lambda x, y, dy: ops.relu(dy) * (x > 0)})(x)
    np.testing.assert_allclose(guided, ((h > 0) * np.maximum(w[:, 2], 0)) @ net.features[0].weight.value.T, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no tensor"):
        wl.grad(net, of="nowhere")(x)


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    net = nn.Sequential(nn.Linear(6), nn.BatchNorm2d(), nn.ReLU(), nn.Linear(3)).build((4,), seed=0)
    net[1].freeze()
    before = net.state_dict()
    wl.Trainer(net, optimizer=optim.SGD(0.1)).fit(*classes(64), epochs=1, batch_size=16)
    after = net.state_dict()
    for name in ("1.weight", "1.bias", "1.running_mean", "1.running_var"):
        assert np.array_equal(before[name], after[name]), name
    assert not np.array_equal(before["0.weight"], after["0.weight"])


def test_s109_lenet5_learns() -> None:
    net = wl.models.lenet5().build((32, 32, 1))
    assert net.parameter_count == 61_706
    from wiesel.summary import summarize

    assert summarize(net).macs == 416_520


def test_labels_are_checked_before_the_first_step() -> None:
    x, y = classes(60)
    y = np.concatenate([y[:59], [3]])
    trainer = wl.Trainer(mlp())
    for data in ((x, y), (Dataset(x, y),), ((x,), y)):
        with pytest.raises(ValueError, match="label 3 at index 59"):
            trainer.fit(*data, batch_size=8, shuffle=False)
    assert trainer.step_count == 0


def test_one_trainer_after_the_other_on_one_net() -> None:
    x, y = classes(32)
    net = mlp().build((4,), seed=0)
    for _ in range(8):  # addresses of trainers are used again; their programs must not be
        trainer = wl.Trainer(net, optimizer=optim.SGD(0.1))
        trainer.step(x, y)
        trainer.step(x, y)
        assert trainer.step_count == 2
        del trainer


def test_class_names_of_the_data_become_those_of_the_net() -> None:
    x, y = classes(60)
    net = mlp()
    wl.Trainer(net).fit(Dataset(x, y, class_names=["a", "b", "c"]), epochs=1)
    assert set(net.predict(x)) <= {"a", "b", "c"}
