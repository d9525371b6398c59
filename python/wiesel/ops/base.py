"""What an op is: shape rule, gradient rule, lowering, NumPy reference and cost, together in one file per op.

Adding an op is one file here, one in ``cpp/ops/``, a case file in ``tests/cases/`` and a line in ``cpp/ops/ops.inc``;
``docs/adding-an-op.md`` walks through it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np

    from wiesel.graph.ir import Builder, Node, Type, Value
    from wiesel.program.emit import Emitter


@dataclass(frozen=True, slots=True)
class Cost:
    """Work of one application, for a batch of one sample: multiply-adds and other floating-point operations."""

    macs: int = 0
    flops: int = 0

    @property
    def operations(self) -> int:
        """All floating-point operations: a multiply-add is two."""
        return 2 * self.macs + self.flops


class Op:
    """One operation of the graph. Subclasses are stateless; ``register`` makes the one instance."""

    name: ClassVar[str]
    """Name in graphs, in ``explain`` and (unless the lowering says otherwise) of the opcode."""

    defaults: ClassVar[Mapping[str, Any]] = {}
    """Every attribute the op knows, with its default."""

    in_place: ClassVar[Sequence[tuple[int, int]]] = ()
    """(input, output) pairs that the kernels allow to share storage exactly."""

    alias: ClassVar[bool] = False
    """The output is the first input's storage under other extents (reshape, flatten, stop_gradient): no step, ``lower`` is not asked."""

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        """Inputs and outputs of ``node`` that may be some of the channels of a larger tensor: rows with gaps between them."""
        return (), ()

    unread: ClassVar[Sequence[int]] = ()
    """Inputs of which only the extents are looked at: they cost no bytes."""

    dtypes: ClassVar[Mapping[int, Sequence[str]]] = {}
    """Element types that input ``i`` may have, the preferred one first; inputs not named here are f32. Arrays given to
    ``dispatch.call`` are converted accordingly: integers to i32 (range-checked) where f32 is not meant, uint8 stays where u8 is named."""

    def complete(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        unknown = attrs.keys() - self.defaults.keys()
        if unknown:
            raise TypeError(f"{self.name}: unknown attribute {sorted(unknown)[0]!r}; known: {', '.join(sorted(self.defaults))}")
        return {**self.defaults, **attrs}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        """Types of the outputs; raises ValueError that names the shapes and the mend."""
        raise NotImplementedError

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        """Gradients for the inputs that are ``needed`` (None elsewhere), built with ``b`` from those of the outputs.

        A ``None`` in ``douts`` is an output that nobody depends on. Ops without such a rule raise NotImplementedError.
        """
        raise NotImplementedError(f"{node.path or self.name}: {self.name} has no gradient rule; no derivative can go through it")

    def lower(self, em: Emitter, node: Node) -> None:
        """Emits the steps. By default one step whose opcode has the op's name, operands as the node's, attributes as in ``steps_attrs``."""
        em.step(
            self.name,
            [None if v is None else em.tensor(v) for v in node.inputs],
            [em.tensor(v) for v in node.outputs],
            self.unread,
            **self.step_attrs(node.attrs),
        )

    def step_attrs(self, attrs: Mapping[str, Any]) -> dict[str, int | float]:
        """The node's attributes as numbers under the names of ``cpp/ops/attrs.inc``. By default as they are."""
        return dict(attrs)

    def reference(self, attrs: Mapping[str, Any], *arrays: Any, **named: Any) -> tuple[np.ndarray, ...]:
        """The same in plain NumPy: documentation, oracle and float64 ground for gradient checks. Keeps the inputs' float dtype.

        Subclasses name their operands: ``reference(self, attrs, x, w, bias=None)``; absent ones are None.
        """
        raise NotImplementedError

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        """By the direct formula, whatever the algorithm. The bytes that a step moves need no saying: its operands, once each."""
        return Cost(flops=sum(t.elements(1) for t in outs))


_registry: dict[str, Op] = {}


def register(cls: type[Op]) -> type[Op]:
    """Class decorator: makes the op known under its name."""
    if cls.name in _registry:
        raise ValueError(f"op {cls.name!r} is registered twice")
    _registry[cls.name] = cls()
    return cls


def find(name: str) -> Op:
    try:
        return _registry[name]
    except KeyError:
        raise KeyError(f"no op named {name!r}; known: {', '.join(sorted(_registry))}") from None


def all_ops() -> Mapping[str, Op]:
    return _registry
