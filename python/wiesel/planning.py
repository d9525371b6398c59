"""What a program will do, the memory and the time it will take, before anything runs: ``plan`` and ``explain``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wiesel.graph.ir import BATCH, Type
from wiesel.program.layout import align

if TYPE_CHECKING:
    from wiesel import optim
    from wiesel.losses import Loss
    from wiesel.nn.module import Module
    from wiesel.probe import Machine
    from wiesel.program.compile import Compiled, PlannedTensor


@dataclass(frozen=True)
class NetPlan:
    """The memory of one program of a net, in bytes, and the time of a run, in seconds."""

    n: int
    """The planned batch: any smaller one runs in the same memory."""
    arena: int
    """Activations and gradients between layers, placed by lifetime; the same on every machine."""
    workspace: int
    """Scratch of the kernels, for this machine's instruction set and threads."""
    prepared: int
    """Packed and folded copies of weights."""
    parameters: int
    gradients: int
    states: int
    optimizer: int
    tensors: tuple[PlannedTensor, ...]
    """What lies where in the arena, and from which step to which."""
    compiled: Compiled = field(repr=False, compare=False)
    """The program itself; it is on no memory yet."""

    @property
    def seconds(self) -> float:
        """Predicted seconds of a run: a training step, or inference on the batch. Steps of ``prepare`` do not count (S-37).

        A roofline per step with the figures of ``wl.machine()``, which are measured when this is first asked for; within about a fifth on a
        machine that does nothing else (docs/decisions/0005-predicted-time.md). Nothing is chosen by it.

        >>> import wiesel as wl
        >>> from wiesel import nn
        >>> few, many = (wl.plan(nn.Conv2d(k, 3), (32, 64, 64, 16), training=False).seconds for k in (16, 64))
        >>> few < many
        True
        """
        from wiesel.probe import machine

        return self.seconds_on(machine())

    def seconds_on(self, machine: Machine) -> float:
        """``seconds`` on a machine with these figures."""
        from wiesel.predict import predicted_seconds

        return predicted_seconds([step for step in self.compiled.steps(self.n) if step["entry"] != "prepare"], machine)

    @property
    def memory(self) -> int:
        """All of it: what running takes, known before the first step."""
        return self.arena + self.workspace + self.prepared + self.parameters + self.gradients + self.states + self.optimizer

    def __str__(self) -> str:
        parts = ("arena", "workspace", "prepared", "parameters", "gradients", "states", "optimizer")
        lines = [f"memory for a batch of {self.n}: {show_bytes(self.memory)}"]
        lines += [f"  {part:<12}{show_bytes(getattr(self, part)):>12}" for part in parts if getattr(self, part)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Explanation:
    """The steps of a program: which kernel each uses, and why faster ones were refused. ``str()`` is a table."""

    steps: tuple[dict[str, Any], ...]
    """Per step: entry, opcode, path, algorithm, kernel, blocking, refused, workspace, inputs, outputs."""

    def __str__(self) -> str:
        rows = [("entry", "step", "path", "output", "algorithm", "kernel", "blocking")]
        notes: list[list[str]] = [[]]
        for step in self.steps:
            output = next((f"{shape_text(o['shape'])}" for o in step["outputs"] if o is not None), "")
            cells = (step["entry"], step["opcode"], step["path"], output, step["algorithm"], step["kernel"], step["blocking"])
            rows.append(tuple(str(cell) for cell in cells))  # type: ignore[arg-type]
            notes.append([f"    refused: {reason}" for reason in step["refused"]])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = []
        for row, below in zip(rows, notes, strict=True):
            lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
            lines += below
        return "\n".join(lines)

    def __iter__(self) -> Any:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def plan(
    net: Module,
    input_shape: Sequence[int],
    *more_shapes: Sequence[int],
    training: bool = False,
    loss: Loss = "cross_entropy",
    optimizer: optim.Optimizer | None = None,
    input_dtype: str = "f32",
) -> NetPlan:
    """Memory and time of running ``net`` on batches of ``input_shape`` (with the batch axis), or of training it; nothing is run.

    An unbuilt net is built. For training the loss (targets: class numbers for "cross_entropy" and "hinge", else floats like the
    outputs) and optimizer count too; by default cross-entropy and SGD with momentum.

    >>> import wiesel as wl
    >>> from wiesel import nn
    >>> wl.plan(nn.Linear(10), (32, 64), training=True).gradients
    2624
    """
    compiled, n = compile_for(net, (input_shape, *more_shapes), training=training, loss=loss, optimizer=optimizer, input_dtype=input_dtype)
    memory = compiled.program.memory()
    taken = sum(align(4 * compiled.layout.params[name].count) for name in compiled.taken)  # pages that nobody touches are no memory
    return NetPlan(
        n=n,
        arena=memory["arena"],
        workspace=memory["workspace"],
        prepared=memory["prepared"],
        parameters=memory["params"],
        gradients=memory["grads"] - taken,
        states=memory["state"],
        optimizer=memory["opt"],
        tensors=compiled.plan.tensors,
        compiled=compiled,
    )


def explain(
    net: Module,
    input_shape: Sequence[int],
    *more_shapes: Sequence[int],
    training: bool = False,
    loss: Loss = "cross_entropy",
    optimizer: optim.Optimizer | None = None,
    input_dtype: str = "f32",
) -> Explanation:
    """Per step of the program for batches of ``input_shape``: algorithm, kernel, blocking, and one line per refused faster candidate.

    ``print`` shows a table; ``.steps`` is the same as data. The reasons come from the code that chose. Arguments as of ``plan``; for a
    built net the batch axis may be left out: a batch of one.
    """
    compiled, _ = compile_for(net, (input_shape, *more_shapes), training=training, loss=loss, optimizer=optimizer, input_dtype=input_dtype)
    return Explanation(tuple(compiled.program.steps()))


def compile_for(
    net: Module,
    input_shapes: Sequence[Sequence[int]],
    *,
    training: bool,
    loss: Loss = "cross_entropy",
    optimizer: optim.Optimizer | None = None,
    input_dtype: str = "f32",
) -> tuple[Compiled, int]:
    """The program for these shapes (with the batch axis), not put on any memory, and its batch."""
    from wiesel.program.compile import compile_graph

    shapes = [tuple(shape) for shape in input_shapes]
    known = net.engine.sample_types
    if len(known) == len(shapes) and all(len(shape) == type.rank - 1 for shape, type in zip(shapes, known, strict=True)):
        shapes = [(1, *shape) for shape in shapes]  # those of one sample
    if any(len(shape) < 2 or shape[0] < 1 for shape in shapes) or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(f"shapes with the batch axis are expected, such as (32, 224, 224, 3); got {', '.join(map(str, shapes))}")
    n = shapes[0][0]
    types = [Type((BATCH, *shape[1:]), input_dtype) for shape in shapes]
    engine = net.engine
    with engine.lock:
        if training:
            return _training_program(net, types, n, loss, optimizer), n
        graph, _ = engine.trace(types)
        assert engine.store is not None
        return compile_graph(graph, n=n, layout=engine.store.inference_layout()), n


def _training_program(net: Module, types: Sequence[Type], n: int, loss: Loss, optimizer: optim.Optimizer | None) -> Compiled:
    import numpy as np

    from wiesel.batches import Samples
    from wiesel.train import Trainer

    _, outputs = net.engine.trace(types)

    def target(part: Any, of: Any) -> Any:
        shape = outputs.leaves[of].type.concrete(1)
        return np.zeros(shape[0], np.int32) if part in ("cross_entropy", "hinge") else np.zeros(shape, np.float32)

    structure = outputs.described()
    if isinstance(structure, str):
        targets = target(loss, structure)
    elif isinstance(structure, Mapping):
        targets = {key: target(_of(loss, key), name) for key, name in structure.items()}
    else:
        targets = tuple(target(_of(loss, key), name) for key, name in enumerate(structure))
    inputs = tuple(np.zeros(type.concrete(1), np.uint8 if type.dtype == "u8" else np.float32) for type in types)
    return Trainer(net, loss, optimizer).training_program(Samples(inputs, targets), n)


def _of(loss: Loss, key: Any) -> Any:
    try:
        return loss[key]  # type: ignore[index]
    except (KeyError, IndexError, TypeError):
        return loss


def show_bytes(count: float) -> str:
    """A count of bytes for people: 1.5 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def shape_text(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) if shape else "scalar"
