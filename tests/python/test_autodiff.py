"""Reverse mode: against finite differences in float64 on the references, what it computes and what it leaves out, overridden rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import arrays_for, conv_block, random_graphs, residual_net, trace
from wiesel import ops
from wiesel.graph.build import Trace
from wiesel.graph.ir import BATCH, Graph, Type
from wiesel.graph.reference import run_reference
from wiesel.graph.verify import verify
from wiesel.passes.autodiff import differentiate, gradients


def directional_check(graph: Graph, arrays: dict, names: list[str], seed: int = 1, step: float = 1e-6) -> None:
    """grad · direction against the central difference of the loss, in float64."""
    rng = np.random.default_rng(seed)
    found = run_reference(graph, arrays)
    direction = {name: rng.standard_normal(arrays[name].shape) for name in names}
    slope = sum(float((found["grad:" + name] * direction[name]).sum()) for name in names if "grad:" + name in found)
    bare = graph.copy()
    bare.grads = {}
    sides = [run_reference(bare, {**arrays, **{k: arrays[k] + s * step * direction[k] for k in names}})["loss"] for s in (1, -1)]
    expected = float(sides[0] - sides[1]) / (2 * step)
    assert slope == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_s74_residual_net():
    graph = residual_net(True)
    verify(graph)
    assert set(graph.grads) == set(graph.params)
    directional_check(graph, arrays_for(graph), list(graph.params))


@settings(max_examples=40, deadline=None)
@given(random_graphs(), st.integers(0, 1000))
def test_s74_random_graphs(graph, seed):
    verify(graph)
    names = list(graph.grads)
    if names:
        directional_check(graph, arrays_for(graph, 2, seed), names, seed)


def test_a_layer_used_twice_adds_its_gradients():
    def build(t):
        x = t.input("x", Type((BATCH, 4)))
        for _ in range(2):
            with t.scope("fc"):
                x = t.name(ops.tanh(ops.linear(x, t.param("weight", Type((4, 4))), t.param("bias", Type((4,))))))
        return {"loss": ops.sum(x * x)}

    graph = differentiate(trace(build), ["fc.weight", "fc.bias"])
    directional_check(graph, arrays_for(graph), ["fc.weight", "fc.bias"])


def test_nothing_below_the_lowest_trainable_parameter():
    graph = residual_net(True)
    graph.grads, forward = {}, [node for node in graph.nodes if node.entry == "forward"]
    graph.nodes = forward
    differentiate(graph, ["head.weight"])
    grad_ops = [node.op.name for node in graph.nodes if node.entry == "grad"]
    assert "conv_bwd_data" not in grad_ops
    assert "conv_bwd_weights" not in grad_ops
    assert grad_ops.count("matmul") == 1
    graph.nodes = forward
    differentiate(graph, ["b.1.conv.weight"])
    grad_ops = [node.op.name for node in graph.nodes if node.entry == "grad"]
    assert grad_ops.count("conv_bwd_weights") == 1
    assert "conv_bwd_data" not in grad_ops


def test_gradient_of_any_named_tensor_and_of_inputs():
    graph = residual_net(False)
    arrays = arrays_for(graph)
    with Trace(graph=graph) as t, t.root():
        t.output("loss", ops.sum(ops.slice(_tensor(t, "y"), [None, 3])))
    found = gradients(graph, graph.outputs["loss"], [graph.inputs["x"], graph.find("a.0")])
    graph.outputs |= {"dx": found[graph.inputs["x"]], "da": found[graph.find("a.0")]}
    result = run_reference(verify(graph), arrays)
    assert result["da"].shape == (3, 8, 8, 4)
    step = np.random.default_rng(0).standard_normal(arrays["x"].shape)
    sides = [run_reference(graph, {**arrays, "x": arrays["x"] + s * 1e-6 * step})["loss"] for s in (1, -1)]
    assert float((result["dx"] * step).sum()) == pytest.approx(float(sides[0] - sides[1]) / 2e-6, rel=1e-5)


def _tensor(t, name):
    from wiesel.graph.tensor import Tensor

    return Tensor(t.graph.find(name), t)


def test_seeds_give_a_vector_jacobian_product():
    graph = trace(lambda t: ops.exp(t.input("x", Type((BATCH, 3)))))
    with Trace(graph=graph) as t:
        seed = t.input("seed", Type((BATCH, 3)))
    graph.outputs["dx"] = gradients(graph, {graph.outputs["y"]: seed.value}, [graph.inputs["x"]])[graph.inputs["x"]]
    arrays = arrays_for(graph)
    np.testing.assert_allclose(run_reference(graph, arrays)["dx"], np.exp(arrays["x"]) * arrays["seed"])


def test_an_output_that_is_no_scalar_needs_a_seed():
    graph = trace(lambda t: ops.exp(t.input("x", Type((BATCH, 3)))))
    with pytest.raises(ValueError, match="not a scalar"):
        gradients(graph, graph.outputs["y"], [graph.inputs["x"]])
    with pytest.raises(ValueError, match="the seed of"):
        gradients(graph, {graph.outputs["y"]: graph.inputs["x"].__class__(Type((2,)), "input")}, [graph.inputs["x"]])


def test_stop_gradient_and_values_without_influence():
    def build(t):
        x, z = t.input("x", Type((2,))), t.input("z", Type((2,)))
        return ops.sum(x * ops.stop_gradient(x) + ops.stop_gradient(z))

    graph = trace(build)
    found = gradients(graph, graph.outputs["y"], [graph.inputs["x"], graph.inputs["z"]])
    assert graph.inputs["z"] not in found
    graph.outputs["dx"] = found[graph.inputs["x"]]
    x = np.array([2.0, -3.0])
    np.testing.assert_array_equal(run_reference(graph, {"x": x, "z": x})["dx"], x)


def guided(x, y, dy):
    """Guided backpropagation (Springenberg et al. 2015): only positive gradients pass, and only where the unit fired."""
    return ops.relu(dy) * (y > 0.0)


@pytest.mark.parametrize(("key", "guided_count"), [("relu", 2), ("first", 1), ("second:relu", 1), ("unary", 2), ("third", 0)])
def test_rules_override_by_op_kind_and_path(key, guided_count):
    def build(t):
        x = t.input("x", Type((BATCH, 4)))
        for path in ("first", "second"):
            with t.scope(path):
                x = ops.relu(x * t.const([1.0, -1.0, 2.0, 3.0]))
        return ops.sum(x * t.const([1.0, -1.0, 1.0, -1.0]))

    graph = trace(build)
    found = gradients(graph, graph.outputs["y"], [graph.inputs["x"]], rules={key: guided})
    assert sum(node.op.name == "unary" and node.entry == "grad" for node in graph.nodes) == guided_count
    assert sum(node.op.name == "unary_bwd" for node in graph.nodes) == 2 - guided_count
    graph.outputs["dx"] = found[graph.inputs["x"]]
    verify(graph)
    result = run_reference(graph, arrays_for(graph))["dx"]
    assert np.isfinite(result).all()


def test_rules_of_ops_with_several_inputs():
    graph = trace(lambda t: ops.sum(t.input("a", Type((3,))) * t.input("b", Type((3,)))))
    a, b = graph.inputs.values()
    found = gradients(graph, graph.outputs["y"], [a, b], rules={"mul": lambda x, y, dy: (dy, None)})
    assert a in found
    assert b not in found


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda x, y, dy: (dy, dy), "2 gradients for 1"),
        (lambda x, y, dy: 3.0, "symbolic"),
        (lambda x, y, dy: ops.sum(dy), "gives f32"),
    ],
)
def test_wrong_rules_are_refused(rule, message):
    graph = trace(lambda t: ops.sum(ops.relu(t.input("x", Type((3,))))))
    with pytest.raises((ValueError, TypeError), match=message):
        gradients(graph, graph.outputs["y"], [graph.inputs["x"]], rules={"relu": rule})


def test_frozen_batch_norm_keeps_statistics_constant():
    def build(t):
        x = conv_block(t, t.input("x", Type((BATCH, 4, 4, 2))), "block", 3)
        return {"loss": ops.mean(x * x)}

    graph = trace(build)
    differentiate(graph, [name for name in graph.params if "conv" in name])
    directional_check(graph, arrays_for(graph), ["block.conv.weight"])
    assert not graph.updates
