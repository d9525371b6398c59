"""``Module``: the base of layers and nets."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from wiesel.nn import structure
from wiesel.nn.init import Initialiser
from wiesel.nn.parameter import Parameter, State, Variable
from wiesel.nn.tracing import active

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from wiesel.graph.tensor import Tensor
    from wiesel.nn.engine import Engine
    from wiesel.profile import Profile

Shape: TypeAlias = "tuple[int, ...]"


class Module:
    """A layer or a net: attributes that are modules or parameters, and a ``forward`` that composes them.

    ``forward`` takes any number of tensors and returns a tensor, or a tuple or dict of tensors. It runs once per input shape, with
    symbolic tensors; what it calls becomes a program. Called with arrays, the net runs in inference mode, on NumPy arrays of any float
    or integer dtype and any strides.

    >>> from wiesel import nn
    >>> class Block(nn.Module):
    ...     def __init__(self, channels):
    ...         self.conv = nn.Conv2d(channels, 3, padding="same")
    ...         self.norm = nn.BatchNorm2d()
    ...     def forward(self, x):
    ...         return nn.activate(self.norm(self.conv(x)) + x, "relu")
    >>> sorted(Block(4).build((8, 8, 4)).parameters())
    ['conv.bias', 'conv.weight', 'norm.bias', 'norm.weight']

    Changing an attribute of a module invalidates the programs of every net that it belongs to.
    """

    class_names: list[str] | None
    """Names of the classes, in the order of the outputs; ``predict`` answers with them. Saved with the net."""

    _members: dict[str, Module | Variable]
    _arguments: dict[str, Any]
    _engine: Engine | None
    _quick: tuple[int, Any] | None
    _stamp: int

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        put = object.__setattr__
        put(self, "_members", {})
        put(self, "_engine", None)
        put(self, "_quick", None)
        put(self, "class_names", None)
        put(self, "_arguments", {})
        structure.touch(self)
        if cls.__init__ is object.__init__:
            if args or kwargs:
                raise TypeError(f"{cls.__name__}() takes no arguments")
            return self
        try:
            bound = inspect.signature(cls.__init__).bind(self, *args, **kwargs)
        except TypeError:
            return self  # __init__ says what is wrong
        bound.apply_defaults()
        given = list(bound.arguments.items())[1:]
        put(self, "_arguments", {name: value for name, value in given if name != "extra" and not _holds_modules(value)})
        return self

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the module computes; subclasses say it."""
        raise TypeError(f"{type(self).__name__} has no forward(self, x, …)")

    # --- attributes -----------------------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (list, tuple)) and value and all(isinstance(item, Module) for item in value):
            from wiesel.nn.container import ModuleList

            value = ModuleList(value)
        if isinstance(value, (Module, Variable)):
            self.__dict__.pop(name, None)
            self._members[name] = value
        elif name in self._members and value is None:
            del self._members[name]
            object.__setattr__(self, name, None)
        else:
            self._members.pop(name, None)
            object.__setattr__(self, name, value)
        if name != "class_names" and active() is None:
            structure.touch(self)

    def __delattr__(self, name: str) -> None:
        if name in self._members:
            del self._members[name]
        else:
            object.__delattr__(self, name)
        structure.touch(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_members" not in self.__dict__:
            raise AttributeError(name)
        member = self._members.get(name)
        if member is None:
            mend = "; it exists once the net is built" if name in ("weight", "bias") else ""
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{mend}")
        trace = active()
        if isinstance(member, Variable) and trace is not None and id(self) in trace.paths:
            return trace.variable(member, trace.paths[id(self)], name, "state" if isinstance(member, State) else "param")
        return member

    # --- for layers, inside forward --------------------------------------------------------------------------------------------------

    @property
    def training(self) -> bool:
        """Inside ``forward``: whether a training program is being made."""
        trace = active()
        return trace is not None and trace.training

    def variable(self, name: str) -> Parameter | State | None:
        """The parameter or state ``name`` if an earlier build made it."""
        found = self._members.get(name)
        return found if isinstance(found, (Parameter, State)) else None

    def parameter(self, name: str, shape: Shape, initialiser: Initialiser) -> Any:
        """Inside ``forward``: the parameter ``name`` as a tensor; made on first build. Raises ValueError if it has another shape by now."""
        return self._obtain(name, shape, lambda: Parameter(shape=shape, initialiser=initialiser))

    def state(self, name: str, shape: Shape, initialiser: Initialiser) -> Any:
        """Inside ``forward``: the state ``name`` as a tensor; made on first build."""
        return self._obtain(name, shape, lambda: State(shape, initialiser))

    def latest(self, name: str) -> Any:
        """Inside ``forward``: the state ``name`` as the last ``update`` of this run left it (of a layer that is used twice)."""
        trace = active()
        assert trace is not None
        return trace.latest_state(getattr(self, name))

    def update(self, name: str, value: Tensor) -> None:
        """Inside ``forward``: the state ``name`` becomes ``value`` after a training step's forward pass."""
        trace = active()
        assert trace is not None
        if trace.update_states:
            trace.update_state(getattr(self, name), value)

    def _obtain(self, name: str, shape: Shape, make: Any) -> Any:
        found = self.variable(name)
        if found is None:
            found = make()
            self._members[name] = found
        elif found.shape != tuple(shape):
            raise ValueError(f"its {name} has shape {found.shape}; this input needs {tuple(shape)}")
        return getattr(self, name)

    # --- the tree --------------------------------------------------------------------------------------------------------------------

    def children(self) -> dict[str, Module]:
        """The modules that are attributes of this one, by name."""
        return {name: member for name, member in self._members.items() if isinstance(member, Module)}

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) of this module and all below it; one that is used twice comes once, under its first path."""
        seen: set[int] = set()

        def walk(module: Module, path: str, above: tuple[int, ...]) -> Iterator[tuple[str, Module]]:
            if id(module) in above:
                raise ValueError(f"the net has a cycle: {path!r} is a module that contains it; a feed-forward net has no loops")
            if id(module) in seen:
                return
            seen.add(id(module))
            yield path, module
            for name, child in module.children().items():
                yield from walk(child, f"{path}.{name}" if path else name, (*above, id(module)))

        yield from walk(self, prefix, ())

    def named_variables(self) -> Iterator[tuple[str, Variable]]:
        """(path, parameter or state), in the order of the tree; one that is shared comes once."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, member in module._members.items():
                if isinstance(member, Variable) and id(member) not in seen:
                    seen.add(id(member))
                    yield (f"{path}.{name}" if path else name), member

    def parameters(self) -> dict[str, Parameter]:
        """The parameters by path. Each converts to an array (``numpy.asarray(p)``, ``p.value``: read-only views) and has ``assign``."""
        return {path: v for path, v in self.named_variables() if isinstance(v, Parameter)}

    @property
    def parameter_count(self) -> int:
        """Number of learned numbers."""
        return sum(p.size for p in self.parameters().values())

    def freeze(self, frozen: bool = True) -> Self:
        """Makes all parameters below constants of training (no gradient, no optimizer memory), and batch normalisations use and keep
        their running statistics; ``freeze(False)`` undoes it. Returns self."""
        for parameter in self.parameters().values():
            parameter.trainable = not frozen
        for _, module in self.named_modules():
            if "frozen" in module.__dict__:
                module.frozen = frozen
        return self

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as they are now."""
        return {name: self.__dict__.get(name, value) for name, value in self._arguments.items()}

    # --- values ----------------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, NDArray[np.float32]]:
        """Copies of all parameters and states (running statistics) by path, in canonical layout."""
        return {path: variable.value.copy() for path, variable in self.named_variables()}

    def load_state_dict(self, values: Mapping[str, Any] | str, *, strict: bool = True) -> Self:
        """Sets parameters and states from a mapping name -> array, or from a ``.safetensors`` file (needs the package safetensors).

        Raises ValueError that lists all missing names, unexpected names and wrong shapes, before anything is written.
        With ``strict=False`` missing and unexpected names are passed over. Returns self.
        """
        from wiesel.nn.values import load_values

        load_values(self, values, strict=strict)
        return self

    # --- running ---------------------------------------------------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """What runs this module as a net of its own: its memory and programs."""
        if self._engine is None:
            from wiesel.nn.engine import Engine

            object.__setattr__(self, "_engine", Engine(self))
        assert self._engine is not None
        return self._engine

    def build(self, *input_shapes: Shape, seed: int = 0) -> Self:
        """Finds all shapes and initialises the parameters with ``seed``; a net that is not built is built by its first call or step.

        ``input_shapes`` are those of one sample, one per input: ``net.build((28, 28, 1))``. A net that is built keeps its values.
        Returns self.
        """
        self.engine.build(input_shapes, seed=seed)
        return self

    @property
    def built(self) -> bool:
        """Whether shapes and values of the parameters are known."""
        return self._engine is not None and self._engine.store is not None

    def __call__(self, *inputs: Any) -> Any:
        quick = self._quick
        if quick is not None and len(inputs) == 1 and quick[0] == structure.now():
            result = quick[1](inputs[0])
            if result is not None:
                return result
        trace = active()
        if trace is None:
            return self.engine.call(inputs)
        with trace.module(self) as path:
            kind = type(self).__name__
            try:
                outputs = self.forward(*inputs)
            except (ValueError, TypeError) as error:
                raise trace.located(error, path, kind, inputs) from error.__cause__
            trace.record(path, kind, outputs)
            return trace.name(outputs)

    def run(self, *inputs: Any, fetch: Sequence[str] | str) -> dict[str, NDArray[Any]]:
        """Arrays of the tensors named by ``fetch`` (module paths such as "features.3", "input", parameter names), in inference mode.

        >>> import numpy as np
        >>> from wiesel import nn
        >>> net = nn.Sequential(nn.Linear(3), nn.ReLU())
        >>> net.run(np.ones((2, 5)), fetch=["0", "1"])["0"].shape
        (2, 3)
        """
        return self.engine.run(inputs, [fetch] if isinstance(fetch, str) else list(fetch))

    def predict(self, x: Any) -> Any:
        """The class of each sample: names if the net has ``class_names``, else indices (int64). Any number of samples."""
        from wiesel.nn.values import class_of

        return class_of(self, self(x))

    def predict_proba(self, x: Any) -> NDArray[np.float32]:
        """Probabilities (n, classes), rows summing to 1: the softmax of the outputs, unless the net ends in one."""
        from wiesel.nn.values import probabilities

        return probabilities(self, x)

    def summary(self, *input_shapes: Shape, config: bool = False) -> str:
        """A table of layers: output shapes, parameters, multiply-adds, memory, receptive field; see ``wiesel.summary.summarize``."""
        from wiesel.summary import summarize

        return summarize(self, *input_shapes).text(config=config)

    def profile(self, *inputs: Any, runs: int = 10) -> Profile:
        """Where the time of inference on ``inputs`` goes, step by step: see ``wiesel.profile.Profile``. Printed, a table.

        Medians over ``runs`` runs after one that is not counted. At most a planned batch of the inputs is taken.

        >>> import numpy as np
        >>> from wiesel import nn
        >>> found = nn.Sequential(nn.Linear(4)).build((16,)).profile(np.ones((2, 16)), runs=3)
        >>> [(row.opcode, row.path, row.flops) for row in found.rows]
        [('matmul', '0', 256)]
        """
        from wiesel.profile import profile_net

        return profile_net(self, inputs, runs=runs)

    def release(self) -> None:
        """Gives back the memory of all programs; parameters stay. The next call compiles again."""
        if self._engine is not None:
            self._engine.release()
        object.__setattr__(self, "_quick", None)

    def __repr__(self) -> str:
        children = self.children()
        if not children:
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.config().items())})"
        lines = [f"  ({name}): {child!r}".replace("\n", "\n  ") for name, child in children.items()]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])


def _holds_modules(value: Any) -> bool:
    """Whether an argument is made of modules: those are children, not settings."""
    if isinstance(value, Mapping):
        return any(_holds_modules(member) for member in value.values())
    return isinstance(value, Module) or (isinstance(value, (tuple, list)) and any(_holds_modules(member) for member in value))
