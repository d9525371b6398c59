"""Fusion: what is merged, what is not, and that the result is that of the unfused graph."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import arrays_for, conv_block, random_graphs, residual_net, trace
from wiesel import ops
from wiesel.graph.ir import BATCH, Graph, Type
from wiesel.graph.reference import run_reference
from wiesel.graph.verify import verify
from wiesel.passes.fuse import fuse
from wiesel.passes.hoist import hoist
from wiesel.passes.rewrite import roots


def names(graph: Graph, entry: str = "forward") -> list[str]:
    return [node.op.name for node in graph.nodes if node.entry == entry]


def same_results(graph: Graph, fused: Graph, n: int = 3, seed: int = 0, tolerance: float = 1e-9) -> None:
    arrays = arrays_for(graph, n, seed)
    expected, found = run_reference(graph, arrays), run_reference(verify(fused), arrays)
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


def test_s36_convolution_takes_bias_and_activation():
    def build(t):
        x = t.input("x", Type((BATCH, 6, 6, 2)))
        x = ops.conv2d(x, t.param("w", Type((1, 1, 2, 3)))) + t.param("b", Type((3,)))
        return ops.relu(x)

    graph = trace(build)
    fused = fuse(graph.copy(), training=False)
    assert names(fused) == ["conv_fwd"]
    assert fused.nodes[0].attrs["activation"] == "relu"
    same_results(graph, fused)


def test_training_net():
    graph = residual_net(True)
    fused = fuse(graph.copy(), training=True)
    assert names(fused).count("unary") == 1  # the square of the loss
    assert names(fused).count("binary") == 0
    assert names(fused, "grad").count("unary_bwd") == 1  # the square of the loss
    assert [node.attrs["activation"] for node in fused.nodes if node.op.name == "bn_apply"] == ["relu"] * 5
    same_results(graph, fused)


def test_statistics_are_gathered_by_the_convolution_that_makes_their_input():
    graph = residual_net(True)
    fused = fuse(graph.copy(), training=True)
    made_by_convolutions = [node for node in graph.nodes if node.op.name == "bn_stats" and node.inputs[0].producer.op.name == "conv_fwd"]
    assert made_by_convolutions
    assert len([node for node in fused.nodes if node.op.name == "conv_fwd" and node.attrs["stats"]]) == len(made_by_convolutions)
    assert names(fused).count("bn_stats") == names(graph).count("bn_stats") - len(made_by_convolutions)


def test_gradient_sums_are_gathered_by_the_convolution_that_makes_dy():
    graph = residual_net(True)
    fused = fuse(graph.copy(), training=True)
    gathered = [node.inputs[7] for node in fused.nodes if node.op.name == "bn_bwd" and len(node.inputs) > 7]
    assert len(gathered) == 2, "before the second convolution of each block; the others' dy is a sum or comes from a pooling"
    assert all(value.producer.op.name == "conv_bwd_data" and value.producer.attrs["activation"] == "relu" for value in gathered)
    same_results(graph, fused)


def separable_net() -> Graph:
    """A stem, 1x1, depthwise 3x3, 1x1; a batch normalisation with ReLU before each of the last three."""

    def build(t):
        x = conv_block(t, t.input("x", Type((BATCH, 6, 6, 3))), "stem", 8)
        for name, kernel, groups in (("point", 1, 1), ("depth", 3, 8), ("last", 1, 1)):
            x = ops.conv2d(x, t.param(f"{name}.w", Type((kernel, kernel, 8 // groups, 8))), padding="same", groups=groups)
            if name != "last":
                x = ops.relu(ops.batch_norm(x, *ops.batch_stats(x), t.param(f"{name}.gamma", Type((8,))), frozen=False))
        return {"loss": ops.mean(ops.square(x))}

    from wiesel.passes.autodiff import differentiate

    graph = trace(build, training=True)
    return differentiate(graph, list(graph.params))


def test_convolutions_normalise_what_they_read():
    graph = separable_net()
    fused = fuse(graph.copy(), training=True)
    assert names(fused).count("bn_apply") == 0
    assert [node.attrs["norm"] for node in fused.nodes if node.op.name == "conv_fwd"] == [False, True, True, True]
    assert sorted(node.attrs["in_activation"] for node in fused.nodes if node.op.name == "conv_bwd_weights") == ["none", *["relu"] * 3]
    same_results(graph, fused)
    others = names(fuse(residual_net(True).copy(), training=True))
    assert others.count("bn_apply") == 5, "what a 3x3, a residual sum or a pooling reads stays"


def test_statistics_of_what_is_no_convolution_keep_their_pass():
    def build(t):
        x = ops.relu(t.input("x", Type((BATCH, 4, 4, 3))))
        return ops.batch_norm(x, *ops.batch_stats(x), frozen=False)

    assert names(fuse(trace(build).copy(), training=True)) == ["unary", "bn_stats", "bn_apply"]


def test_inference_net_folds_batch_norm():
    graph = residual_net(False)
    fused = fuse(graph.copy(), training=False)
    hoist(fused, roots(fused))
    assert set(names(fused)) <= {"conv_fwd", "pool_avg", "reduce", "reshape", "matmul"}
    assert set(names(fused, "prepare")) <= {"unary", "binary"}
    same_results(graph, fused)


def test_dense_layer_folds_batch_norm_too():
    def build(t):
        x = ops.linear(t.input("x", Type((BATCH, 4))), t.param("w", Type((4, 3))), t.param("b", Type((3,))))
        return ops.relu(ops.batch_norm(x, t.state("mean", Type((3,))), t.state("var", Type((3,)))))

    graph = trace(build)
    fused = fuse(graph.copy(), training=False)
    hoist(fused, roots(fused))
    assert names(fused) == ["matmul"]
    same_results(graph, fused)


def test_what_is_fetched_or_read_twice_is_not_merged():
    def build(t):
        y = ops.conv2d(t.input("x", Type((BATCH, 4, 4, 2))), t.param("w", Type((3, 3, 2, 2))))
        return {"before": y, "after": ops.relu(y)}

    graph = trace(build)
    assert names(fuse(graph.copy(), training=False)) == ["conv_fwd", "unary"]

    def twice(t):
        y = ops.conv2d(t.input("x", Type((BATCH, 4, 4, 2))), t.param("w", Type((3, 3, 2, 2))))
        return ops.relu(y) * ops.tanh(y)

    graph = trace(twice)
    assert names(fuse(graph.copy(), training=False)) == ["conv_fwd", "unary", "unary", "binary"]


@pytest.mark.parametrize(("kind", "merged"), [("relu", True), ("sigmoid", True), ("gelu", False), ("silu", False)])
def test_an_activation_whose_gradient_reads_its_input_stays_in_training(kind, merged):
    from wiesel.passes.autodiff import differentiate

    def build(t):
        y = ops.conv2d(t.input("x", Type((BATCH, 4, 4, 2))), t.param("w", Type((3, 3, 2, 2))))
        return {"loss": ops.sum(ops.activation(y, kind))}

    graph = differentiate(trace(build), ["w"])
    fused = fuse(graph.copy(), training=True)
    assert ("unary" not in names(fused)) == merged
    same_results(graph, fused)


def test_the_residual_goes_into_the_later_convolution():
    def build(t):
        x = t.input("x", Type((BATCH, 4, 4, 2)))
        a = ops.conv2d(x, t.param("a", Type((3, 3, 2, 2))), padding=1)
        b = ops.conv2d(ops.relu(x), t.param("b", Type((3, 3, 2, 2))), padding=1)
        return ops.relu(a + b)

    graph = trace(build)
    fused = fuse(graph.copy(), training=False)
    assert names(fused) == ["conv_fwd", "unary", "conv_fwd"]
    assert fused.nodes[-1].inputs[1] is fused.params["b"]
    same_results(graph, fused)


def test_a_sum_with_itself_and_broadcasts_are_no_residuals():
    def build(t):
        y = ops.conv2d(t.input("x", Type((BATCH, 4, 4, 2))), t.param("w", Type((3, 3, 2, 2))))
        return {"y": y + y, "z": ops.tanh(y) + t.input("row", Type((2, 2)))}

    graph = trace(build)
    same_results(graph, fuse(graph.copy(), training=False))


def test_masked_gradient_that_others_read_is_handed_out():
    graph = residual_net(True)
    fused = fuse(graph.copy(), training=True)
    assert any(node.attrs["residual"] for node in fused.nodes if node.op.name == "bn_bwd")


def test_equal_ops_are_computed_once_and_idle_ones_dropped():
    def build(t):
        x = t.input("x", Type((BATCH, 3)))
        return ops.relu(ops.relu(ops.exp(x))) + ops.activation(ops.exp(x), "none")

    graph = trace(build)
    fused = fuse(graph.copy(), training=False)
    assert names(fused) == ["unary", "unary", "binary"]
    same_results(graph, fused)


def test_the_mask_of_relu_is_applied_to_pooled_gradients():
    from wiesel.passes.autodiff import differentiate

    def build(t):
        x = t.input("x", Type((BATCH, 7, 7, 2)))
        y = ops.relu(ops.conv2d(x, t.param("w", Type((3, 3, 2, 3))), t.param("b", Type((3,)))))
        return {"loss": ops.sum(ops.square(ops.max_pool2d(y, 3, stride=2)))}

    graph = differentiate(trace(build), ["w", "b"])
    fused = fuse(graph.copy(), training=True)
    grad = [node for node in fused.nodes if node.entry == "grad"]
    mask = next(node for node in grad if node.attrs.get("kind") == "relu")
    assert mask.outputs[0].type.shape == (BATCH, 2, 2, 3)
    assert fused.grads["b"] is mask.outputs[1]
    same_results(graph, fused, tolerance=1e-6)  # the seed, a constant, is float32


def test_the_gradient_of_a_bias_is_summed_where_the_mask_is_applied():
    from wiesel.passes.autodiff import differentiate

    def build(t):
        x = t.input("x", Type((BATCH, 5, 5, 2)))
        y = ops.relu(ops.conv2d(x, t.param("w", Type((3, 3, 2, 3))), t.param("b", Type((3,)))))
        return {"loss": ops.sum(ops.square(ops.conv2d(y, t.param("v", Type((3, 3, 3, 1))))))}

    graph = differentiate(trace(build), ["w", "b", "v"])
    fused = fuse(graph.copy(), training=True)
    assert fused.grads["b"].producer.op.name == "unary_bwd"
    assert fused.grads["b"].index == 1
    same_results(graph, fused, tolerance=1e-6)


def test_the_mask_behind_batch_norm_needs_no_y_but_behind_a_residual_sum():
    graph = residual_net(True)
    fused = fuse(graph.copy(), training=True)
    masked = [node for node in fused.nodes if node.op.name == "bn_bwd" and node.attrs["activation"] == "relu"]
    residuals = sum(len(node.inputs) > 5 and node.inputs[5] is not None for node in fused.nodes if node.op.name == "bn_apply")
    assert sum(len(node.inputs) == 7 for node in masked) == residuals
    assert any(len(node.inputs) < 7 for node in masked)
    same_results(graph, fused)


def test_pooling_without_a_gradient_keeps_no_index():
    graph = trace(lambda t: ops.max_pool2d(t.input("x", Type((BATCH, 4, 4, 2))), 2))
    assert len(fuse(graph, training=False).nodes[0].outputs) == 1


def test_dead_code_goes():
    def build(t):
        x = t.input("x", Type((BATCH, 3)))
        ops.exp(x)
        return ops.relu(x)

    assert names(fuse(trace(build), training=False)) == ["unary"]


def test_block_with_frozen_norm_in_a_graph_with_gradients_is_not_folded():
    from wiesel.passes.autodiff import gradients

    graph = trace(lambda t: {"loss": ops.sum(conv_block(t, t.input("x", Type((BATCH, 4, 4, 2))), "block", 3))})
    graph.outputs["dx"] = gradients(graph, graph.outputs["loss"], [graph.inputs["x"]])[graph.inputs["x"]]
    fused = fuse(graph.copy(), training=False)
    same_results(graph, fused)


@settings(max_examples=60, deadline=None)
@given(random_graphs(), st.integers(0, 1000), st.booleans())
def test_s36_random_graphs(graph, seed, training):
    fused = fuse(graph.copy(), training=training)
    if not training:
        hoist(fused, roots(fused))
    same_results(graph, fused, 2, seed)
