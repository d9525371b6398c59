"""Reverse mode: appends to a graph the nodes that compute what is asked for, from the gradient rules of the ops, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from wiesel.graph.build import Trace
from wiesel.graph.ir import Builder, Graph, Node, Value
from wiesel.graph.tensor import Tensor
from wiesel.graph.verify import describe

Rule: TypeAlias = Callable[[Any, Any, Any], Any]
"""``rule(x, y, dy) -> dx`` on symbolic tensors, in place of a gradient rule. Where the op has several inputs or outputs these are
tuples (None for an absent one), and the rule returns a tuple with a gradient or None for every input."""


def gradients(
    graph: Graph,
    of: Value | Mapping[Value, Value | None],
    wrt: Sequence[Value],
    *,
    rules: Mapping[str, Rule] | None = None,
) -> dict[Value, Value]:
    """Gradients of ``of`` with respect to the values ``wrt``, which may be inputs, parameters or anything between.

    ``of`` is a scalar, or values with their seeds (gradients of something that comes after; None for a scalar's 1): the result is
    then the vector-Jacobian product Σ seed · d(value)/d(wrt). Several uses of a value are added up. Only nodes between ``wrt`` and
    ``of`` are visited, so nothing below the lowest of ``wrt`` is computed. Values of ``wrt`` without influence are missing from the
    result.

    ``rules`` override gradient rules. Keys, the first that fits: ``"features.3"`` (a module as a whole: x are the tensors that enter
    it, y the one that leaves it; parameters inside get no gradient), ``"features.3:relu"`` (an op at a module path), ``"relu"`` (kind
    of a unary or binary op), ``"unary"`` (name of an op).
    """
    seeds = {of: None} if isinstance(of, Value) else of
    active = _depending_on(graph, wrt)
    regions = _regions(graph, rules, seeds) if rules else {}
    sums: dict[Value, Value] = {}
    b = Builder(graph, entry="grad")
    for value, seed in seeds.items():
        _add(b, sums, value, _seed(b, value, seed))
    trace = Trace(graph=graph, entry="grad") if rules else None
    for node in reversed(list(graph.nodes)):
        douts = [sums.get(value) for value in node.outputs]
        if all(dout is None for dout in douts):
            continue
        region = regions.get(node)
        sources = node.inputs if region is None else region.inputs
        needed = [value is not None and value in active for value in sources]
        if not any(needed) or (region is not None and region.output.producer is not node):
            continue
        b.path = node.path
        rule = region.rule if region is not None else _rule_for(node, rules or {})
        if rule is not None and trace is not None:
            found: Sequence[Value | None] = _apply_rule(trace, rule, node, sources, douts)
        else:
            found = node.op.grad(b, node, douts, needed)
        for source, wanted, dsource in zip(sources, needed, found, strict=True):
            if wanted and dsource is not None:
                assert source is not None
                if dsource.type != source.type:
                    raise ValueError(f"the gradient rule of {describe(node)} gives {dsource.type} for an input of {source.type}")
                _add(b, sums, source, dsource)
    return {value: sums[value] for value in wrt if value in sums}


def differentiate(graph: Graph, names: Sequence[str], *, of: str = "loss", rules: Mapping[str, Rule] | None = None) -> Graph:
    """Fills ``graph.grads`` for the parameters ``names``, from the scalar output ``of``. Returns ``graph``."""
    found = gradients(graph, graph.find(of), [graph.params[name] for name in names], rules=rules)
    for name in names:
        value = found.get(graph.params[name])
        if value is not None:
            graph.grads[name] = value
            name_gradient(value, name)
    return graph


def name_gradient(value: Value, name: str) -> None:
    """Calls a gradient ``grad:name`` unless it carries a name already."""
    if value.kind == "node" and not value.name:
        value.name = f"grad:{name}"


def _depending_on(graph: Graph, wrt: Sequence[Value]) -> set[Value]:
    """Values that change with one of ``wrt``."""
    active = set(wrt)
    for node in graph.nodes:
        if node.op.name != "stop_gradient" and any(value in active for value in node.inputs if value is not None):
            active.update(value for value in node.outputs if value.type.dtype in ("f32", "f64"))
    return active


def _seed(b: Builder, value: Value, seed: Value | None) -> Value:
    if seed is None:
        if value.type.shape != ():
            raise ValueError(f"{value.name or 'the output'} is {value.type}, not a scalar: reduce it (sum, mean) or give a seed for it")
        return b.const(1.0)
    if seed.type != value.type:
        raise ValueError(f"the seed of {value.name or 'the output'} is {seed.type}, expected {value.type}")
    return seed


def _add(b: Builder, sums: dict[Value, Value], value: Value, dvalue: Value) -> None:
    before = sums.get(value)
    sums[value] = dvalue if before is None else b.op("binary", before, dvalue, kind="add")


def _rule_for(node: Node, rules: Mapping[str, Rule]) -> Rule | None:
    kind = node.attrs.get("kind", node.op.name)
    for key in (f"{node.path}:{kind}", kind, node.op.name):
        if key in rules:
            return rules[key]
    return None


@dataclass(frozen=True, slots=True)
class _Region:
    """The nodes of a module whose gradient is overridden as a whole."""

    rule: Rule
    inputs: tuple[Value, ...]
    output: Value


def _regions(graph: Graph, rules: Mapping[str, Rule], seeds: Mapping[Value, Value | None]) -> dict[Node, _Region]:
    """For every node inside a module that ``rules`` name by path its region."""
    regions: dict[Node, _Region] = {}
    readers = graph.consumers()
    for path, rule in rules.items():
        nodes = [node for node in graph.nodes if node.path == path or node.path.startswith(path + ".")]
        if not nodes:
            continue
        inside = set(nodes)
        made = [value for node in nodes for value in node.outputs]
        leaving = [v for v in made if v in seeds or any(reader not in inside for reader in readers.get(v, ()))]
        if len(leaving) != 1:
            names = ", ".join(repr(value) for value in leaving)
            raise ValueError(f"a rule for module {path!r} needs one tensor that leaves it, there are {len(leaving)} ({names})")
        read = [value for node in nodes for value in node.inputs if value is not None and value.kind in ("input", "node")]
        entering = tuple(dict.fromkeys(value for value in read if value.producer not in inside))
        regions |= dict.fromkeys(nodes, _Region(rule, entering, leaving[0]))
    return regions


def _apply_rule(trace: Trace, rule: Rule, node: Node, sources: Sequence[Value | None], douts: Sequence[Value | None]) -> list[Value | None]:
    def wrap(values: Sequence[Value | None]) -> Any:
        tensors = tuple(None if value is None else Tensor(value, trace) for value in values)
        return tensors[0] if len(tensors) == 1 else tensors

    trace.builder.path = node.path
    with trace:
        result = rule(wrap(sources), wrap(node.outputs), wrap(douts))
    results = result if isinstance(result, (tuple, list)) else (result,)
    if len(results) != len(sources):
        raise ValueError(f"the rule for {describe(node)} gives {len(results)} gradients for {len(sources)} inputs")
    found: list[Value | None] = []
    for item in results:
        if item is not None and not isinstance(item, Tensor):
            raise TypeError(f"the rule for {describe(node)} must return symbolic tensors (or None), not {type(item).__name__}")
        found.append(None if item is None else item.value)
    return found
