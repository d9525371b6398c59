"""Updates of large dense weights from gradients that are never written: the same weights, and who wants the gradient gets it."""

import numpy as np
import pytest

import wiesel as wl
from wiesel import nn, optim
from wiesel.passes import take

WIDE = 1100  # squared more than 4 MB


def trained(steps: int = 3, batch: int = 6, optimizer: optim.Optimizer | None = None, **options) -> tuple[wl.Trainer, list[float]]:
    net = nn.Sequential(nn.Linear(WIDE, activation="relu"), nn.Linear(WIDE, bias=False), nn.Dropout(0.5), nn.Linear(5))
    optimizer = optim.SGD(0.05, momentum=0.9, weight_decay=1e-3) if optimizer is None else optimizer
    trainer = wl.Trainer(net, optimizer=optimizer, seed=3, **options)
    rng = np.random.default_rng(0)
    losses = []
    for n in (batch,) * (steps - 1) + (batch - 1,):  # a smaller last batch in the same program
        losses.append(trainer.step(rng.standard_normal((n, WIDE), np.float32), rng.integers(0, 5, n)))
    return trainer, losses


def updates(trainer: wl.Trainer, batch: int = 6) -> list[str]:
    plan = wl.plan(trainer.net, (batch, WIDE), training=True, optimizer=trainer.optimizer)
    return [step["opcode"] for step in plan.compiled.steps() if step["entry"] == "update"]


@pytest.mark.parametrize(
    "optimizer",
    [
        optim.SGD(0.05),
        optim.Adam(1e-2),
        optim.AdamW(1e-2, weight_decay=0.1, groups=[optim.Group("1.*", beta1=0.5)]),
        optim.SGD(0.05, momentum=0.9, nesterov=True),
        optim.SGD(0.05, momentum=0.9, weight_decay=1e-3, decoupled=True, groups=[optim.Group("1.*", lr=0.01, momentum=0.5)]),
    ],
)
def test_weights_and_losses_have_the_same_bits(optimizer: optim.Optimizer) -> None:
    (ours, losses), (whole, expected) = trained(optimizer=optimizer), trained(optimizer=optimizer, keep_grads=True)
    assert [step for step in updates(ours) if step.endswith("_matmul")] == ["adam_matmul" if optimizer.moments == 2 else "sgd_matmul"] * 2
    assert losses == expected
    for name, parameter in whole.net.parameters().items():
        np.testing.assert_array_equal(ours.net.parameters()[name].value, parameter.value, err_msg=name)


def test_a_gradient_that_was_not_written_is_none() -> None:
    ours, whole = trained()[0].net.parameters(), trained(keep_grads=True)[0].net.parameters()
    for name, parameter in whole.items():
        if parameter.value.nbytes >= take.LEAST_BYTES:
            assert ours[name].grad is None
            assert parameter.grad is not None and np.any(parameter.grad)
        else:
            np.testing.assert_array_equal(ours[name].grad, parameter.grad, err_msg=name)


def test_gradients_that_are_not_written_are_no_planned_memory() -> None:
    trainer = trained()[0]
    plan = wl.plan(trainer.net, (6, WIDE), training=True, optimizer=trainer.optimizer)
    assert plan.gradients < plan.parameters - 2 * 4 * WIDE * WIDE + 4096


def test_value_and_grad_gives_all_gradients_after_a_step() -> None:
    trainer = trained()[0]
    x = np.ones((2, WIDE), np.float32)
    _, grads = wl.value_and_grad(trainer.net)(x, np.zeros(2, np.int32))
    assert all(grads[name].shape == parameter.shape for name, parameter in trainer.net.parameters().items())
    trainer.apply(grads)
    assert all(parameter.grad is not None for parameter in trainer.net.parameters().values())


@pytest.mark.parametrize("options", [{"clip_norm": 1.0}, {"accumulate": 2}, {"clip_norm": 1.0, "optimizer": optim.Adam()}])
def test_gradients_that_are_wanted_are_written(options: dict) -> None:
    trainer = trained(**options)[0]
    assert all(parameter.grad is not None for parameter in trainer.net.parameters().values())


def test_clipped_values_are_those_of_the_flat_update() -> None:
    ours, whole = trained(clip_value=1e-3)[0], trained(clip_value=1e-3, keep_grads=True)[0]
    for name, parameter in whole.net.parameters().items():
        np.testing.assert_array_equal(ours.net.parameters()[name].value, parameter.value, err_msg=name)


def test_shared_and_frozen_weights_are_updated_as_before() -> None:
    shared = nn.Linear(WIDE, bias=False)
    twice = wl.Trainer(nn.Sequential(shared, shared, nn.Linear(2)), optimizer=optim.SGD(0.1))
    twice.step(np.ones((3, WIDE), np.float32), np.zeros(3, np.int32))
    assert shared.weight.grad is not None, "the sum of two products is no product"
    trainer = trained()[0]
    first = trainer.net[0].weight
    first.trainable = False
    before = first.value.copy()
    trainer.step(np.ones((3, WIDE), np.float32), np.zeros(3, np.int32))
    np.testing.assert_array_equal(first.value, before)


def test_a_net_whose_only_weight_is_taken() -> None:
    x, y = np.ones((3, WIDE), np.float32), np.zeros((3, WIDE), np.float32)
    found = []
    for keep in (True, False):
        net = nn.Linear(WIDE, bias=False).build((WIDE,), seed=1)
        trainer = wl.Trainer(net, "mse", optim.SGD(0.1), keep_grads=keep)
        found.append(([trainer.step(x, y) for _ in range(2)], net.weight.value.copy()))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_checkpoints_continue_to_the_same_bytes(tmp_path) -> None:
    trainer = trained()[0]
    trainer.save(tmp_path / "run.wsl")
    x, y = np.ones((4, WIDE), np.float32), np.arange(4)
    trainer.step(x, y)
    other = trained(steps=1)[0]
    other.resume(tmp_path / "run.wsl")
    other.step(x, y)
    for name, parameter in trainer.net.parameters().items():
        np.testing.assert_array_equal(other.net.parameters()[name].value, parameter.value, err_msg=name)
