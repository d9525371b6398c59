"""Small graphs for the tests of the graph, the passes and the programs; and the arrays to run them on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from wiesel import ops
from wiesel.graph.build import Trace
from wiesel.graph.ir import BATCH, NUMPY_DTYPES, Graph, Type, Value
from wiesel.graph.tensor import Tensor
from wiesel.passes.autodiff import differentiate


def trace(build: Callable[[Trace], Tensor | Mapping[str, Tensor]], *, training: bool = False) -> Graph:
    """The graph of ``build``, whose result becomes the output ``y``, or outputs by name."""
    with Trace(training=training) as t:
        result = build(t)
        for name, tensor in (result if isinstance(result, Mapping) else {"y": result}).items():
            t.output(name, tensor)
    return t.graph


def arrays_for(graph: Graph, n: int = 3, seed: int = 0, dtype: Any = np.float64) -> dict[str, Any]:
    """Random inputs, parameters and states; states named ``…var`` are positive."""
    rng = np.random.default_rng(seed)

    def make(name: str, value: Value) -> Any:
        shape = value.type.concrete(n)
        if value.type.dtype == "f32":
            found = rng.standard_normal(shape).astype(dtype)
            return np.abs(found) + 0.5 if name.endswith("var") else found
        return rng.integers(0, 3, shape).astype(NUMPY_DTYPES[value.type.dtype])

    tables = (graph.inputs, graph.params, graph.states)
    return {name: make(name, value) for table in tables for name, value in table.items()}


def conv_block(
    t: Trace, x: Tensor, path: str, channels: int, *, stride: int = 1, norm: bool = True, residual: Tensor | None = None
) -> Tensor:
    """Convolution, batch normalisation (of the batch in training, with running statistics), residual, ReLU."""
    with t.scope(path):
        w = t.param("conv.weight", Type((3, 3, x.shape[3], channels)))
        x = ops.conv2d(x, w, None if norm else t.param("conv.bias", Type((channels,))), padding=1, stride=stride)
        if norm:
            gamma, beta = t.param("bn.weight", Type((channels,))), t.param("bn.bias", Type((channels,)))
            mean, var = t.state("bn.mean", Type((channels,))), t.state("bn.var", Type((channels,)))
            if t.training:
                batch_mean, batch_var = ops.batch_stats(x)
                new_mean, new_var = ops.running_stats(batch_mean, batch_var, x, mean, var)
                t.update_state(mean, new_mean)
                t.update_state(var, new_var)
                x = ops.batch_norm(x, batch_mean, batch_var, gamma, beta, frozen=False)
            else:
                x = ops.batch_norm(x, mean, var, gamma, beta)
        if residual is not None:
            x = x + residual
        return t.name(ops.relu(x))


def residual_net(training: bool, extent: int = 8, channels: int = 4) -> Graph:
    """Stem, a residual block, one with a projected shortcut, global pooling, a dense layer; output ``y``, in training ``loss`` too."""

    def build(t: Trace) -> Mapping[str, Tensor]:
        x = t.input("x", Type((BATCH, extent, extent, 3)))
        x = conv_block(t, x, "stem", channels)
        x = conv_block(t, conv_block(t, x, "a.0", channels), "a.1", channels, residual=x)
        inner = conv_block(t, x, "b.0", 2 * channels, stride=2)
        with t.scope("b.short"):
            short = ops.conv2d(x, t.param("weight", Type((1, 1, channels, 2 * channels))), stride=2)
        x = conv_block(t, inner, "b.1", 2 * channels, residual=short)
        with t.scope("head"):
            pooled = ops.reshape(ops.global_avg_pool2d(x), (BATCH, 2 * channels))
            y = t.name(ops.linear(pooled, t.param("weight", Type((2 * channels, 5))), t.param("bias", Type((5,)))))
        return {"y": y, "loss": ops.mean(ops.square(y))} if training else {"y": y}

    graph = trace(build, training=training)
    if training:
        differentiate(graph, list(graph.params))
    return graph


UNARY = ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "elu", "silu", "gelu", "square", "none")


@st.composite
def random_graphs(draw: st.DrawFn, *, gradients: bool = True) -> Graph:
    """A random feed-forward graph over pictures with every shape of reuse: several readers, residuals, fetches in the middle."""
    kinds = st.sampled_from(["conv", "depthwise", "unary", "add", "mul", "bn", "pool", "bias", "concat", "reshape", "transpose", "gate"])
    steps = draw(st.lists(st.tuples(kinds, st.integers(0, 99)), min_size=1, max_size=9))
    fetched = draw(st.lists(st.integers(0, 99), max_size=2))
    channels = draw(st.integers(1, 5))
    with Trace(training=True) as t:
        pool: list[Tensor] = [t.input("x", Type((BATCH, 5, 6, channels)))]
        for i, (what, pick) in enumerate(steps):
            a, b = pool[pick % len(pool)], pool[pick // 7 % len(pool)]
            with t.scope(f"step{i}"):
                pool.append(t.name(_random_step(t, what, pick, a, b, channels)))
        last = pool[-1]
        t.output("loss", ops.mean(last * last))
        for i, k in enumerate(fetched):
            t.output(f"fetch{i}", pool[k % len(pool)])
    if gradients:
        differentiate(t.graph, list(t.graph.params))
    return t.graph


def _random_step(t: Trace, what: str, pick: int, a: Tensor, b: Tensor, channels: int) -> Tensor:
    if what == "conv":
        w = t.param("weight", Type((3, 3, channels, channels)))
        found: Tensor = ops.conv2d(a, w, t.param("bias", Type((channels,))) if pick % 2 else None, padding=1)
    elif what == "unary":
        found = ops.activation(a, UNARY[pick % len(UNARY)])
    elif what == "bn":
        mean, var = ops.batch_stats(a)
        gamma = t.param("gamma", Type((channels,)))
        found = ops.batch_norm(a, mean, var, gamma, t.param("beta", Type((channels,))), frozen=False, eps=0.1)
    elif what == "pool":
        found = ops.max_pool2d(a, 3, stride=1, padding=1)
    elif what == "depthwise":
        found = ops.conv2d(a, t.param("weight", Type((3, 3, 1, channels))), padding=1, groups=channels)
    elif what == "concat":
        joined = ops.concat([a, ops.relu(b)])
        found = ops.slice(joined, [None, None, None, slice(pick % (channels + 1), pick % (channels + 1) + channels)])
    elif what == "reshape":
        rows = ops.linear(ops.reshape(a, (BATCH, 30, channels)), t.param("weight", Type((channels, channels))))
        found = ops.reshape(rows, (BATCH, 5, 6, channels))
    elif what == "transpose":
        found = ops.transpose(ops.relu(ops.transpose(a, (0, 2, 1, 3))), (0, 2, 1, 3))
    elif what == "gate":  # squeeze and excitation
        found = a * ops.sigmoid(ops.mean(b, (1, 2), keepdims=True))
    elif what == "bias":
        found = a + t.param("bias", Type((channels,)))
    else:
        found = a + b if what == "add" else a * b
    return found


def run_native(
    graph: Graph, arrays: Mapping[str, Any], *, planned: int, n: int, fetches: list[str] | None = None, **options: Any
) -> dict[str, Any]:
    """What ``run_reference`` gives, from a compiled program planned for ``planned`` samples and run on ``n``."""
    from wiesel import _core
    from wiesel.program.compile import ENTRY_BITS, compile_graph

    compiled = compile_graph(graph, n=planned, fetches=fetches, **options)
    layout = compiled.layout
    buffers = [_core.Buffer(size) for size in (layout.param_bytes, layout.grad_bytes, layout.state_bytes)]
    for buffer, segments in ((buffers[0], layout.params), (buffers[2], layout.states)):
        for name, segment in segments.items():
            buffer.view(segment.offset, segment.type.shape, "f32", True)[...] = arrays[name]
    instance = compiled.instance(params=buffers[0], grads=buffers[1], state=buffers[2])
    inputs = [np.ascontiguousarray(arrays[slot.name], NUMPY_DTYPES[slot.type.dtype]) for slot in compiled.inputs]
    outputs = [np.full(slot.type.concrete(n), np.nan, NUMPY_DTYPES[slot.type.dtype]) for slot in compiled.outputs]
    instance.run(ENTRY_BITS["prepare"] | ENTRY_BITS["forward"] | ENTRY_BITS["grad"], inputs, outputs, n)
    assert instance.arena_high_water <= compiled.plan.memory
    found = {slot.name: array for slot, array in zip(compiled.outputs, outputs, strict=True)}
    for name in compiled.graph.grads:
        segment = layout.params[name]
        found["grad:" + name] = buffers[1].view(segment.grad_offset, segment.type.shape, "f32").copy()
    for name in compiled.graph.updates:
        segment = layout.states[name]
        found["state:" + name] = buffers[2].view(segment.offset, segment.type.shape, "f32").copy()
    return found
