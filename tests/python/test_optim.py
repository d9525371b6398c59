"""Optimizers, groups, clipping, schedules: against NumPy references and, where it is installed, torch; 50 steps from equal weights."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import wiesel as wl
from reference_training import ReferenceTrainer, assert_follows
from wiesel import nn, optim
from wiesel.optim import Progress


def small_net() -> nn.Module:
    return nn.Sequential(nn.Linear(12, activation="tanh"), nn.Linear(5)).build((7,), seed=1)


def batch_norm_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(6, 3, padding=1, bias=False), nn.BatchNorm2d(), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 3, bias=False), nn.BatchNorm2d(), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(5),
    ).build((9, 9, 2), seed=1)  # fmt: skip


def depthwise_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(8, 3, activation="relu"), nn.DepthwiseConv2d(3, stride=2, padding=1, activation="relu"),
        nn.Conv2d(10, 1, activation="relu"), nn.DepthwiseConv2d(3, multiplier=2), nn.Flatten(), nn.Linear(5),
    ).build((10, 10, 2), seed=1)  # fmt: skip


def batches(shape: tuple[int, ...], count: int = 50, n: int = 16):
    rng = np.random.default_rng(3)
    w = rng.normal(size=(math.prod(shape), 5))
    for _ in range(count):
        x = rng.normal(size=(n, *shape)).astype(np.float32)
        yield x, (x.reshape(n, -1) @ w).argmax(1)


CASES = {
    "sgd": (small_net, lambda: optim.SGD(0.1), {}),
    "momentum": (small_net, lambda: optim.SGD(0.05, momentum=0.9, weight_decay=1e-2), {}),
    "nesterov": (small_net, lambda: optim.SGD(0.05, momentum=0.9, nesterov=True), {}),
    "decoupled": (small_net, lambda: optim.SGD(0.05, momentum=0.9, weight_decay=1e-1, decoupled=True), {}),
    "adam": (small_net, lambda: optim.Adam(1e-2, weight_decay=1e-2), {}),
    "adamw": (small_net, lambda: optim.AdamW(1e-2, weight_decay=1e-1), {}),
    "one-cycle": (small_net, lambda: optim.SGD(optim.OneCycle(0.2, steps=50), momentum=0.9), {}),
    "cosine": (small_net, lambda: optim.AdamW(optim.WarmUp(optim.Cosine(1e-2, steps=50), steps=5)), {}),
    "clip-norm": (small_net, lambda: optim.SGD(0.1, momentum=0.9), {"clip_norm": 0.3}),
    "clip-value": (small_net, lambda: optim.SGD(0.1), {"clip_value": 0.01}),
    "groups": (small_net, lambda: optim.SGD(0.05, weight_decay=1e-1, groups=[optim.Group("*.bias", weight_decay=0.0, lr=0.2)]), {}),
    "adam-groups": (small_net, lambda: optim.AdamW(1e-2, groups=[optim.Group("1.*", lr=1e-3), optim.Group("*.bias", beta1=0.5)]), {}),
    "batch-norm": (batch_norm_net, lambda: optim.SGD(0.05, momentum=0.9), {}),
    "depthwise": (depthwise_net, lambda: optim.SGD(0.01, momentum=0.9), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_fifty_steps_follow_the_numpy_references(case: str) -> None:
    make, optimizer, how = CASES[case]
    net = make()
    start = net.state_dict()
    reference = ReferenceTrainer(net, "cross_entropy", optimizer(), **how)
    trainer = wl.Trainer(net, optimizer=optimizer(), **how)
    for x, y in batches(net.engine.sample_types[0].shape[1:]):
        expected = reference.step(x, y)
        loss = trainer.step(x, y)
        assert abs(loss - expected) <= 1e-3 * max(1.0, abs(expected))
    assert_follows(net.state_dict(), reference.values, start)


TORCH = {
    "momentum": lambda torch, p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda torch, p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
    "adam": lambda torch, p: torch.optim.Adam(p, 1e-2, weight_decay=1e-2),
    "adamw": lambda torch, p: torch.optim.AdamW(p, 1e-2, weight_decay=1e-1),
    "one-cycle": lambda torch, p: torch.optim.SGD(p, 0.2, momentum=0.9),
    "clip-norm": lambda torch, p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "batch-norm": lambda torch, p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "depthwise": lambda torch, p: torch.optim.SGD(p, 0.01, momentum=0.9),
}


@pytest.mark.parametrize("case", TORCH)
def test_fifty_steps_follow_torch(case: str) -> None:
    torch = pytest.importorskip("torch")
    make, optimizer, how = CASES[case]
    net = make()
    start = net.state_dict()
    trainer = wl.Trainer(net, optimizer=optimizer(), **how)
    twin, mapping = torch_twin(torch, net)
    theirs = TORCH[case](torch, twin.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.2, total_steps=50, cycle_momentum=False) if case == "one-cycle" else None
    twin.train()
    for x, y in batches(net.engine.sample_types[0].shape[1:]):
        loss = trainer.step(x, y)
        theirs.zero_grad()
        xt = torch.from_numpy(x if x.ndim == 2 else np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        expected = torch.nn.functional.cross_entropy(twin(xt), torch.from_numpy(y))
        expected.backward()
        if "clip_norm" in how:
            torch.nn.utils.clip_grad_norm_(twin.parameters(), how["clip_norm"])
        theirs.step()
        if schedule is not None:
            schedule.step()
        assert abs(loss - float(expected.detach())) <= 1e-3 * max(1.0, abs(float(expected.detach())))
    expected_values = {name: convert(value.detach().numpy()) for name, (value, convert) in mapping().items()}
    assert_follows(net.state_dict(), expected_values, start)


def torch_twin(torch, net):
    """The same net in torch with the same weights, and how its tensors read in our layout."""
    layers, pairs = [], []

    def permute(axes):
        inverse = np.argsort(axes)
        return lambda a: torch.from_numpy(np.ascontiguousarray(a.transpose(axes))), lambda a: a.transpose(inverse)

    flat_from: tuple[int, ...] | None = None
    for name, layer in net.children().items():
        kind = type(layer).__name__
        if kind in ("Conv2d", "DepthwiseConv2d"):
            kh, kw, per_group, out = layer.weight.shape
            groups = out // layer.multiplier if kind == "DepthwiseConv2d" else 1
            made = torch.nn.Conv2d(per_group * groups, out, (kh, kw), layer.stride, layer.padding, groups=groups, bias=layer.has_bias)
            pairs.append((f"{name}.weight", made.weight, *permute((3, 2, 0, 1))))
        elif kind == "Linear":
            made = torch.nn.Linear(*layer.weight.shape)
            shape = layer.weight.shape
            if flat_from is None:
                pairs.append((f"{name}.weight", made.weight, *permute((1, 0))))
            else:
                h, w, c = flat_from

                def into(a, h=h, w=w, c=c):
                    return torch.from_numpy(np.ascontiguousarray(a.reshape(h, w, c, -1).transpose(3, 2, 0, 1).reshape(a.shape[1], -1)))

                def back(a, h=h, w=w, c=c, shape=shape):
                    return a.reshape(-1, c, h, w).transpose(2, 3, 1, 0).reshape(shape)

                pairs.append((f"{name}.weight", made.weight, into, back))
                flat_from = None
        elif kind == "BatchNorm2d":
            made = torch.nn.BatchNorm2d(layer.weight.size)
            pairs += [(f"{name}.{ours}", getattr(made, ours), *permute((0,))) for ours in ("weight", "running_mean", "running_var")]
        elif kind == "MaxPool2d":
            made = torch.nn.MaxPool2d(layer.kernel_size, layer.stride)
        elif kind == "GlobalAvgPool2d":
            made = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        elif kind == "Flatten":
            made = torch.nn.Flatten()
            x = np.zeros((1, *net.engine.sample_types[0].shape[1:]), np.float32)
            flat_from = net.run(x, fetch=str(int(name) - 1))[str(int(name) - 1)].shape[1:]
        else:
            made = torch.nn.ReLU()
        if getattr(made, "bias", None) is not None:
            pairs.append((f"{name}.bias", made.bias, *permute((0,))))
        layers.append(made)
        if getattr(layer, "activation", None):
            layers.append({"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}[layer.activation]())
    values = net.state_dict()
    with torch.no_grad():
        for name, tensor, into, _ in pairs:
            tensor.copy_(into(values[name]))
    return torch.nn.Sequential(*layers), lambda: {name: (tensor, back) for name, tensor, _, back in pairs}


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulated_gradients_equal_those_of_the_whole_batch(accumulate: int) -> None:
    whole, parts = small_net(), small_net()
    a = wl.Trainer(whole, optimizer=optim.SGD(0.1, momentum=0.9))
    b = wl.Trainer(parts, optimizer=optim.SGD(0.1, momentum=0.9), accumulate=accumulate)
    for x, y in batches((7,), 10):
        assert abs(a.step(x, y) - b.step(x, y)) < 1e-5
    for name, value in whole.state_dict().items():
        np.testing.assert_allclose(parts.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_s70_gradient_descent_falls_below_two_over_l() -> None:
    net = nn.Linear(1, bias=False).build((1,), seed=0)
    x = np.array([[1.0], [2.0]])
    curvature = 2 * float((x**2).mean())
    for factor, falls in ((0.9, True), (1.1, False)):
        net.weight.assign([[3.0]])
        trainer = wl.Trainer(net, "mse", optim.SGD(factor * 2 / curvature))
        losses = [trainer.step(x, np.zeros((2, 1))) for _ in range(6)]
        assert all(b < a for a, b in itertools.pairwise(losses)) == falls


def test_schedules() -> None:
    assert optim.Constant(0.3)(Progress(9)) == 0.3
    step = optim.Step(1.0, factor=0.1, epochs=2)
    assert [round(step(Progress(0, e)), 6) for e in (0, 1.9, 2, 4)] == [1.0, 1.0, 0.1, 0.01]
    cosine = optim.Cosine(1.0, end=0.1, steps=10)
    assert cosine(Progress(0)) == 1.0
    assert abs(cosine(Progress(10)) - 0.1) < 1e-12
    assert cosine(Progress(50)) == cosine(Progress(10))
    warm = optim.WarmUp(0.4, steps=4)
    np.testing.assert_allclose([warm(Progress(i)) for i in range(6)], [0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    cycle = optim.OneCycle(1.0, steps=100)
    rates = [cycle(Progress(i)) for i in range(100)]
    assert abs(rates[0] - 0.04) < 1e-9
    assert abs(max(rates) - 1.0) < 1e-3
    assert abs(rates[-1] - 0.04 / 1e4) < 1e-9


def test_one_cycle_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.7, total_steps=40, cycle_momentum=False)
    ours = optim.OneCycle(0.7, steps=40)
    for i in range(40):
        assert abs(theirs.param_groups[0]["lr"] - ours(Progress(i))) < 1e-9
        theirs.step()
        if i < 39:
            schedule.step()


def test_a_changing_rate_never_compiles_again() -> None:
    net = small_net()
    trainer = wl.Trainer(net, optimizer=optim.SGD(optim.Cosine(0.1, steps=20)))
    for x, y in batches((7,), 20):
        trainer.step(x, y)
    assert net.engine.compilations == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.SGD(-1.0), "learning rate"),
        (lambda: optim.SGD(0.1, momentum=1.0), "momentum"),
        (lambda: optim.SGD(0.1, nesterov=True), "nesterov"),
        (lambda: optim.Adam(1e-3, beta1=1.0), "beta1"),
        (lambda: optim.SGD(0.1, groups=[optim.Group("*", momentun=0.9)]), "momentun"),
        (lambda: optim.Cosine(0.1), "steps= or as epochs="),
        (lambda: wl.Trainer(nn.Linear(1), optimizer="sgd"), "optim.SGD"),
    ],
)
def test_settings_that_make_no_sense(make, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_frozen_parameters_have_no_gradient_and_no_optimizer_memory() -> None:
    net = small_net()
    net[0].freeze()
    before = net[0].weight.value.copy()
    trainer = wl.Trainer(net, optimizer=optim.Adam(1e-2))
    for x, y in batches((7,), 3):
        trainer.step(x, y)
    assert np.array_equal(net[0].weight.value, before)
    assert net[0].weight.grad is None
    assert net.engine.store is not None
    assert net.engine.store.grad_buffer.nbytes == 64 * math.ceil(12 * 5 * 4 / 64) + 64
    assert sorted(trainer.memory.values()) == ["moment0.1.bias", "moment0.1.weight", "moment1.1.bias", "moment1.1.weight"]
    net[0].freeze(False)  # the moments of what stayed are carried over
    kept = trainer.memory.values()["moment0.1.weight"]
    x, y = next(batches((7,), 1))
    trainer.step(x, y)
    assert not np.array_equal(net[0].weight.value, before)
    assert not np.array_equal(trainer.memory.values()["moment0.1.weight"], kept)
