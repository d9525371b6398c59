"""Tracing: a network's ``forward`` runs once with symbolic tensors, and what it calls becomes a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import numpy as np

from wiesel.graph.ir import NUMPY_DTYPES, Builder, Graph, Type, Value
from wiesel.graph.tensor import Tensor

_current: ContextVar[Trace | None] = ContextVar("wiesel_trace", default=None)


def current_trace() -> Trace:
    """The trace that is being recorded in this thread; RuntimeError when there is none."""
    trace = _current.get()
    if trace is None:
        raise RuntimeError("no network is being traced here: symbolic tensors live only inside a trace")
    return trace


class Trace:
    """A graph under construction.

    ``training`` tells layers which of their two behaviours is wanted. The path is the dotted name of the module whose ``forward``
    is running; nodes, parameters and states created there carry it.

    Example::

        with Trace(training=False) as trace:
            x = trace.input("x", Type((BATCH, 8, 8, 1)))
            with trace.scope("features.0"):
                w = trace.param("weight", Type((3, 3, 1, 4)))
                y = trace.name(ops.conv2d(x, w))
            trace.output("y", y)
        graph = trace.graph
    """

    def __init__(self, *, training: bool = False, graph: Graph | None = None, entry: str = "forward") -> None:
        """A trace of a new graph, or one that appends nodes of ``entry`` to ``graph``."""
        self.graph = Graph() if graph is None else graph
        self.training = training
        self.builder = Builder(self.graph, entry=entry)
        self._paths: list[str] = [""]
        self._modules: list[tuple[object, str]] = []
        self._scalars: dict[tuple[str, float], Value] = {}
        self._tokens: list[Any] = []

    def __enter__(self) -> Trace:
        self._tokens.append(_current.set(self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        _current.reset(self._tokens.pop())

    @property
    def path(self) -> str:
        """Module path of the code that is running now; empty at the top."""
        return self._paths[-1]

    def within(self, name: str) -> str:
        """``name`` as seen from the top: prefixed with the present path."""
        return f"{self.path}.{name}" if self.path and name else self.path or name

    @contextmanager
    def scope(self, name: str, module: object = None) -> Iterator[str]:
        """Enters the module called ``name`` below the present path and yields its full path.

        With ``module`` given, a module that is entered again while it is still running is refused: a network has no loops.
        """
        path = self.within(name)
        if module is not None:
            for position, (running, _) in enumerate(self._modules):
                if running is module:
                    loop = " -> ".join(repr(p) for _, p in [*self._modules[position:], (module, path)])
                    raise ValueError(f"the network has a cycle: {loop}; a feed-forward graph has no loops")
        self._paths.append(path)
        self._modules.append((module, path))
        self.builder.path = path
        try:
            yield path
        finally:
            self._paths.pop()
            self._modules.pop()
            self.builder.path = self.path

    @contextmanager
    def root(self) -> Iterator[None]:
        """Leaves all scopes for a while: for losses and other parts that belong to no module."""
        self._paths.append("")
        self.builder.path = ""
        try:
            yield
        finally:
            self._paths.pop()
            self.builder.path = self.path

    def input(self, name: str, type: Type) -> Tensor:
        """An array that is bound before each run. Names are global; an input asked for twice is the same tensor."""
        return self._source(self.graph.inputs, "input", name, type)

    def param(self, name: str, type: Type) -> Tensor:
        """The parameter ``path.name``. A module that is used twice gets the same tensor both times."""
        return self._source(self.graph.params, "param", self.within(name), type)

    def state(self, name: str, type: Type) -> Tensor:
        """The state ``path.name`` (a running statistic): kept between runs, no gradient."""
        return self._source(self.graph.states, "state", self.within(name), type)

    def update_state(self, state: Tensor, value: Tensor) -> None:
        """After the forward entry ``state`` has the contents of ``value``. A second update in one trace starts from the first."""
        name = state.value.name
        if self.graph.states.get(name) is not state.value:
            raise ValueError(f"{name or state!r} is not a state of this trace")
        if value.type != state.type:
            raise ValueError(f"state {name!r} has type {state.type}, its new value has {value.type}")
        self.graph.updates[name] = value.value

    def latest_state(self, state: Tensor) -> Tensor:
        """``state`` as left by the last ``update_state`` of this trace: what the next update of a module used twice starts from."""
        return Tensor(self.graph.updates.get(state.value.name, state.value), self)

    def const(self, array: Any, dtype: str = "f32") -> Tensor:
        """A constant of the program. Equal numbers share one value."""
        if np.ndim(array) == 0:
            key = (dtype, float(array))
            if key not in self._scalars:
                self._scalars[key] = self.builder.const(array, dtype)
            return Tensor(self._scalars[key], self)
        return Tensor(self.builder.const(array, dtype), self)

    def name(self, tensors: Any, path: str | None = None) -> Any:
        """Gives the output of the running module its path as a name; returns ``tensors``.

        A tuple's members are ``path.0``, ``path.1`` …, a dict's ``path.key``. The output of a later use of the same module is
        ``path@2``, ``path@3`` …
        """
        where = self.path if path is None else path
        for name, tensor in flatten_outputs(tensors, where):
            if not name:
                continue
            unique, use = name, 1
            while self.graph.names.get(unique, tensor.value) is not tensor.value:
                use += 1
                unique = f"{name}@{use}"
            self.graph.names[unique] = tensor.value
            if not tensor.value.name:
                tensor.value.name = unique
        return tensors

    def output(self, name: str, tensor: Tensor) -> None:
        """Makes ``tensor`` an output of the graph under ``name``."""
        if name in self.graph.outputs:
            raise ValueError(f"two outputs are named {name!r}")
        self.graph.outputs[name] = tensor.value

    def call(self, op_name: str, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        """Adds a node: ``dispatch.call`` in its symbolic mode. Arrays and numbers become constants."""
        from wiesel.ops.base import find

        op = find(op_name)
        values = [self._value(op_name, i, item, op.dtypes.get(i, ("f32",))) for i, item in enumerate(inputs)]
        try:
            result = self.builder.op(op_name, *values, **attrs)
        except (ValueError, TypeError) as error:
            if self.path and not str(error).startswith(repr(self.path)):
                raise type(error)(f"{self.path!r}: {error}") from None
            raise
        if isinstance(result, tuple):
            return tuple(Tensor(value, self) for value in result)
        return Tensor(result, self)

    def _source(self, table: dict[str, Value], kind: str, name: str, type: Type) -> Tensor:
        value = table.get(name)
        if value is None:
            if not name:
                raise ValueError(f"a {kind} needs a name")
            value = table[name] = Value(type, kind, name)
            self.graph.names.setdefault(name, value)
        elif value.type != type:
            raise ValueError(f"{name!r} is asked for as {type}, but is {value.type} elsewhere in this network")
        return Tensor(value, self)

    def _value(self, op_name: str, index: int, item: Any, allowed: Sequence[str]) -> Value | None:
        if item is None:
            return None
        if isinstance(item, Tensor):
            if item.trace is not self:
                raise ValueError(
                    f"{op_name}: input {index} ({item!r}) belongs to another trace; a tensor lives only while its network is traced"
                )
            return item.value
        from wiesel.ops.dispatch import to_array

        array = to_array(item, allowed, op_name, index)
        dtype = next(name for name, known in NUMPY_DTYPES.items() if known == array.dtype)
        return self.const(array, dtype).value


def flatten_outputs(tensors: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of a tensor, tuple, list or dict of them, nested at will."""
    if isinstance(tensors, Tensor):
        yield path, tensors
        return
    if isinstance(tensors, Mapping):
        members: Any = tensors.items()
    elif isinstance(tensors, (tuple, list)):
        members = enumerate(tensors)
    else:
        raise TypeError(
            f"{path or 'the network'}: forward returns a tensor, or a tuple, list or dict of tensors, not {type(tensors).__name__}"
        )
    for key, member in members:
        yield from flatten_outputs(member, f"{path}.{key}" if path else str(key))
