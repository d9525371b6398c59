"""Parameters and states of a model: named places in its flat buffers (see ``wiesel.nn.store``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wiesel.nn import init as initial
from wiesel.nn.structure import touch

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from wiesel.nn.store import Store


class Variable:
    """A named float32 array that belongs to a model: a parameter, or a state such as a running mean.

    ``value`` is a read-only view of the model's memory; writing goes through ``assign``, which lets every program that holds packed or
    folded copies of the weights remake them.
    """

    def __init__(self, shape: tuple[int, ...], initialiser: initial.Initialiser) -> None:
        self.shape = tuple(int(extent) for extent in shape)
        self.initialiser = initialiser
        self.name = ""
        self.store: Store | None = None

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    @property
    def value(self) -> NDArray[np.float32]:
        """Read-only view of the current values."""
        return self._home().view(self)

    def assign(self, values: Any) -> None:
        """Sets the values; ``values`` has this shape, in any dtype that converts. Raises ValueError for another shape."""
        self._home().assign(self, values)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        values = self.value
        if copy or (dtype is not None and np.dtype(dtype) != values.dtype):
            return np.array(values, dtype=dtype)
        return values

    def _home(self) -> Store:
        if self.store is None:
            raise ValueError(f"{self.name or 'this parameter'} has no values yet: build the net first, e.g. net.build((28, 28, 1), seed=0)")
        return self.store

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, shape={self.shape})"


class Parameter(Variable):
    """A learned array. As an attribute of a module it is trained with it; inside ``forward`` that attribute is its symbolic tensor.

    Parameters
    ----------
    values : initial values, or a shape together with ``initialiser``.
    initialiser : see ``wiesel.nn.init``; by default zeros.
    trainable : a frozen parameter (False) has no gradient and no optimizer memory.

    >>> from wiesel import nn
    >>> nn.Parameter([1.0, 1.0]).shape
    (2,)
    """

    def __init__(
        self,
        values: Any = None,
        *,
        shape: tuple[int, ...] | None = None,
        initialiser: initial.Initialiser | None = None,
        trainable: bool = True,
    ) -> None:
        if (values is None) == (shape is None):
            raise TypeError("Parameter takes initial values, or shape= (with initialiser=)")
        if values is not None:
            array = np.asarray(values, np.float32)
            super().__init__(array.shape, initial.array(array))
        else:
            assert shape is not None
            super().__init__(shape, initialiser or initial.constant(0.0))
        self._trainable = trainable

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, flag: bool) -> None:
        if flag != self._trainable:
            self._trainable = bool(flag)
            touch(self)

    @property
    def grad(self) -> NDArray[np.float32] | None:
        """Read-only view of the gradient that the last step left, or None when there is none: frozen, never trained, or a large dense
        weight that the step updated without writing its gradient (``Trainer(keep_grads=True)`` writes them all)."""
        return None if self.store is None else self.store.grad_view(self)


class State(Variable):
    """An array that forward passes update while training, such as a running mean; saved with the parameters, never trained."""
