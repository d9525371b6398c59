"""A net together with its loss: checked samples in, graphs with a scalar "loss" out, figures added up over batches."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wiesel import losses
from wiesel.batches import Samples, leaves, map_tree
from wiesel.graph.ir import BATCH, Graph, Type
from wiesel.nn.engine import Runner, planned_batch, signature
from wiesel.nn.tracing import ModuleTrace, Outputs, input_names

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from wiesel.nn.module import Module

_tokens = itertools.count()
"""Names for objectives in the keys of programs; unlike addresses they are never used again."""

LOSS_SCALE = "loss_scale"
"""Name of the input that scales the gradient of the loss, in programs that work on a part of a batch."""


class Objective:
    """The loss of a net, as a part of its graph."""

    def __init__(
        self, net: Module, loss: losses.Loss, weights: Mapping[Any, float] | Sequence[float] | None = None, *, seed: int = 0
    ) -> None:
        self.net = net
        self.loss = loss
        self.seed = seed
        self.token = next(_tokens)
        self._function = losses.weighted(loss, weights)

    def samples(self, x: Any, y: Any, sample_weight: ArrayLike | None = None) -> Samples:
        """Arrays of a batch or a data set, checked before anything is computed. A tuple ``x`` holds several inputs."""
        inputs, n = self.net.engine.check_inputs(x if isinstance(x, tuple) else (x,))
        targets = losses.target_arrays(self.loss, y)
        for name, array in leaves(targets, "targets"):
            if len(array) != n:
                raise ValueError(f"{name}: {len(array)} for {n} samples; they must be as many")
        weights = None
        if sample_weight is not None:
            weights = np.ascontiguousarray(sample_weight, np.float32)
            if weights.shape != (n,):
                raise ValueError(f"sample_weight has shape {weights.shape}, expected ({n},): one factor per sample")
            if not np.isfinite(weights).all() or (weights < 0).any():
                raise ValueError("sample_weight must be finite and at least 0")
        return Samples(tuple(inputs), targets, weights)

    def key(self, samples: Samples) -> tuple[Any, ...]:
        """What of the samples a program depends on."""
        targets = tuple((name, array.shape[1:], array.dtype.char) for name, array in leaves(samples.targets, "target"))
        return (self.token, signature(samples.inputs), targets, samples.weights is not None)

    def trace(self, samples: Samples, *, training: bool) -> tuple[Graph, Outputs, dict[str, Any]]:
        """The graph of net and loss, whose output "loss" is the loss. With it what ``arrays`` and ``Figures`` need to know of it."""
        limits: dict[str, int] = {}

        def add_loss(trace: ModuleTrace, outputs: Any) -> None:
            tensors = [trace.input(name, losses.target_type(array)) for name, array in leaves(samples.targets, "target")]
            following = iter(tensors)
            targets = map_tree(lambda _: next(following), samples.targets)
            weight = trace.input("sample_weight", Type((BATCH,))) if samples.weights is not None else None
            loss = self._function(outputs, targets, weight)
            if getattr(loss, "shape", None) != ():
                raise ValueError(f"the loss must be a scalar tensor, got {loss!r}: reduce it with wl.ops.mean or wl.ops.sum")
            trace.output("loss", loss)
            limits.update(trace.label_limits)

        graph, outputs = self.net.engine.trace_arrays(samples.inputs, training=training, seed=self.seed, then=add_loss)
        return graph, outputs, {"limits": limits, "watched": _watched(outputs, samples.targets)}

    def check_labels(self, samples: Samples) -> None:
        """Refuses labels outside the net's outputs, in all of ``samples`` at once; builds the net where it is not built."""
        _, _, notes = self.trace(samples, training=False)
        _check_labels(samples, notes["limits"])

    def evaluation(self, samples: Samples) -> Runner:
        """The inference program with the loss and the outputs whose accuracy is counted."""
        graph, outputs, notes = self.trace(samples, training=False)
        runner = self.net.engine.assemble(graph, n=planned_batch(graph), fetches=["loss", *notes["watched"]], outputs=outputs)
        runner.extra.update(notes, buffers=runner.instance.new_outputs(runner.n))
        return runner

    def arrays(self, runner: Runner, samples: Samples, scale: float = 1.0) -> list[NDArray[Any]]:
        """The arrays of the program's input slots. Labels are checked here, before the step."""
        found = dict(zip(input_names(len(samples.inputs)), self.net.engine.convert_all(runner, samples.inputs), strict=True))
        _check_labels(samples, runner.extra["limits"])
        for name, array in leaves(samples.targets, "target"):
            found[name] = np.ascontiguousarray(array)
        if samples.weights is not None:
            found["sample_weight"] = np.ascontiguousarray(samples.weights)
        found[LOSS_SCALE] = np.array(scale, np.float32)
        return [found[slot.name] for slot in runner.compiled.inputs]

    @staticmethod
    def buffers(runner: Runner, n: int) -> list[NDArray[Any]]:
        """The runner's own output arrays, cut to n samples; good until its next run."""
        found = zip(runner.extra["buffers"], runner.compiled.outputs, strict=True)
        return [buffer[:n] if slot.type.has_batch else buffer for buffer, slot in found]


class Figures:
    """Loss and hits, added up over batches."""

    def __init__(self) -> None:
        self.samples = 0
        self.loss = 0.0
        self.hits: dict[str, int] = {}

    def add(self, runner: Runner, outputs: Sequence[NDArray[Any]], samples: Samples) -> None:
        """``outputs`` are the loss and the watched outputs of ``samples``."""
        n = len(samples)
        self.samples += n
        self.loss += float(outputs[0]) * n
        targets = dict(leaves(samples.targets, "target"))
        for array, (name, target) in zip(outputs[1:], runner.extra["watched"].items(), strict=True):
            figure = "accuracy" + name.removeprefix("output").replace(".", "_")
            truth = targets[target]
            truth = truth if truth.ndim == 1 else truth.argmax(axis=1)
            self.hits[figure] = self.hits.get(figure, 0) + int((array.argmax(axis=1) == truth).sum())

    def merge(self, other: Figures) -> None:
        self.samples += other.samples
        self.loss += other.loss
        for figure, hits in other.hits.items():
            self.hits[figure] = self.hits.get(figure, 0) + hits

    def means(self) -> dict[str, float]:
        """Loss and accuracies per sample."""
        if not self.samples:
            return {}
        return {"loss": self.loss / self.samples, **{figure: hits / self.samples for figure, hits in self.hits.items()}}


def _check_labels(samples: Samples, limits: Mapping[str, int]) -> None:
    for name, array in leaves(samples.targets, "target"):
        if name in limits:
            losses.check_labels(array, limits[name], name.replace("target", "targets", 1))


def _watched(outputs: Outputs, targets: Any) -> dict[str, str]:
    """Outputs (n, classes) that have class numbers or probabilities as targets, whose accuracy is counted: output -> target."""
    found = {}
    known = dict(leaves(targets, "target"))
    for name, tensor in outputs.leaves.items():
        target = "target" + name.removeprefix("output")
        array = known.get(target)
        if array is None or len(tensor.shape) != 2 or tensor.shape[1] < 2:
            continue
        labels = array.dtype == np.int32 and array.ndim == 1
        soft = array.dtype == np.float32 and array.shape[1:] == tensor.shape[1:] and bool(np.allclose(array.sum(axis=1), 1.0, atol=1e-3))
        if labels or soft:
            found[name] = target
    return found
