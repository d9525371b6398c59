"""The memory of a model: flat buffers of parameters, states and gradients that all its programs share."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wiesel.graph.ir import Type
from wiesel.nn.parameter import Parameter, State, Variable
from wiesel.program.layout import Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wiesel import _core


class Store:
    """Parameters and states by name, in the order of the module tree, with their memory.

    ``weight_version`` counts writes to parameters and states; a program whose folded or packed weights are older prepares again.
    Variables that already have values (because a part of the net was built before) keep them; others are initialised with ``seed``.
    """

    def __init__(self, params: Mapping[str, Parameter], states: Mapping[str, State], seed: int) -> None:
        from wiesel import _core

        self.params = dict(params)
        self.states = dict(states)
        self.seed = seed
        self.lock = threading.RLock()
        self.weight_version = 0
        values = {name: initial_value(v, name, seed) for name, v in (*self.params.items(), *self.states.items())}
        self.layout = self.layout_for({})
        self.param_buffer = _core.Buffer(self.layout.param_bytes)
        self.state_buffer = _core.Buffer(self.layout.state_bytes)
        self._grad_buffer: _core.Buffer | None = None
        self._grad_layout: Layout | None = None
        self.without_grad: Collection[str] = ()
        """Parameters whose gradients the last step did not write (``Trainer(keep_grads=False)``)."""
        for name, variable in (*self.params.items(), *self.states.items()):
            variable.store, variable.name = self, name
            self._writable(variable)[...] = values[name]

    def layout_for(self, groups: Mapping[str, int]) -> Layout:
        """The layout with the parameters that are frozen now; offsets of parameters never change."""
        return Layout.of(
            {name: Type(p.shape) for name, p in self.params.items()},
            {name: Type(s.shape) for name, s in self.states.items()},
            frozen=self.frozen(),
            groups=groups,
        )

    def inference_layout(self) -> Layout:
        """The layout of programs without gradients."""
        return Layout.of(
            {name: Type(p.shape) for name, p in self.params.items()},
            {name: Type(s.shape) for name, s in self.states.items()},
            frozen=self.params.keys(),
        )

    def frozen(self) -> Collection[str]:
        return {name for name, p in self.params.items() if not p.trainable}

    @property
    def grad_buffer(self) -> _core.Buffer:
        """Gradients of the trainable parameters; made when a program first wants it, anew when other parameters are frozen."""
        from wiesel import _core

        layout = self.layout_for({})
        if self._grad_buffer is None or self._grad_layout != layout:
            self._grad_buffer = _core.Buffer(layout.grad_bytes)
            self._grad_layout = layout
        return self._grad_buffer

    def view(self, variable: Variable) -> NDArray[np.float32]:
        """Read-only view of the values."""
        return self._view(variable, writable=False)

    def grad_view(self, parameter: Parameter) -> NDArray[np.float32] | None:
        if self._grad_buffer is None or self._grad_layout is None:
            return None
        segment = self._grad_layout.params[parameter.name]
        if segment.frozen or parameter.name in self.without_grad:
            return None
        return self._grad_buffer.view(segment.grad_offset, parameter.shape, "f32")

    def assign(self, variable: Variable, values: Any) -> None:
        array = np.asarray(values)
        if array.shape != variable.shape:
            raise ValueError(f"{variable.name} has shape {variable.shape}, the values assigned have {array.shape}")
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{variable.name} takes numbers, got dtype {array.dtype}")
        with self.lock:
            self._writable(variable)[...] = array
            self.weight_version += 1

    def states_array(self) -> NDArray[np.uint8]:
        """Writable bytes of all states, for a snapshot round a step that may be interrupted."""
        view: NDArray[np.uint8] = self.state_buffer.view(0, (self.layout.state_bytes,), "u8", True)
        return view

    def grads_array(self, layout: Layout) -> NDArray[np.uint8]:
        view: NDArray[np.uint8] = self.grad_buffer.view(0, (layout.grad_bytes,), "u8", True)
        return view

    def _view(self, variable: Variable, *, writable: bool) -> NDArray[np.float32]:
        if isinstance(variable, Parameter):
            buffer, segment = self.param_buffer, self.layout.params[variable.name]
        else:
            buffer, segment = self.state_buffer, self.layout.states[variable.name]
        view: NDArray[np.float32] = buffer.view(segment.offset, variable.shape, "f32", writable)
        return view

    def _writable(self, variable: Variable) -> NDArray[np.float32]:
        return self._view(variable, writable=True)


def initial_value(variable: Variable, name: str, seed: int) -> NDArray[np.float32]:
    """The value that ``variable`` has already, or else its initial one."""
    if variable.store is not None:
        return np.array(variable.value)
    values = np.asarray(variable.initialiser(variable.shape, seed, name), np.float32)
    if values.shape != variable.shape:
        raise ValueError(f"{name}: its initialiser gave shape {values.shape}, expected {variable.shape}")
    return values
