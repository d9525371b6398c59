"""From a graph to a program: the passes in their order, then places, memory and steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from wiesel import _core
from wiesel.graph.ir import Graph, Node, Type, Value, types_of
from wiesel.graph.show import log_stage
from wiesel.graph.verify import verify
from wiesel.passes.choose import choose
from wiesel.passes.fuse import fuse
from wiesel.passes.hoist import hoist
from wiesel.passes.join import join
from wiesel.passes.memory import Storage, peak_bytes, plan_memory
from wiesel.passes.place import fix_places
from wiesel.passes.rewrite import remove_dead, roots
from wiesel.passes.take import Take, take_gradients
from wiesel.program.container import write_container
from wiesel.program.emit import Emitter, Work
from wiesel.program.layout import Layout

UpdateSteps: TypeAlias = Callable[[Emitter, Collection[str]], None]
"""Writes the steps of entry update, on ``Emitter.flat`` tensors of the buffers params, grads and opt, but for the named parameters, which
are updated already."""

ENTRY_BITS: Mapping[str, int] = {"prepare": 1, "forward": 2, "grad": 4, "update": 8}
"""What ``Instance.run`` takes, added up."""


@dataclass(frozen=True, slots=True)
class Slot:
    """An array to bind: its name and type (leading extent BATCH: n of the run)."""

    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A piece of the arena: the values that lie there in turn, and from which to which node."""

    names: tuple[str, ...]
    nbytes: int
    offset: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The memory of a program, known before anything runs. All figures are bytes; ``n`` is the planned batch."""

    n: int
    sizes: Mapping[str, int]
    outputs: Mapping[str, int]
    tensors: tuple[PlannedTensor, ...]
    least: int
    """The most that is alive at one moment: no plan of this order of steps can do with less than this arena."""

    @property
    def memory(self) -> int:
        """The arena: activations, gradients between layers, scratch copies of weights. Equals the measured high-water mark."""
        return self.sizes["arena"]


@dataclass(frozen=True)
class Compiled:
    """A program with what its user must know: slots in order, the plan, the layout of the shared buffers.

    ``prepares`` tells whether entry prepare has steps, so that it must run when the weights have changed.
    """

    container: bytes
    plan: Plan
    layout: Layout
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    graph: Graph
    prepares: bool
    works: tuple[Work, ...]
    """What each step does, in the order of ``program.steps()``."""
    taken: Collection[str] = ()
    """Parameters whose gradients entry update uses as it makes them: they are never in the gradient buffer."""

    @cached_property
    def program(self) -> _core.Program:
        """Parsed and verified by the core."""
        return _core.Program(self.container)

    def steps(self, n: int | None = None, *, isa: str | None = None, threads: int = 0) -> list[dict[str, Any]]:
        """``program.steps`` (entry, opcode, path, algorithm, kernel, blocking, refused, workspace, inputs, outputs; shapes of the planned
        batch), and of each step the ``flops`` and ``bytes`` (see ``Work``) for a batch of ``n``, by default the planned one."""
        found = self.program.steps(isa, threads)
        for step, work in zip(found, self.works, strict=True):
            step["flops"], step["bytes"] = work.at(self.plan.n if n is None else n)
        return found

    def instance(
        self,
        params: _core.Buffer | None = None,
        grads: _core.Buffer | None = None,
        state: _core.Buffer | None = None,
        opt: _core.Buffer | None = None,
        *,
        threads: int = 0,
    ) -> _core.Instance:
        """The program with memory of its own, on these shared buffers."""
        return _core.Instance(self.program, params, grads, state, opt, threads=threads)


def compile_graph(
    graph: Graph,
    *,
    n: int = 1,
    training: bool = False,
    layout: Layout | None = None,
    update: UpdateSteps | None = None,
    take: Take | None = None,
    fetches: Sequence[str] | None = None,
    accumulate: bool = False,
) -> Compiled:
    """Compiles ``graph`` for batches of up to ``n``; the graph itself is not changed and may be compiled again.

    ``fetches`` are names of outputs or of any tensor with a module path (default: all outputs), in the order of the output slots.
    Gradients in ``graph.grads`` are written to the gradient buffer by ``layout``; with ``accumulate`` they are added to it, times
    the scalar slot ``accumulate``. Without ``training``, what depends on weights alone is computed by entry prepare.
    ``update`` writes the steps of entry update; ``take`` names gradients that need not be written. Raises KeyError for a fetch that does
    not exist.
    """
    if n < 1:
        raise ValueError(f"a program is planned for a batch of at least 1, got {n}")
    log_stage("tracing", graph)
    graph = graph.copy()
    wanted = {name: graph.find(name) for name in (graph.outputs if fetches is None else fetches)}
    graph.outputs = wanted
    if layout is None:
        layout = Layout.of({k: v.type for k, v in graph.params.items()}, {k: v.type for k, v in graph.states.items()})
    graph.grads = {name: value for name, value in graph.grads.items() if not layout.params[name].frozen}
    remove_dead(graph, roots(graph))
    verify(graph, types=False)
    fuse(graph, training=training)
    verify(graph)
    log_stage("fusion", graph)
    if not training:
        hoist(graph, roots(graph))
    flops = {node: _flops(node) for node in graph.nodes}  # now: later, weights are packed bytes
    choose(graph, n, training=training)
    taken = take_gradients(graph, layout, take) if take is not None else ()
    fixed = fix_places(graph, layout, graph.outputs, accumulate=accumulate, taken=taken)
    join(graph, fixed.places)
    verify(graph, types=False)
    log_stage("placement", graph)
    places, sizes, storages = plan_memory(graph, n, fixed.places)
    grad_bytes = layout.grad_bytes if graph.grads or update else 0
    em = Emitter(n, places, {**sizes, "params": layout.param_bytes, "grads": grad_bytes, "state": layout.state_bytes})
    _lower(em, graph, flops)
    if update is not None:
        with em.within("update"):
            update(em, taken)
    slots = [em.tensor(value) for value in fixed.inputs], [em.tensor(value) for _, value in fixed.outputs]
    container = write_container({"PROG": em.finish(*slots, fixed.consts)})
    return Compiled(
        container,
        _plan(n, em, fixed.outputs, storages),
        layout,
        tuple(Slot(name, value.type) for name, value in graph.inputs.items()),
        tuple(Slot(name, value.type) for name, value in fixed.outputs),
        graph,
        any(node.entry == "prepare" for node in graph.nodes),
        em.works,
        taken,
    )


def _lower(em: Emitter, graph: Graph, flops: Mapping[Node, tuple[int, int]]) -> None:
    """Emits the steps of all nodes. A node's last step does its arithmetic; those before it move operands into place."""
    for node in graph.nodes:
        if node.op.alias:
            continue
        written = em.step_count
        with em.within(node.entry, node.path):
            node.op.lower(em, node)
            if em.step_count > written and node in flops:
                em.charge(*flops[node])


def _flops(node: Node) -> tuple[int, int]:
    """Floating-point operations of a node: those of any batch, and those of each sample."""
    operations = node.op.cost(node.attrs, types_of(node.inputs), [value.type for value in node.outputs]).operations
    read = [value for i, value in enumerate(node.inputs) if i not in node.op.unread]
    batched = any(value is not None and value.type.has_batch for value in (*read, *node.outputs))
    return (0, operations) if batched else (operations, 0)


def _plan(n: int, em: Emitter, outputs: Sequence[tuple[str, Value]], storages: Sequence[Storage]) -> Plan:
    tensors = tuple(
        PlannedTensor(tuple(value.name for value in s.values), s.nbytes, s.offset, s.begin, s.end)
        for s in sorted(storages, key=lambda s: (s.begin, s.offset))
    )
    return Plan(n, em.sizes, {name: value.type.nbytes(n) for name, value in outputs}, tensors, peak_bytes(storages))
