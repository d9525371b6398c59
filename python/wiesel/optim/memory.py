"""The optimizer's memory of one trainer: moments by the layout of the gradients, and what an interrupted step is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wiesel import _core
    from wiesel.optim.optimizers import Optimizer
    from wiesel.program.emit import Emitter
    from wiesel.program.layout import Layout


class OptimizerMemory:
    """The buffer ``opt``: the optimizer's moments, the clip factor, and a mark that entry update sets as its last step."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._buffer: _core.Buffer | None = None
        self._layout: Layout | None = None
        self._pending: dict[str, NDArray[Any]] = {}

    def buffer(self, layout: Layout) -> _core.Buffer:
        """The memory for this layout; where other parameters are frozen now, the moments that stay are carried over."""
        from wiesel import _core

        if self._buffer is None or self._layout != layout:
            kept = self.values()
            self._buffer, self._layout = _core.Buffer(self.optimizer.opt_bytes(layout) + 64), layout
            for name, values in kept.items():
                moment, parameter = name.split(".", 1)
                segment = layout.params.get(parameter)
                if segment is not None and not segment.frozen:
                    offset = int(moment.removeprefix("moment")) * layout.grad_bytes + segment.grad_offset
                    self._buffer.view(offset, segment.type.shape, "f32", True)[...] = values
            self._pending = {}
        return self._buffer

    def values(self) -> dict[str, NDArray[Any]]:
        """Copies of the moments: "moment0.features.0.weight" and so on."""
        if self._buffer is None or self._layout is None:
            return dict(self._pending)
        layout, found = self._layout, {}
        for moment in range(self.optimizer.moments):
            for name in layout.trainable:
                segment = layout.params[name]
                view = self._buffer.view(moment * layout.grad_bytes + segment.grad_offset, segment.type.shape, "f32")
                found[f"moment{moment}.{name}"] = np.array(view)
        return found

    def restore(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Takes over what ``values`` gave; the memory is made anew when it is next wanted."""
        self._buffer = self._layout = None
        self._pending = {name: np.array(array) for name, array in values.items()}

    def emit_mark(self, em: Emitter, layout: Layout) -> None:
        """The step that tells, after an interrupt, that the update has happened."""
        em.step("fill", [], [em.flat("opt", self.optimizer.opt_bytes(layout), 1, "updated")], value=1.0)

    def mark(self, layout: Layout) -> NDArray[np.float32]:
        """The mark: 1 once the update has happened; the trainer sets it to 0 before each run."""
        view: NDArray[np.float32] = self.buffer(layout).view(self.optimizer.opt_bytes(layout), (1,), "f32", True)
        return view
