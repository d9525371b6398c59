"""Gradients as functions: of a loss, of a layer by hand, of any tensor."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wiesel import losses
from wiesel.graph.ir import NUMPY_DTYPES, Graph, Value
from wiesel.nn.engine import Engine, Runner, signature
from wiesel.nn.tracing import input_names
from wiesel.objective import Objective

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from wiesel.batches import Samples
    from wiesel.nn.module import Module
    from wiesel.passes.autodiff import Rule

_tokens = itertools.count()

Grads = dict[str, "NDArray[np.float32]"]


def value_and_grad(
    net: Module, loss: losses.Loss = "cross_entropy", *, training: bool = True, seed: int = 0
) -> Callable[..., tuple[float, Grads]]:
    """A function (x, targets, sample_weight=None, step=0) -> (loss, gradients of the trainable parameters by name).

    With ``training`` it computes what a training step computes: batch statistics, running statistics updated, dropout keyed by
    (seed, step); without, what inference computes. ``Trainer.apply`` takes the gradients.

    >>> import numpy as np
    >>> import wiesel as wl
    >>> from wiesel import nn
    >>> value, grads = wl.value_and_grad(nn.Linear(1, bias=False).build((2,)), "mse")(np.ones((4, 2)), np.zeros((4, 1)))
    >>> grads["weight"].shape
    (2, 1)
    """
    objective = Objective(net, loss, seed=seed)

    def compute(x: Any, targets: Any, sample_weight: ArrayLike | None = None, *, step: int = 0) -> tuple[float, Grads]:
        engine = net.engine
        with engine.lock:
            samples = objective.samples(x, targets, sample_weight)
            key = ("grad", *objective.key(samples), len(samples), training)
            runner = engine.runner(key, lambda: _compile_value_and_grad(objective, samples, training))
            scalars = np.zeros(72, np.int64)
            scalars[0], scalars[1] = seed, step
            found = runner.run(("forward", "grad"), objective.arrays(runner, samples), len(samples), scalars)
            runner.store.weight_version += int(training and bool(runner.store.states))
            prefix = engine.prefix + "." if engine.prefix else ""
            parameters = net.parameters().values()
            grads = {p.name.removeprefix(prefix): np.array(p.grad) for p in parameters if p.trainable}
            return float(found["loss"]), grads

    return compute


def _compile_value_and_grad(objective: Objective, samples: Samples, training: bool) -> Runner:
    from wiesel.passes.autodiff import differentiate

    engine = objective.net.engine
    graph, outputs, notes = objective.trace(samples, training=training)
    assert engine.store is not None
    differentiate(graph, [name for name in engine.store.layout_for({}).trainable if name in graph.params])
    runner = engine.assemble(graph, n=len(samples), training=True, fetches=["loss"], outputs=outputs)
    runner.extra.update(notes)
    return runner


def vjp(net: Module, *inputs: ArrayLike, training: bool = False) -> tuple[Any, Callable[..., tuple[Any, Grads]]]:
    """Forward and, by hand, back: ``y, backward = vjp(layer, x)``, then ``dx, grads = backward(dy)``.

    ``y`` is what the layer or net gives for ``inputs``; ``backward`` takes gradients in the structure of ``y`` and returns those of the
    inputs (one array, or a tuple for several) and of the trainable parameters by name.

    >>> import numpy as np
    >>> import wiesel as wl
    >>> from wiesel import nn
    >>> y, backward = wl.vjp(nn.ReLU(), np.array([[-1.0, 2.0]]))
    >>> backward(np.ones((1, 2)))[0]
    array([[0., 1.]], dtype=float32)
    """
    engine = net.engine
    with engine.lock:
        arrays, n = engine.check_inputs(tuple(np.array(item) for item in inputs))  # kept for backward
        key = ("vjp", signature(arrays), n, training)
        runner = engine.runner(key, lambda: _compile_vjp(engine, arrays, n, training))
        outputs = runner.outputs
        assert outputs is not None
        found = runner.run(("forward",), _bind(engine, runner, arrays, {}, n), n)
        y = outputs.rebuild({name: found[name] for name in outputs.leaves})

    def backward(dy: Any) -> tuple[Any, Grads]:
        given = _match(outputs.described(), dy)
        with engine.lock:
            seeds = {}
            for name, tensor in outputs.leaves.items():
                array = np.ascontiguousarray(given[name], np.float32)
                if array.shape != tensor.type.concrete(n):
                    raise ValueError(f"backward: the gradient of {name} has shape {array.shape}, expected {tensor.type.concrete(n)}")
                seeds[f"d{name}"] = array
            result = runner.run(("forward", "grad"), _bind(engine, runner, arrays, seeds, n), n)
            named = zip(input_names(len(arrays)), arrays, strict=True)
            dx = tuple(result.get(f"d{name}", np.zeros(array.shape, np.float32)) for name, array in named)
            prefix = engine.prefix + "." if engine.prefix else ""
            grads = {p.name.removeprefix(prefix): np.array(p.grad) for p in net.parameters().values() if p.trainable}
            return dx[0] if len(dx) == 1 else dx, grads

    return y, backward


def _compile_vjp(engine: Engine, arrays: Sequence[NDArray[Any]], n: int, training: bool) -> Runner:
    from wiesel.passes.autodiff import gradients, name_gradient

    graph, outputs = engine.trace_arrays(arrays, training=training, update_states=False)
    seeds: dict[Value, Value | None] = {}
    for name in outputs.leaves:
        seed = Value(graph.outputs[name].type, "input", f"d{name}")
        graph.inputs[seed.name] = seed
        seeds[graph.outputs[name]] = seed
    assert engine.store is not None
    trained = [name for name in engine.store.layout_for({}).trainable if name in graph.params]
    wanted = [value for name, value in graph.inputs.items() if name.startswith("input") and value.type.dtype == "f32"]
    found = gradients(graph, seeds, [*wanted, *(graph.params[name] for name in trained)])
    for name in trained:
        if graph.params[name] in found:
            graph.grads[name] = found[graph.params[name]]
            name_gradient(graph.grads[name], name)
    for value in wanted:
        if value in found:
            graph.outputs[f"d{value.name}"] = found[value]
    return engine.assemble(graph, n=n, training=True, outputs=outputs)


def _bind(engine: Engine, runner: Runner, arrays: Sequence[NDArray[Any]], seeds: Mapping[str, NDArray[Any]], n: int) -> list[NDArray[Any]]:
    found: dict[str, NDArray[Any]] = dict(zip(input_names(len(arrays)), engine.convert_all(runner, arrays), strict=True))
    result = []
    for slot in runner.compiled.inputs:
        array = found.get(slot.name, seeds.get(slot.name))
        result.append(np.zeros(slot.type.concrete(n), NUMPY_DTYPES[slot.type.dtype]) if array is None else array)
    return result


def _match(structure: Any, given: Any) -> dict[str, Any]:
    """Arrays by leaf name, for gradients given in the structure of the outputs."""
    if isinstance(structure, str):
        return {structure: given}
    found: dict[str, Any] = {}
    items = structure.items() if isinstance(structure, dict) else enumerate(structure)
    for key, part in items:
        try:
            found |= _match(part, given[key])
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"backward: the gradients must have the structure of the outputs; {key!r} is missing") from None
    return found


_INDEXED = re.compile(r"(?P<name>[^\[\]]+)(?:\[(?P<index>-?\d+)\])?")


def grad(
    net: Module, *, of: str = "output", wrt: str | Sequence[str] = "input", rules: Mapping[str, Rule] | None = None
) -> Callable[..., Any]:
    """A function of the inputs that gives gradients of one tensor with respect to others, in inference mode.

    Parameters
    ----------
    of : name of a tensor (a module path, or "output", also called "logits"), with an index "[i]" of its last axis or without: the sum of
        its elements is differentiated, sample by sample.
    wrt : names: "input", module paths such as "features.3", parameter names. A single name gives an array, a list a dict by name.
    rules : gradient rules to use instead of the ops' own, by path or op name, such as ``{"relu": guided}`` with
        ``guided(x, y, dy) -> dx`` on symbolic tensors (see ``wiesel.passes.autodiff``).

    >>> import numpy as np
    >>> import wiesel as wl
    >>> from wiesel import nn
    >>> wl.grad(nn.ReLU(), of="output[1]", wrt="input")(np.array([[3.0, 2.0]]))
    array([[0., 1.]], dtype=float32)
    """
    match = _INDEXED.fullmatch(of)
    if match is None:
        raise ValueError(f"grad: of={of!r} is not a tensor name, or a name with an index such as 'output[3]'")
    names = [wrt] if isinstance(wrt, str) else list(wrt)
    index = None if match["index"] is None else int(match["index"])
    token = next(_tokens)

    def compute(*inputs: ArrayLike) -> Any:
        engine = net.engine
        with engine.lock:
            arrays, n = engine.check_inputs(inputs)
            key = ("tensor-grad", token, signature(arrays), n)
            runner = engine.runner(key, lambda: _compile_grad(engine, arrays, n, match["name"], index, names, rules))
            found = runner.run(("forward", "grad"), _bind(engine, runner, arrays, {}, n), n)
            results = {name: found[f"d{name}"] for name in names}
            return results[names[0]] if isinstance(wrt, str) else results

    return compute


def _compile_grad(
    engine: Engine,
    arrays: Sequence[NDArray[Any]],
    n: int,
    of: str,
    index: int | None,
    names: Sequence[str],
    rules: Mapping[str, Rule] | None,
) -> Runner:
    from wiesel.graph.ir import Builder
    from wiesel.passes.autodiff import gradients

    graph, outputs = engine.trace_arrays(arrays)
    target = _find(graph, "output" if of == "logits" and "logits" not in graph.names else engine.full_name(of))
    b = Builder(graph, entry="grad")
    value = b.op("fill", *([target] if target.type.has_batch else []), shape=target.shape, value=1.0)
    if index is not None:
        if target.type.rank < 1 or not -target.shape[-1] <= index < target.shape[-1]:
            raise ValueError(f"grad: {of} has type {target.type}; index {index} is outside its last axis")
        chosen = np.zeros((1,) * (target.type.rank - 1) + target.shape[-1:], np.float32)
        chosen[..., index] = 1.0
        value = b.op("binary", value, b.const(chosen), kind="mul")
    wanted = {name: _find(graph, engine.full_name(name)) for name in names}
    found = gradients(graph, {target: value}, list(wanted.values()), rules=rules)
    graph.outputs = {}
    for name, source in wanted.items():
        if source not in found:
            raise ValueError(f"grad: {of} does not depend on {name}")
        graph.outputs[f"d{name}"] = found[source]
    return engine.assemble(graph, n=n, training=True, outputs=outputs)


def _find(graph: Graph, name: str) -> Value:
    try:
        return graph.find(name)
    except (KeyError, ValueError):
        raise ValueError(f"grad: there is no tensor {name!r}; known: {', '.join([*graph.outputs, *graph.names])}") from None
