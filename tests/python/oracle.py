"""What the op tests share: one function of ``wiesel.ops`` run by the NumPy references, differentiated, and run natively on every ISA.

A *function* here is any composition of ``wiesel.ops`` that takes tensors and returns a tensor or a tuple of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from wiesel.graph.build import Trace
from wiesel.graph.ir import BATCH, Builder, Graph, Type, Value
from wiesel.graph.reference import run_reference
from wiesel.passes.autodiff import gradients

EPS = float(np.finfo(np.float32).eps)

Function = Callable[..., Any]


@lru_cache(maxsize=1)
def isas() -> list[str]:
    """Instruction sets to test; none where the extension is not built."""
    try:
        from wiesel import _core
    except ImportError:
        return []
    return _core.isas()


def every_isa() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("isa", isas() or [pytest.param("", marks=pytest.mark.skip(reason="the extension is not built"))])


@dataclass
class Traced:
    """The graph of a function of arrays; with gradients, the outputs ``d0``, ``d1`` … for the seeds ``s0`` … of the outputs ``y0`` …"""

    graph: Graph
    inputs: dict[str, np.ndarray]
    outputs: int
    winograd: bool = False  # whether the last native program had a Winograd convolution

    def reference(self) -> dict[str, np.ndarray]:
        return run_reference(self.graph, self.inputs)

    def native(self, isa: str, threads: int = 1, n: int | None = None) -> dict[str, np.ndarray]:
        """Outputs of the compiled program on ``isa``; ``n`` plans for a larger batch than the one that runs."""
        from wiesel import _core
        from wiesel.program.compile import compile_graph

        batch = next((a.shape[0] for name, a in self.inputs.items() if self.graph.inputs[name].type.has_batch), 1)
        compiled = compile_graph(self.graph, n=n or batch, training=True)
        self.winograd = any(str(node.attrs.get("algorithm")).startswith("winograd") for node in compiled.graph.nodes)
        instance = _core.Instance(compiled.program, isa=isa, threads=threads)
        bound = [np.asarray(self.inputs[slot.name], dtype=_NATIVE[slot.type.dtype], order="C") for slot in compiled.inputs]
        results = [np.full(slot.type.concrete(batch), 7, _NATIVE[slot.type.dtype]) for slot in compiled.outputs]
        instance.run(1 | 2 | 4, bound, results, batch)
        return {slot.name: array for slot, array in zip(compiled.outputs, results, strict=True)}


_NATIVE = {"f32": np.float32, "u8": np.uint8, "i32": np.int32, "i8": np.int8}


def trace(fn: Function, *arrays: Any, gradient: bool = False, batch: Sequence[int] = (), seed: int = 0) -> Traced:
    """Traces ``fn`` on inputs like ``arrays``: floats become f32 in the graph (references keep float64), integers i32, uint8 u8.

    The operands numbered in ``batch`` have the free batch extent in front.
    """
    given = [np.asarray(a) for a in arrays]
    inputs: dict[str, np.ndarray] = {}
    with Trace() as t:
        tensors = []
        for i, a in enumerate(given):
            dtype = "u8" if a.dtype == np.uint8 else "i32" if a.dtype.kind in "iu" else "f32"
            inputs[f"x{i}"] = a.astype(np.float64) if dtype == "f32" else a
            tensors.append(t.input(f"x{i}", Type((BATCH, *a.shape[1:]) if i in batch else a.shape, dtype)))
        result = fn(*tensors)
        outputs = result if isinstance(result, tuple) else (result,)
        for i, y in enumerate(outputs):
            t.output(f"y{i}", y)
    traced = Traced(t.graph, inputs, len(outputs))
    if gradient:
        _append_gradients(traced, [x.value for x in tensors if x.dtype == "f32"], [y.value for y in outputs], seed)
    return traced


def _append_gradients(traced: Traced, wrt: Sequence[Value], outputs: Sequence[Value], seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)  # unlike the operands: gradients that cancel would say little
    values = run_reference(traced.graph, traced.inputs)
    seeds: dict[Value, Value | None] = {}
    for i, y in enumerate(outputs):
        if y.dtype != "f32":
            continue
        value = Value(y.type, "input", f"s{i}")
        traced.graph.inputs[value.name] = value
        shape = values[f"y{i}"].shape
        traced.inputs[value.name] = rng.integers(-2, 3, shape).astype(np.float64) if seed else rng.standard_normal(shape)
        seeds[y] = value
    found = gradients(traced.graph, seeds, wrt)
    b = Builder(traced.graph, entry="grad")
    for x in wrt:
        value = found.get(x)
        if value is None:
            value = b.op("unary", x, kind="affine")  # zeros
        traced.graph.outputs["d" + x.name[1:]] = value


def evaluate(fn: Function, *arrays: Any) -> Any:
    """``fn`` of arrays by the NumPy references, in float64."""
    traced = trace(fn, *arrays)
    found = traced.reference()
    results = tuple(found[f"y{i}"] for i in range(traced.outputs))
    return results[0] if len(results) == 1 else results


def check_gradient(
    fn: Function, *arrays: Any, batch: Sequence[int] = (), tolerance: float = 1e-6, step: float = 1e-5, seed: int = 1
) -> None:
    """The gradient rules of ``fn`` against central differences along a random direction of each float operand, in float64 (S-74)."""
    rng = np.random.default_rng(seed)
    traced = trace(fn, *arrays, gradient=True, batch=batch)
    values = traced.reference()
    seeds = {i: traced.inputs[f"s{i}"] for i in range(traced.outputs) if f"s{i}" in traced.inputs}

    def dot(values: dict[str, np.ndarray]) -> float:
        return sum(float(np.sum(values[f"y{i}"] * s)) for i, s in seeds.items())

    for name in [n for n in traced.graph.outputs if n.startswith("d")]:
        x = "x" + name[1:]
        original, gradient = traced.inputs[x], values[name]
        assert gradient.shape == original.shape
        direction = rng.standard_normal(original.shape)
        found = []
        for sign in (1, -1):
            traced.inputs[x] = original + sign * step * direction
            found.append(dot(traced.reference()))
        traced.inputs[x] = original
        expected = (found[0] - found[1]) / (2 * step)
        got = float(np.sum(gradient * direction))
        scale = max(abs(expected), float(np.sqrt(np.sum(gradient**2))), 1e-3)
        assert abs(got - expected) <= tolerance * scale, f"{x}: {got} from the rule, {expected} by differences"


def check_native(
    fn: Function,
    *arrays: Any,
    isa: str | Sequence[str],
    k: float = 1.0,
    exact: bool = False,
    batch: Sequence[int] = (0,),
    gradient: bool = True,
) -> None:
    """``fn`` and its gradients on ``isa`` (or several) against the references in float64.

    ``exact``: operands and seeds are small integers, whose results float32 holds exactly. Otherwise the error is at most
    ``8 * eps * k`` of the largest magnitude of each result, k growing with the number of terms that make one element. Winograd's
    transforms multiply by fractions and cancel, so with them the bound is 16 times as wide and never 0.
    """
    traced = trace(fn, *arrays, gradient=gradient, batch=batch, seed=1 if exact else 0)
    for name in traced.inputs:  # what float32 can hold, so that both sides see the same numbers
        if traced.inputs[name].dtype == np.float64:
            traced.inputs[name] = traced.inputs[name].astype(np.float32).astype(np.float64)
    expected = traced.reference()
    for level in [isa] if isinstance(isa, str) else isa:
        found = traced.native(level)
        for name, array in expected.items():
            if exact and not traced.winograd:
                np.testing.assert_array_equal(found[name], array, err_msg=f"{name} on {level}")
            else:
                finite = np.abs(array[np.isfinite(array)])
                bound = (128 if traced.winograd else 8) * EPS * k * max(float(finite.max(initial=0)), 1e-6)
                np.testing.assert_allclose(found[name], array, rtol=0, atol=bound, err_msg=f"{name} on {level}")


def integers(shape: Sequence[int], seed: int = 0, low: int = -3, high: int = 4) -> np.ndarray:
    """Small whole numbers as floats: sums and products of them are exact."""
    return np.random.default_rng(seed).integers(low, high, tuple(shape)).astype(np.float64)


def normal(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(tuple(shape))


def distinct(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Numbers without ties, far enough apart for finite differences: for maxima and kinks."""
    count = int(np.prod(shape))
    return (np.random.default_rng(seed).permutation(count).reshape(shape) - count / 2 + 0.25) / 8
