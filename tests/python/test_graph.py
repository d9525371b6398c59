"""Types, tracing, names, verification and text of graphs."""

import logging

import numpy as np
import pytest

from graphs import arrays_for, residual_net, trace
from wiesel import ops
from wiesel.graph.build import Trace, current_trace, flatten_outputs
from wiesel.graph.ir import BATCH, Builder, Graph, Node, Type, Value
from wiesel.graph.reference import run_reference
from wiesel.graph.show import log_stage, show
from wiesel.graph.verify import GraphError, order_nodes, verify
from wiesel.ops.base import find
from wiesel.ops.dispatch import call


def test_types_have_static_extents_but_the_batch():
    t = Type((BATCH, 4, 5))
    assert t.has_batch
    assert t.concrete(7) == (7, 4, 5)
    assert t.nbytes(7) == 7 * 4 * 5 * 4
    assert str(t) == "f32(N, 4, 5)"
    with pytest.raises(ValueError, match="at least 1"):
        Type((4, BATCH))
    with pytest.raises(ValueError, match="at most 6"):
        Type((1,) * 7)


def test_operators_match_numpy():
    a, b = np.array([[1.0, 2.0], [3.0, -4.0]]), np.array([2.0, 0.5])

    def formula(x, y):
        return (x + y) * 2 - 1 / (y - 3.0) + (-x) * y + (x @ a)

    graph = trace(lambda t: formula(t.input("x", Type((2, 2))), t.input("y", Type((2,)))))
    found = run_reference(graph, {"x": a, "y": b})["y"]
    np.testing.assert_allclose(found, formula(a, b))
    graph = trace(lambda t: a + t.input("x", Type((2, 2))))
    np.testing.assert_allclose(run_reference(graph, {"x": a})["y"], a + a)


@pytest.mark.parametrize("misuse", [bool, float, np.sin, list, len])
def test_misuse_of_a_symbolic_tensor_names_the_line(misuse):
    with Trace() as t:
        x = t.input("x", Type((2,)))
        with pytest.raises(TypeError, match=r"test_graph\.py:\d+|does not support ufuncs"):
            misuse(x)


def test_truth_value_names_this_file():
    with Trace() as t:
        x = t.input("x", Type((2,)))
        with pytest.raises(TypeError, match=r"test_graph\.py:\d+.*maximum"):
            _ = 1 if x > 0 else 0


def test_a_module_used_twice_shares_its_parameters_and_has_two_outputs():
    with Trace() as t:
        x = t.input("x", Type((BATCH, 3)))
        for _ in range(2):
            with t.scope("fc"):
                x = t.name(ops.linear(x, t.param("weight", Type((3, 3)))))
    assert list(t.graph.params) == ["fc.weight"]
    assert {"x", "fc", "fc@2", "fc.weight"} == set(t.graph.names)


def test_a_parameter_has_one_type():
    with Trace() as t:
        t.param("w", Type((3,)))
        with pytest.raises(ValueError, match="'w' is asked for as"):
            t.param("w", Type((4,)))


def test_outputs_of_all_structures_are_named():
    with Trace() as t:
        x = t.input("x", Type((BATCH, 3)))
        with t.scope("block"):
            t.name({"a": ops.relu(x), "b": (ops.tanh(x), ops.exp(x))})
    assert {"block.a", "block.b.0", "block.b.1"} <= set(t.graph.names)
    assert [name for name, _ in flatten_outputs((x, [x]), "o")] == ["o.0", "o.1.0"]
    with pytest.raises(TypeError, match="forward returns"):
        list(flatten_outputs(3))


def test_find_lists_near_names():
    graph = residual_net(False)
    assert graph.find("a.0").type.shape == (BATCH, 8, 8, 4)
    with pytest.raises(KeyError, match=r"a\.1"):
        graph.find("a.7")


def test_errors_name_the_module():
    with Trace() as t:
        x = t.input("x", Type((BATCH, 8, 8, 3)))
        with t.scope("features.2"), pytest.raises(ValueError, match=r"'features\.2'.*channels"):
            call("conv_fwd", [x, t.param("w", Type((3, 3, 4, 4)))])


def test_s65_a_module_that_calls_itself_is_a_cycle():
    layer, outer = object(), object()
    with Trace() as t, t.scope("outer", outer), t.scope("layer", layer):
        again = t.scope("outer", outer)
        with pytest.raises(ValueError, match=r"cycle: 'outer' -> .*feed-forward"):
            again.__enter__()


def test_s65_nodes_in_a_loop_are_named():
    graph = Graph()
    x = Value(Type((2,)), "input", "x")
    relu = find("unary")
    a = Node(relu, (x,), relu.complete({"kind": "relu"}), path="first")
    a.outputs = (Value(Type((2,)), "node", "", a),)
    b = Node(relu, (a.outputs[0],), dict(a.attrs), path="second")
    b.outputs = (Value(Type((2,)), "node", "", b),)
    graph.inputs["x"] = x
    assert order_nodes([b, a]) == [a, b]
    a.inputs = (b.outputs[0],)
    with pytest.raises(ValueError, match=r"cycle.*('first' -> 'second'|'second' -> 'first')"):
        order_nodes([a, b])


def test_current_trace_needs_a_trace():
    with pytest.raises(RuntimeError, match="no network is being traced"):
        current_trace()
    with Trace() as t:
        assert current_trace() is t


def test_tensors_of_two_traces_do_not_mix():
    with Trace() as t:
        x = t.input("x", Type((2,)))
    with Trace() as other, pytest.raises(ValueError, match="another trace"):
        _ = other.input("x", Type((2,))) + x


def test_state_updates():
    with Trace(training=True) as t:
        s = t.state("count", Type((2,)))
        t.update_state(s, s + 1.0)
        t.update_state(s, t.latest_state(s) + 1.0)
        with pytest.raises(ValueError, match="has type"):
            t.update_state(s, t.input("x", Type((3,))))
        with pytest.raises(ValueError, match="not a state"):
            t.update_state(t.input("y", Type((2,))), s)
    assert run_reference(t.graph, {"count": np.zeros(2), "x": np.zeros(3), "y": np.zeros(2)})["state:count"].tolist() == [2.0, 2.0]


def test_constants_of_one_value_are_shared():
    graph = trace(lambda t: (t.input("x", Type((BATCH, 2))) + 1.0) * 1.0)
    consts = {id(v) for node in graph.nodes for v in node.inputs if v.kind == "const"}
    assert len(consts) == 1


def test_verify_accepts_real_graphs_and_their_copies():
    graph = residual_net(True)
    verify(graph)
    copy = verify(graph.copy())
    assert not {id(n) for n in graph.nodes} & {id(n) for n in copy.nodes}
    arrays = arrays_for(graph)
    for name, expected in run_reference(graph, arrays).items():
        np.testing.assert_array_equal(run_reference(copy, arrays)[name], expected)


def _broken_order(graph):
    graph.nodes.reverse()


def _broken_type(graph):
    graph.nodes[0].outputs[0].type = Type((9,))


def _broken_producer(graph):
    graph.nodes[0].outputs[0].producer = graph.nodes[1]


def _broken_entry(graph):
    graph.nodes[0].entry = "update"


def _broken_output(graph):
    graph.outputs["z"] = Value(Type((1,)), "node")


def _twice(graph):
    graph.nodes.append(graph.nodes[-1])


@pytest.mark.parametrize("damage", [_broken_order, _broken_type, _broken_producer, _broken_entry, _broken_output, _twice])
def test_verify_refuses(damage):
    graph = residual_net(False)
    damage(graph)
    with pytest.raises(GraphError):
        verify(graph)


def test_verify_refuses_a_batch_out_of_nothing():
    graph = Graph()
    b = Builder(graph)
    y = b.op("fill", None, shape=(3,))
    y.type = Type((BATCH, 3))
    with pytest.raises(GraphError):
        verify(graph)


def test_show_and_log(caplog, monkeypatch):
    graph = residual_net(True)
    text = show(graph)
    assert "conv_fwd(%x, %stem.conv.weight" in text
    assert "f32(N, 8, 8, 4)" in text
    assert "gradient of stem.conv.weight: %grad:stem.conv.weight" in text
    with caplog.at_level(logging.WARNING, logger="wiesel.graph"):
        log_stage("tracing", graph)
        assert not caplog.records
        monkeypatch.setenv("WIESEL_DEBUG", "graph")
        log_stage("tracing", graph)
    assert "after tracing" in caplog.text
