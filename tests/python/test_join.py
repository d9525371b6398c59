"""Concatenation in place: no copies where all that write and read the parts take them, the same bits, and what is copied still."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings

from graphs import conv_block, random_graphs, trace
from oracle import Traced, every_isa, isas
from wiesel import ops
from wiesel.graph.build import Trace
from wiesel.graph.ir import BATCH, Graph, Type
from wiesel.graph.tensor import Tensor
from wiesel.passes import join
from wiesel.passes.autodiff import differentiate
from wiesel.program.compile import compile_graph


def branches(t: Trace, x: Tensor, path: str, widths: Sequence[int], norm: bool) -> Tensor:
    """An inception block: 3x3 convolutions beside a pooling and its 1x1 convolution, joined."""
    found = [conv_block(t, x, f"{path}.{i}", width, norm=norm) for i, width in enumerate(widths)]
    w = t.param(f"{path}.pool.weight", Type((1, 1, x.shape[3], 16)))
    return ops.concat([*found, ops.relu(ops.conv2d(ops.max_pool2d(x, 3, stride=1, padding=1), w))])


def inception(norm: bool, *, training: bool = True) -> Graph:
    def build(t: Trace) -> dict[str, Tensor]:
        x = conv_block(t, t.input("x", Type((BATCH, 7, 6, 3))), "stem", 16, norm=norm)
        y = branches(t, branches(t, x, "a", (16, 32), norm), "b", (24, 16), norm)
        return {"loss": ops.mean(ops.square(y))}

    graph = trace(build, training=training)
    return differentiate(graph, list(graph.params)) if training else graph


def copies(graph: Graph, *, training: bool) -> int:
    return [step["opcode"] for step in compile_graph(graph, n=2, training=training).steps()].count("copy")


def fed(graph: Graph, n: int = 2) -> Traced:
    """``graph`` with random inputs, gradients as outputs, and parameters as inputs too."""
    graph = graph.copy()
    rng = np.random.default_rng(0)
    graph.outputs |= {f"d.{name}": value for name, value in graph.grads.items()}
    for table in (graph.params, graph.states):
        for name, value in list(table.items()):
            value.kind = "input"
            graph.inputs[name] = value
        table.clear()
    graph.grads, graph.updates = {}, {}
    inputs = {name: rng.standard_normal(value.type.concrete(n)).astype(np.float32) for name, value in graph.inputs.items()}
    return Traced(graph, {name: np.abs(a) if name.endswith("var") else a for name, a in inputs.items()}, len(graph.outputs))


def same_results(graph: Graph, isa: str, monkeypatch: pytest.MonkeyPatch, least: int, threads: int = 2, tolerance: float = 0) -> None:
    traced, found = fed(graph), []
    for channels in (10**9, least):
        monkeypatch.setattr(join, "LEAST_CHANNELS", channels)
        found.append(traced.native(isa, threads))
    for name, expected in found[0].items():
        np.testing.assert_allclose(found[1][name], expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=name)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_inception_blocks_copy_nothing(norm: bool, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = inception(norm, training=training)
    joined, memory = copies(graph, training=training), compile_graph(graph, n=2, training=training).plan.memory
    monkeypatch.setattr(join, "LEAST_CHANNELS", 10**9)
    assert copies(graph, training=training) - joined == (12 if training else 6), "one for each part, both ways"
    assert memory <= 1.05 * compile_graph(graph, n=2, training=training).plan.memory


@every_isa()
@pytest.mark.parametrize("norm", [True, False])
def test_inception_blocks_have_the_same_results(isa: str, norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Sums of few channels are taken of several rows at once where there are no gaps between them: other bits.
    same_results(inception(norm), isa, monkeypatch, 16, tolerance=1e-5 if norm else 0)


@settings(max_examples=60, deadline=None)
@given(random_graphs())
def test_random_graphs_have_the_same_results(graph: Graph) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        same_results(graph, isas()[-1], monkeypatch, 2, 1, 1e-5)


def channels(x: Tensor, first: int, end: int) -> Tensor:
    return ops.slice(x, [None, None, None, slice(first, end)])


@every_isa()
@pytest.mark.parametrize("width", [16, 24, 40])
def test_a_part_is_made_of_another_one(isa: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 128, 192 and 320 bytes: offsets in the arena are multiples of 64, not of these."""

    def build(t: Trace) -> dict[str, Tensor]:
        x = t.input("x", Type((BATCH, 5, 6, width)))
        y = ops.batch_norm(x, *ops.batch_stats(x), t.param("gamma", Type((width,))), t.param("beta", Type((width,))), frozen=False, eps=0.1)
        return {"loss": ops.mean(ops.square(channels(ops.concat([y, ops.relu(y)]), 8, width + 8)))}

    graph = trace(build, training=True)
    same_results(differentiate(graph, list(graph.params)), isa, monkeypatch, 16, tolerance=1e-5)


def dense_block(t: Trace) -> Tensor:
    """Each layer reads all before it (Huang et al. 2017): concatenations of concatenations."""
    x = ops.relu(t.input("x", Type((BATCH, 5, 5, 16))))
    for i in range(3):
        w = t.param(f"w{i}", Type((3, 3, x.shape[3], 16)))
        x = ops.concat([x, ops.relu(ops.conv2d(x, w, padding=1))])
    return x * 2.0


@every_isa()
def test_concatenations_of_concatenations_lie_in_each_other(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = trace(dense_block)
    assert copies(graph, training=False) == 0
    same_results(graph, isa, monkeypatch, 16)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda x: ops.concat([ops.relu(x), ops.tanh(x)], axis=1) * 2.0, 2),  # rows, not channels
        (lambda x: ops.concat([ops.relu(x), x]) * 2.0, 1),  # an input of the program lies where the caller has it
        (lambda x: ops.concat([(y := ops.relu(x)), y]) * 2.0, 1),  # one place only
        (lambda x: ops.concat([(y := ops.relu(x)), ops.tanh(x)]) * ops.concat([y, y]), 2),
        (lambda x: ops.concat([ops.relu(x), ops.softmax(x)]) * 2.0, 1),  # softmax writes no part
        (lambda x: ops.concat([channels(ops.relu(x), 0, 15), ops.tanh(x)]) * 2.0, 2),  # too few channels: cut and joined
        (lambda x: ops.relu(channels(ops.tanh(x), 4, 20)), 0),  # read where it lies
        (lambda x: ops.relu(ops.slice(ops.tanh(x), [None, slice(1, 3), None, None])), 1),
        (lambda x: ops.relu(channels(ops.tanh(x), 5, 20)), 1),
    ],
)
def test_what_is_copied(build, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = trace(lambda t: build(t.input("x", Type((BATCH, 3, 4, 20)))))
    assert copies(graph, training=False) == expected
    same_results(graph, isas()[-1], monkeypatch, 16)


def test_a_part_that_is_fetched_is_copied_to_its_array() -> None:
    def build(t: Trace) -> dict[str, Tensor]:
        x = t.input("x", Type((BATCH, 3, 4, 20)))
        part = ops.relu(x)
        return {"part": part, "y": ops.concat([part, ops.tanh(x)]) * 2.0}

    assert copies(trace(build), training=False) == 1


def test_a_cut_is_not_kept_for_the_gradient() -> None:
    def build(t: Trace) -> dict[str, Tensor]:
        x = ops.tanh(t.input("x", Type((BATCH, 5, 5, 64))))
        y = ops.conv2d(channels(x, 0, 16), t.param("w", Type((3, 3, 16, 16))))
        return {"loss": ops.mean(ops.square(y))}

    graph = trace(build)
    assert copies(differentiate(graph, list(graph.params)), training=True) == 1 + 1, "else all 64 channels would stay for the sake of 16"
