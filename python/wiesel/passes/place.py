"""Fixes where values lie that the planner does not choose: bound arrays, shared buffers, constants.

Adds copies where a value is wanted twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from wiesel.graph.ir import ENTRIES, Builder, Graph, Node, Value
from wiesel.passes.rewrite import last_readers, sort_entries
from wiesel.program.emit import Place, encode_consts
from wiesel.program.layout import Layout

WRITERS: Mapping[str, tuple[str, ...]] = {"output": ("forward", "grad"), "grads": ("grad",)}
"""Entries whose steps may write a buffer."""


@dataclass(slots=True)
class Fixed:
    """Places by storage root, the slots in their order, and the bytes of the constants."""

    places: dict[Value, Place] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[tuple[str, Value]] = field(default_factory=list)
    consts: bytes = b""


def storage_root(value: Value) -> Value:
    """The value whose storage ``value`` lies in: itself, or what it is an alias or a part of."""
    while (source := stored_in(value)) is not None:
        value = source
    return value


def stored_in(value: Value) -> Value | None:
    """What ``value`` is an alias or a part of."""
    if value.part_of is not None:
        return value.part_of[0]
    return value.producer.inputs[0] if value.producer is not None and value.producer.op.alias else None


def fix_places(graph: Graph, layout: Layout, fetches: Mapping[str, Value], *, accumulate: bool, taken: Collection[str] = ()) -> Fixed:
    """Places for inputs, parameters, states, constants, fetches, gradients and state updates; may add nodes to ``graph``.

    With ``accumulate`` the gradients of the batch are added to what the gradient buffer holds, times the scalar ``accumulate``.
    Parameters in ``taken`` have no gradient there.
    """
    fixed = Fixed()
    for slot, value in enumerate(graph.inputs.values()):
        fixed.places[value] = Place("input", 0, slot)
        fixed.inputs.append(value)
    for name, value in graph.params.items():
        fixed.places[value] = Place("params", layout.params[name].offset)
    for name, value in graph.states.items():
        fixed.places[value] = Place("state", layout.states[name].offset)
    _place_updates(graph, layout, fixed)
    _place_gradients(graph, layout, fixed, accumulate, taken)
    for slot, (name, value) in enumerate(fetches.items()):
        placed = _claim(graph, fixed, value, Place("output", 0, slot), _entry(value))
        fixed.outputs.append((name, placed))
    sort_entries(graph)
    consts = {value: None for node in graph.nodes for value in node.inputs if value is not None and value.kind == "const"}
    const_places, fixed.consts = encode_consts(list(consts))
    fixed.places |= const_places
    return fixed


def _claim(graph: Graph, fixed: Fixed, value: Value, place: Place, entry: str) -> Value:
    """Puts the storage of ``value`` at ``place``, or a copy of it when it lies elsewhere already; returns what lies there."""
    root = storage_root(value)
    if root.producer is not None and root.producer.entry in WRITERS[place.buffer] and root not in fixed.places:
        fixed.places[root] = place
        return value
    copied: Value = Builder(graph, entry=entry, path=value.name).op("copy", value)
    copied.name = value.name
    fixed.places[copied] = place
    return copied


def _entry(value: Value) -> str:
    """The first entry in which ``value`` can be copied into a bound array."""
    return "grad" if value.producer is not None and value.producer.entry == "grad" else "forward"


def _place_gradients(graph: Graph, layout: Layout, fixed: Fixed, accumulate: bool, taken: Collection[str]) -> None:
    """Each gradient is written by its producer straight into the buffer; zeros where nothing contributes."""
    for name, segment in layout.params.items():
        if segment.frozen or name in taken or not (graph.grads or taken):
            continue
        place = Place("grads", segment.grad_offset)
        b = Builder(graph, entry="grad", path=name)
        value = graph.grads.get(name)
        if accumulate:
            total = Value(segment.type, "grad", name)
            fixed.places[total] = place
            value = b.op("fill", shape=segment.type.shape) if value is None else value
            placed: Value = b.op("accumulate", value, total)
            fixed.places[placed] = place
        else:
            placed = _claim(graph, fixed, b.op("fill", shape=segment.type.shape) if value is None else value, place, "grad")
        graph.grads[name] = placed


def _place_updates(graph: Graph, layout: Layout, fixed: Fixed) -> None:
    """New states overwrite the old ones in place where the producers allow it, else are copied over at the end of the entry."""
    if not graph.updates:
        return
    position = {node: i for i, node in enumerate(graph.nodes)}
    readers = graph.consumers()
    for name, value in graph.updates.items():
        state, place = graph.states[name], Place("state", layout.states[name].offset)
        chain = _in_place_chain(value, state, readers, position)
        if chain is None:
            _protect_late_readers(graph, state, readers)
            copied: Value = Builder(graph, path=name).op("copy", value)
            fixed.places[copied] = place
            graph.updates[name] = copied
        else:
            fixed.places |= dict.fromkeys(chain, place)


def _in_place_chain(
    value: Value, state: Value, readers: Mapping[Value, Sequence[Node]], position: Mapping[Node, int]
) -> list[Value] | None:
    """Values from ``value`` back to ``state``, each made in place of the one before, which nobody reads later; None without one."""
    chain: list[Value] = []
    while value is not state:
        node = value.producer
        if node is None:
            return None
        sources = [node.inputs[i] for i, o in node.op.in_place if o == value.index]
        source = next((v for v in sources if v is not None and v.type == value.type), None)
        if source is None or last_readers(readers.get(source, ()), position) > position[node]:
            return None
        chain.append(value)
        value = source
    return chain


def _protect_late_readers(graph: Graph, state: Value, readers: Mapping[Value, Sequence[Node]]) -> None:
    """Nodes of later entries that read the old contents of ``state`` get a copy made before it is overwritten."""
    late = [node for node in readers.get(state, ()) if ENTRIES.index(node.entry) > ENTRIES.index("forward")]
    if not late:
        return
    kept: Value = Builder(graph, path=state.name).op("copy", state)
    for node in late:
        node.inputs = tuple(kept if v is state else v for v in node.inputs)
