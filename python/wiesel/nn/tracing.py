"""How a module tree becomes a graph: paths, the shape trace of error messages, and the names of inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wiesel.graph.build import Trace, flatten_outputs
from wiesel.graph.ir import Type
from wiesel.graph.tensor import Tensor

if TYPE_CHECKING:
    from wiesel.nn.module import Module
    from wiesel.nn.parameter import Variable

_active: ContextVar[ModuleTrace | None] = ContextVar("wiesel_module_trace", default=None)

_SHOWN = 8
"""Lines of the shape trace in an error message."""


def active() -> ModuleTrace | None:
    """The trace of a net that is being recorded in this thread, if any."""
    return _active.get()


class ModuleTrace(Trace):
    """A trace of the module tree below ``root``, whose layers' paths are fixed beforehand.

    ``update_states=False`` leaves running statistics as they are.
    """

    def __init__(self, root: Module, prefix: str = "", *, training: bool = False, update_states: bool = True) -> None:
        super().__init__(training=training)
        self.prefix = prefix
        self.update_states = update_states
        self.paths: dict[int, str] = {id(module): path for path, module in root.named_modules(prefix)}
        self.variables: dict[str, Variable] = {}
        self.kinds: dict[str, str] = {}
        """Class name of the module at each path that ran."""
        self.shapes: list[tuple[str, str, str]] = []
        """(path, class, output shapes) of the layers that ran so far, in order."""
        self.label_limits: dict[str, int] = {}
        """Classes that an input of class numbers may name, by the input's name (noted by losses)."""
        self._active_tokens: list[Any] = []

    def __enter__(self) -> ModuleTrace:
        super().__enter__()
        self._active_tokens.append(_active.set(self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        _active.reset(self._active_tokens.pop())
        super().__exit__(kind, error, where)

    @contextmanager
    def module(self, module: Module) -> Iterator[str]:
        """Enters ``module`` at its own path, wherever it is called from."""
        path = self.paths.get(id(module))
        if path is None:
            raise ValueError(
                f"{self.path or 'forward'}: the {type(module).__name__} called here belongs to no attribute of the net; "
                "make layers in __init__ and keep them as attributes, so that they keep their weights"
            )
        with self.root(), self.scope(path, module):
            self.kinds[path] = type(module).__name__
            yield path

    def variable(self, variable: Variable, path: str, name: str, kind: str) -> Tensor:
        """The symbolic tensor of a parameter or state that the module at ``path`` calls ``name``."""
        full = f"{path}.{name}" if path else name
        self.variables[full] = variable
        with self.root():
            return (self.param if kind == "param" else self.state)(full, Type(variable.shape))

    def record(self, path: str, kind: str, outputs: Any) -> None:
        """Notes that the module at ``path`` has run, for later error messages."""
        self.shapes.append((path or "(the net)", kind, shapes_of(outputs)))

    def located(self, error: Exception, path: str, kind: str, inputs: Sequence[Any]) -> Exception:
        """``error`` with the layer's path and the shapes on the way to it; made once, by the innermost layer."""
        if getattr(error, "located", False):
            return error
        text = str(error)
        for prefix in (f"{self.path!r}: ", f"{path!r}: ", f"{kind.lower()}: "):
            text = text.removeprefix(prefix)
        name = f"{path} ({kind})" if path else kind
        lines = [f"{name}: {text}", "  shapes on the way:"]
        lines += [f"    {where:<24} {what:<18} {shape}" for where, what, shape in self.shapes[-_SHOWN:]]
        lines += [f"    {path or '(the net)':<24} {kind:<18} {shapes_of(inputs)} -> error"]
        found: Exception = (ValueError if isinstance(error, ValueError) else TypeError)("\n".join(lines))
        found.located = True  # type: ignore[attr-defined]
        return found


def shapes_of(tensors: Any) -> str:
    """Types of a tensor, tuple or dict of them, for messages."""
    if isinstance(tensors, Tensor):
        return str(tensors.type)
    try:
        return ", ".join(str(tensor.type) for _, tensor in flatten_outputs(tensors))
    except TypeError:
        return type(tensors).__name__


def input_names(count: int) -> list[str]:
    """``["input"]``, or ``["input.0", "input.1", …]`` for a net with several."""
    return ["input"] if count == 1 else [f"input.{i}" for i in range(count)]


class Outputs:
    """The structure of what ``forward`` returned: one tensor, a tuple or a dict, nested at will; leaves have names."""

    def __init__(self, tensors: Any) -> None:
        self.leaves: dict[str, Tensor] = dict(flatten_outputs(tensors, "output"))
        self._shape = self._skeleton(tensors, "output")

    @property
    def single(self) -> bool:
        """Whether ``forward`` returned one tensor."""
        return isinstance(self._shape, str)

    def described(self) -> Any:
        """The structure with the leaves' names."""
        return self._shape

    def _skeleton(self, tensors: Any, path: str) -> Any:
        if isinstance(tensors, Tensor):
            return path
        if isinstance(tensors, dict):
            return {key: self._skeleton(member, f"{path}.{key}") for key, member in tensors.items()}
        return tuple(self._skeleton(member, f"{path}.{i}") for i, member in enumerate(tensors))

    def rebuild(self, found: Any) -> Any:
        """The same structure with ``found[name]`` in place of each leaf."""
        return self._filled(self._shape, found)

    @staticmethod  # a function within rebuild that calls itself would hold the arrays until the next collection
    def _filled(shape: Any, found: Any) -> Any:
        if isinstance(shape, str):
            return found[shape]
        if isinstance(shape, dict):
            return {key: Outputs._filled(member, found) for key, member in shape.items()}
        return tuple(Outputs._filled(member, found) for member in shape)
