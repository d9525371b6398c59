"""The memory plan: nothing alive overlaps, storage in place only where allowed, small arenas, places of gradients and states."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import random_graphs, residual_net, trace
from wiesel import ops
from wiesel.graph.ir import BATCH, Graph, Type
from wiesel.passes import join
from wiesel.passes.memory import Storage, _by_area, _by_size, _by_time, assign_offsets, peak_bytes, plan_memory
from wiesel.passes.place import fix_places, storage_root
from wiesel.passes.rewrite import remove_dead, roots
from wiesel.program.emit import Place
from wiesel.program.layout import ALIGNMENT, Layout


def layout_of(graph: Graph, **options) -> Layout:
    return Layout.of({k: v.type for k, v in graph.params.items()}, {k: v.type for k, v in graph.states.items()}, **options)


def planned(graph: Graph, n: int = 4, **options):
    graph = graph.copy()
    remove_dead(graph, roots(graph))
    fixed = fix_places(graph, layout_of(graph), graph.outputs, accumulate=options.get("accumulate", False))
    join.join(graph, fixed.places)
    return graph, *plan_memory(graph, n, fixed.places)


def check(graph: Graph, places: dict, sizes: dict, n: int = 4) -> None:
    """Simulates the run: each value's bytes hold that value from its making to its last reading."""
    owner: dict[tuple[str, int, int], object] = {}
    for node in graph.nodes:
        for value in node.inputs:
            if value is not None and value.kind == "node":
                root = storage_root(value)
                place = places[root]
                if place.buffer in ("arena", "grads", "output", "prepared"):
                    assert owner[place.buffer, place.slot, place.offset] is root, f"{node.op.name} reads {value!r}, which was overwritten"
        if node.op.alias:
            continue
        for value in map(storage_root, node.outputs):
            place, nbytes = places[value], value.type.nbytes(n)
            if owner.get((place.buffer, place.slot, place.offset)) is value:
                continue  # another part of it was written before
            assert place.offset % ALIGNMENT == 0
            if place.buffer == "arena":
                assert place.offset + nbytes <= sizes["arena"]
            for key in [k for k in owner if k[:2] == (place.buffer, place.slot)]:
                held = owner[key]
                if key[2] < place.offset + nbytes and place.offset < key[2] + held.type.nbytes(n):
                    _check_overlap(node, value, held, key[2] == place.offset)
                    del owner[key]
            owner[place.buffer, place.slot, place.offset] = value


def _check_overlap(node, value, held, same_offset) -> None:
    """What is overwritten may be an input of this very node only in place."""
    for i, source in enumerate(node.inputs):
        if source is not None and storage_root(source) is held:
            assert same_offset
            assert source.type == value.type
            assert (i, value.index) in node.op.in_place


@settings(max_examples=60, deadline=None)
@given(random_graphs(), st.booleans())
def test_random_graphs(graph, accumulate):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(join, "LEAST_CHANNELS", 2)
        graph, places, sizes, _ = planned(graph, accumulate=accumulate)
    check(graph, places, sizes)


def test_residual_net_is_close_to_the_optimum():
    graph, places, sizes, storages = planned(residual_net(True))
    check(graph, places, sizes)
    assert peak_bytes(storages) <= sizes["arena"] <= 1.1 * peak_bytes(storages)


def test_inference_chain_needs_two_buffers_at_most():
    def build(t):
        x = t.input("x", Type((BATCH, 16)))
        for i in range(6):
            x = ops.relu(ops.linear(x, t.param(f"w{i}", Type((16, 16)))))
        return x

    _, _, sizes, _ = planned(trace(build), 4)
    assert sizes["arena"] <= 2 * 4 * 16 * 4


def test_element_wise_chain_runs_in_place():
    def build(t):
        x = ops.exp(t.input("x", Type((BATCH, 16))))
        return ops.tanh(ops.relu(ops.sigmoid(ops.abs(x)))) * 2.0

    _, _, sizes, storages = planned(trace(build), 4)
    assert len(storages) == 1
    assert sizes["arena"] == 4 * 16 * 4


def test_in_place_only_when_every_reading_of_the_input_allows_it():
    def build(t):
        x = ops.exp(t.input("x", Type((2, 2))))
        y = ops.matmul(x, x)  # not in place: the product reads x while it writes
        return ops.maximum(y, ops.transpose(y, (1, 0)))

    graph, places, sizes, _ = planned(trace(build))
    check(graph, places, sizes)


def test_gradients_lie_in_their_buffer():
    graph, places, _, _ = planned(residual_net(True))
    layout = layout_of(graph)
    for name, value in graph.grads.items():
        assert places[value] == Place("grads", layout.params[name].grad_offset)
    assert not any(node.op.name in ("copy", "accumulate") for node in graph.nodes if node.entry == "grad")
    graph, places, _, _ = planned(residual_net(True), accumulate=True)
    assert sum(node.op.name == "accumulate" for node in graph.nodes) == len(graph.params)


def test_states_are_updated_in_place():
    graph, places, _, _ = planned(residual_net(True))
    for name, value in graph.updates.items():
        assert places[value] == places[graph.states[name]]
    assert not any(node.op.name == "copy" for node in graph.nodes)


def test_a_state_that_is_read_after_its_update_is_copied_at_the_end():
    def build(t):
        s, x = t.state("s", Type((2,))), t.input("x", Type((2,)))
        t.update_state(s, s + x)
        return s * x

    graph, places, sizes, _ = planned(trace(build))
    assert [node.op.name for node in graph.nodes] == ["binary", "binary", "copy"]
    check(graph, places, sizes)


def test_fetches_are_written_where_they_are_bound():
    def build(t):
        x = t.input("x", Type((BATCH, 2, 2)))
        y = ops.relu(x)
        return {"y": y, "flat": ops.reshape(y, (BATCH, 4)), "again": y, "x": x, "w": t.param("w", Type((3,)))}

    graph, places, sizes, _ = planned(trace(build))
    assert sum(node.op.name == "copy" for node in graph.nodes) == 4
    assert sizes["arena"] == 0
    check(graph, places, sizes)


def test_offsets_of_random_lifetimes():
    rng = random.Random(0)
    for _ in range(50):
        storages = []
        for _ in range(rng.randint(1, 60)):
            begin = rng.randint(0, 40)
            storages.append(Storage(64 * rng.randint(1, 50), begin, begin + rng.randint(0, 15)))
        for strategy in (_by_time, _by_size, _by_area):
            offsets, total = strategy(storages)
            _no_overlap(storages, offsets, total)
        total = assign_offsets(storages)
        _no_overlap(storages, [s.offset for s in storages], total)
        assert peak_bytes(storages) <= total <= min(_by_time(storages)[1], _by_size(storages)[1]) * 66 // 64


def _no_overlap(storages, offsets, total) -> None:
    assert max(o + s.nbytes for s, o in zip(storages, offsets, strict=True)) == total
    for i, a in enumerate(storages):
        for j in range(i):
            b = storages[j]
            if a.begin <= b.end and b.begin <= a.end:
                assert offsets[i] + a.nbytes <= offsets[j] or offsets[j] + b.nbytes <= offsets[i]


def test_layout_keeps_offsets_when_parameters_are_frozen():
    types = {"a": Type((3,)), "b": Type((20,)), "c": Type((2, 2)), "d": Type((5,))}
    free, frozen = Layout.of(types), Layout.of(types, frozen={"b"}, groups={"d": 1})
    assert [s.offset for s in free.params.values()] == [0, 64, 192, 256] == [s.offset for s in frozen.params.values()]
    assert frozen.trainable == ["a", "c", "d"]
    assert frozen.grad_bytes == 3 * 64 < free.grad_bytes == free.param_bytes == 320
    assert [(r.group, r.offset, r.grad_offset, r.count) for r in free.runs()] == [(0, 0, 0, 80)]
    assert [(r.group, r.offset, r.grad_offset, r.count) for r in frozen.runs()] == [(0, 0, 0, 16), (0, 192, 64, 16), (1, 256, 128, 16)]


@pytest.mark.parametrize("n", [1, 5])
def test_storage_sizes_follow_the_planned_batch(n):
    _, _, _, storages = planned(residual_net(False), n)
    for storage in storages:
        assert storage.nbytes >= max(value.type.nbytes(n) for value in storage.values)
        assert storage.nbytes % ALIGNMENT == 0
