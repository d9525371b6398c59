"""Programs: what is emitted reads back, runs natively as the references do, keeps to its plan, and compiles in time."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import arrays_for, random_graphs, residual_net, run_native, trace
from wiesel import _core, ops
from wiesel.graph.ir import BATCH, Type
from wiesel.graph.reference import run_reference
from wiesel.program.compile import ENTRY_BITS, compile_graph
from wiesel.program.container import read_container
from wiesel.program.layout import Layout, align
from wiesel.program.read import read_program


def agree(graph, arrays, found, tolerance: float = 2e-4) -> None:
    """Native float32 results against the float64 references, relative to the largest element."""
    for name, expected in run_reference(graph, arrays).items():
        if name not in found:
            continue
        scale = max(float(np.abs(expected).max()), 1.0)
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("n", [5, 2])
def test_residual_net(training, n):
    graph = residual_net(training)
    arrays = arrays_for(graph, n)
    agree(graph, arrays, run_native(graph, arrays, planned=5, n=n, training=training))


@settings(max_examples=40, deadline=None)
@given(random_graphs(), st.integers(0, 1000), st.booleans())
def test_s36_random_graphs_run_as_their_references(graph, seed, training):
    arrays = arrays_for(graph, 2, seed)
    with np.errstate(all="ignore"):
        expected = run_reference(graph, arrays)
    if all(np.abs(value).max() < 1e4 for value in expected.values()):
        agree(graph, arrays, run_native(graph, arrays, planned=3, n=2, training=training), 1e-3)


def test_bits_do_not_depend_on_the_planned_batch_being_full():
    graph = residual_net(False)
    arrays = arrays_for(graph, 6, dtype=np.float32)
    whole = run_native(graph, arrays, planned=6, n=6)["y"]
    for n in (1, 4):
        part = run_native(graph, {**arrays, "x": arrays["x"][:n]}, planned=6, n=n)["y"]
        np.testing.assert_array_equal(part, whole[:n])


def test_any_named_tensor_can_be_fetched():
    graph = residual_net(True)
    arrays = arrays_for(graph)
    found = run_native(graph, arrays, planned=3, n=3, training=True, fetches=["a.0", "x", "head", "a.1.bn.weight", "loss"])
    graph.outputs = {name: graph.find(name) for name in ("a.0", "x", "head", "a.1.bn.weight", "loss")}
    agree(graph, arrays, found)
    with pytest.raises(KeyError, match=r"a\.0"):
        compile_graph(graph, fetches=["a.00"])


def test_o03_the_arena_is_used_to_its_last_byte_and_no_further():
    graph = residual_net(True, channels=32)  # whole panels: narrower packed weights leave room that other ISAs need
    compiled = compile_graph(graph, n=4, training=True)
    layout = compiled.layout
    instance = compiled.instance(*(_core.Buffer(size) for size in (layout.param_bytes, layout.grad_bytes, layout.state_bytes)))
    instance.arena_high_water  # noqa: B018  fills the canary
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(slot.type.concrete(4)).astype(np.float32) for slot in compiled.inputs]
    outputs = [np.empty(slot.type.concrete(4), np.float32) for slot in compiled.outputs]
    instance.run(ENTRY_BITS["forward"] | ENTRY_BITS["grad"], inputs, outputs, 4)
    assert compiled.program.memory()["arena"] == compiled.plan.memory
    assert align(instance.arena_high_water) == compiled.plan.memory
    assert compiled.plan.memory <= 1.1 * compiled.plan.least
    assert compiled.plan.outputs == {"y": 4 * 5 * 4, "loss": 4}


def test_accumulated_gradients_add_up():
    graph = residual_net(True)
    compiled = compile_graph(graph, n=3, training=True, accumulate=True)
    layout = compiled.layout
    params, grads, state = (_core.Buffer(size) for size in (layout.param_bytes, layout.grad_bytes, layout.state_bytes))
    arrays = arrays_for(graph)
    for name, segment in layout.params.items():
        params.view(segment.offset, segment.type.shape, "f32", True)[...] = arrays[name]
    for name, segment in layout.states.items():
        state.view(segment.offset, segment.type.shape, "f32", True)[...] = arrays[name]
    instance = compiled.instance(params, grads, state)
    scalars = np.zeros(_core.SLOTS["count"], np.int64)
    outputs = [np.empty(slot.type.concrete(3), np.float32) for slot in compiled.outputs]
    x = arrays["x"].astype(np.float32)
    segment = layout.params["head.weight"]
    view = grads.view(segment.grad_offset, segment.type.shape, "f32")
    found = []
    for keep in (0.0, 1.0, 1.0, 0.0):
        scalars.view(np.float64)[_core.SLOTS["accumulate"]] = keep
        instance.run(ENTRY_BITS["forward"] | ENTRY_BITS["grad"], [x], outputs, 3, scalars)
        found.append(view.copy())
    np.testing.assert_allclose(found[1], 2 * found[0], rtol=1e-6)
    np.testing.assert_allclose(found[2], 3 * found[0], rtol=1e-6)
    np.testing.assert_array_equal(found[3], found[0])


def test_parameters_without_influence_get_zero_gradients():
    from wiesel.passes.autodiff import differentiate

    def build(t):
        x, used, unused = t.input("x", Type((BATCH, 3))), t.param("used", Type((3,))), t.param("unused", Type((5,)))
        return {"loss": ops.sum(x * used), "other": ops.sum(unused)}

    graph = differentiate(trace(build), ["used", "unused"])
    arrays = arrays_for(graph)
    found = run_native(graph, arrays, planned=3, n=3, training=True)
    np.testing.assert_array_equal(found["grad:unused"], np.zeros(5))
    np.testing.assert_allclose(found["grad:used"], arrays["x"].sum(0), rtol=1e-5)


def test_a_gradient_that_is_a_value_of_the_forward_pass_is_copied():
    from wiesel.passes.autodiff import gradients

    def build(t):
        y = ops.exp(t.input("x", Type((3,))))
        return {"loss": ops.sum(y * t.param("w", Type((3,)))), "y": y}

    graph = trace(build)
    w = graph.params["w"]
    graph.grads = {"w": gradients(graph, graph.outputs["loss"], [w], rules={"mul": lambda x, y, dy: (None, x[0])})[w]}
    arrays = arrays_for(graph)
    agree(graph, arrays, run_native(graph, arrays, planned=1, n=1, training=True))


def test_frozen_parameters_have_no_gradient_memory():
    graph = residual_net(True)
    types = {name: value.type for name, value in graph.params.items()}
    layout = Layout.of(types, {k: v.type for k, v in graph.states.items()}, frozen={name for name in types if not name.startswith("head")})
    compiled = compile_graph(graph, n=2, training=True, layout=layout)
    assert compiled.plan.sizes["grads"] == layout.grad_bytes == 256
    assert {node.op.name for node in compiled.graph.nodes if node.entry == "grad"} & {"conv_bwd_data", "conv_bwd_weights"} == set()


def test_update_steps_run_on_the_flat_buffers():
    graph = residual_net(True)
    types = {name: value.type for name, value in graph.params.items()}
    layout = Layout.of(types, {k: v.type for k, v in graph.states.items()})

    def sgd(em, taken):
        for run in layout.runs(taken):
            grad, param = em.flat("grads", run.grad_offset, run.count), em.flat("params", run.offset, run.count)
            velocity = em.flat("opt", run.grad_offset, run.count)
            em.step("sgd_update", [grad, param, velocity], [param, velocity], momentum=0.9, slot=_core.SLOTS["first_group"])

    compiled = compile_graph(graph, n=2, training=True, layout=layout, update=sgd)
    assert compiled.plan.sizes["opt"] == layout.grad_bytes
    program = read_program(read_container(compiled.container)["PROG"])
    assert [step.opcode for step in program.steps if step.entry == "update"] == ["sgd_update"]
    assert len(compiled.works) == len(program.steps) == len(compiled.program.steps())


def test_what_is_emitted_reads_back():
    graph = residual_net(False)
    compiled = compile_graph(graph, n=7)
    program = read_program(read_container(compiled.container)["PROG"])
    assert program.batch == 7
    assert program.inputs[0].shape == (7, 8, 8, 3)
    assert program.inputs[0].batch
    assert program.inputs[0].strides == (192, 24, 3, 1)
    assert program.outputs[0].slot == 0
    assert {step.entry for step in program.steps} == {"prepare", "forward"}
    conv = next(step for step in program.steps if step.opcode == "conv_fwd")
    assert conv.path == "stem"
    assert conv.attrs["pad_top"] == 1
    assert _core.ALGORITHMS["automatic"] != conv.attrs["algorithm"]
    core = compiled.program.steps()
    assert [(s["entry"], s["opcode"], s["path"]) for s in core] == [(s.entry, s.opcode, s.path) for s in program.steps]
    convolutions = [work.at(7)[0] for work, step in zip(compiled.works, program.steps, strict=True) if step.opcode == "conv_fwd"]
    assert convolutions[0] == 2 * 7 * 8 * 8 * 3 * 3 * 3 * 4
    assert all(convolutions)
    step = next(step for step in compiled.steps() if step["opcode"] == "conv_fwd")
    assert step["flops"] == convolutions[0]
    assert step["bytes"] >= 4 * 7 * 8 * 8 * (3 + 4)
    weights = step["bytes"] - 4 * 7 * 8 * 8 * (3 + 4)
    few = next(step for step in compiled.steps(2) if step["opcode"] == "conv_fwd")
    assert (few["flops"], few["bytes"]) == (convolutions[0] // 7 * 2, 4 * 2 * 8 * 8 * (3 + 4) + weights)
    with pytest.raises(ValueError, match="malformed"):
        read_program(b"\0" * 100)


def test_constants_and_aliases_of_them_are_fetched():
    graph = trace(lambda t: {"c": t.const([[1.0, 2.0]]), "flat": ops.reshape(t.const([[1.0, 2.0]]), (2,)), "x": t.input("x", Type((1,)))})
    found = run_native(graph, {"x": np.ones(1)}, planned=1, n=1)
    np.testing.assert_array_equal(found["c"], [[1.0, 2.0]])
    np.testing.assert_array_equal(found["flat"], [1.0, 2.0])


def test_inference_reads_new_weights_after_prepare_alone():
    graph = residual_net(False)
    compiled = compile_graph(graph, n=2)
    assert compiled.prepares
    assert compiled.plan.sizes["prepared"] > 0


def test_one_graph_compiles_for_many_batches_without_being_changed():
    graph = residual_net(True)
    nodes = [(node, node.op, node.inputs, dict(node.attrs)) for node in graph.nodes]
    small, large = compile_graph(graph, n=2, training=True), compile_graph(graph, n=8, training=True)
    assert [(node, node.op, node.inputs, node.attrs) for node in graph.nodes] == nodes
    assert small.plan.memory < large.plan.memory
    with pytest.raises(ValueError, match="at least 1"):
        compile_graph(graph, n=0)


def test_compilation_is_linear_in_the_number_of_nodes():
    def chain(length):
        def build(t):
            x = t.input("x", Type((BATCH, 4, 4, 4)))
            for i in range(length):
                x = ops.tanh(ops.conv2d(x, t.param(f"w{i}", Type((3, 3, 4, 4))), padding=1)) + x
            return x

        graph = trace(build)
        compile_graph(graph, n=2)
        best = min(_seconds(lambda: compile_graph(graph, n=2)) for _ in range(3))
        return best / length

    assert chain(200) < 4 * chain(20)


def _seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@pytest.mark.parametrize(("n", "training", "algorithm"), [(64, True, "winograd4"), (64, False, "direct"), (8, True, "direct")])
def test_algorithms_suit_full_batches_in_training_and_the_middle_of_all_in_inference(n, training, algorithm):
    def build(t):
        return {"y": ops.conv2d(t.input("x", Type((BATCH, 4, 4, 64))), t.param("w", Type((3, 3, 64, 64))), padding=1)}

    steps = compile_graph(trace(build), n=n, training=training).steps()
    assert {step["algorithm"] for step in steps if step["opcode"] == "conv_fwd"} == {algorithm}
