"""Training in plain NumPy: the references of the ops on the traced graph, in float64, and the optimizers as formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from wiesel.graph.reference import run_reference
from wiesel.objective import Objective
from wiesel.optim import SGD, Adam, Optimizer, Progress
from wiesel.passes.autodiff import differentiate


class ReferenceTrainer:
    """Follows ``Trainer.step`` from the net's present values."""

    def __init__(
        self, net: Any, loss: Any, optimizer: Optimizer, *, clip_norm: float | None = None, clip_value: float | None = None
    ) -> None:
        self.net, self.optimizer, self.clip_norm, self.clip_value = net, optimizer, clip_norm, clip_value
        self.objective = Objective(net, loss)
        self.values = {name: v.astype(np.float64) for name, v in net.state_dict().items()}
        self.moments = [{name: np.zeros(p.shape) for name, p in net.parameters().items()} for _ in range(optimizer.moments)]
        self.step_count = 0

    def step(self, x: Any, y: Any, sample_weight: Any = None) -> float:
        samples = self.objective.samples(x, y, sample_weight)
        graph, _, _ = self.objective.trace(samples, training=True)
        trained = [name for name, p in self.net.parameters().items() if p.trainable and name in graph.params]
        differentiate(graph, trained)
        arrays = dict(self.values)
        arrays |= {name: a.astype(np.float64) for name, a in zip(("input",), samples.inputs, strict=False)}
        arrays |= {f"input.{i}": a.astype(np.float64) for i, a in enumerate(samples.inputs)}
        target = samples.targets
        arrays |= {"target": target} if isinstance(target, np.ndarray) else {f"target.{k}": v for k, v in _items(target)}
        if samples.weights is not None:
            arrays["sample_weight"] = samples.weights.astype(np.float64)
        found = run_reference(graph, {k: v for k, v in arrays.items() if k in graph.inputs or k in self.values})
        grads = {name: found["grad:" + name].astype(np.float64) for name in trained if "grad:" + name in found}
        if self.clip_norm is not None:
            norm = math.sqrt(sum(float((g * g).sum()) for g in grads.values()))
            grads = {name: g * min(1.0, self.clip_norm / (norm + 1e-6)) for name, g in grads.items()}
        if self.clip_value is not None:
            grads = {name: np.clip(g, -self.clip_value, self.clip_value) for name, g in grads.items()}
        for name, g in grads.items():
            self._update(name, g)
        for name in self.values:
            if "state:" + name in found:
                self.values[name] = found["state:" + name]
        self.step_count += 1
        return float(found["loss"])

    def _update(self, name: str, g: Any) -> None:
        group = self.optimizer.group_of(name)
        s, lr = self.optimizer.settings[group], self.optimizer.schedules[group](Progress(self.step_count, 0.0))
        w = self.values[name]
        t = self.step_count + 1
        if isinstance(self.optimizer, SGD):
            if s["decoupled"]:
                w = w * (1 - lr * s["weight_decay"])
            else:
                g = g + s["weight_decay"] * w
            if s["momentum"]:
                v = self.moments[0][name] = s["momentum"] * self.moments[0][name] + (1 - s["dampening"]) * g
                g = g + s["momentum"] * v if s["nesterov"] else v
            self.values[name] = w - lr * g
            return
        assert isinstance(self.optimizer, Adam)
        if self.optimizer.decoupled:
            w = w * (1 - lr * s["weight_decay"])
        else:
            g = g + s["weight_decay"] * w
        m = self.moments[0][name] = s["beta1"] * self.moments[0][name] + (1 - s["beta1"]) * g
        v = self.moments[1][name] = s["beta2"] * self.moments[1][name] + (1 - s["beta2"]) * g * g
        self.values[name] = w - lr * (m / (1 - s["beta1"] ** t)) / (np.sqrt(v / (1 - s["beta2"] ** t)) + s["eps"])


def _items(tree: Any) -> Any:
    return tree.items() if isinstance(tree, dict) else enumerate(tree)


Values = dict[str, np.ndarray]


def assert_follows(found: Values, expected: Values, start: Values, tolerance: float = 1e-3) -> None:
    """Weights agree to ``tolerance`` of their own size or of the way they went, whichever is larger."""
    for name, value in expected.items():
        scale = max(float(np.abs(value).max()), float(np.abs(value - start[name]).max()), 1e-6)
        error = float(np.abs(found[name] - value).max()) / scale
        assert error <= tolerance, f"{name}: off by {error:.2e} of {scale:.3g}"
