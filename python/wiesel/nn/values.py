"""Values in and out of nets: state dicts, classes, probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wiesel.nn.tracing import active

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wiesel.nn.module import Module


def load_values(net: Module, values: Mapping[str, Any] | str, *, strict: bool) -> None:
    """See ``Module.load_state_dict``."""
    if active() is not None:
        raise TypeError("load_state_dict cannot be called inside forward")
    source = read_safetensors(values) if isinstance(values, str) or hasattr(values, "__fspath__") else values
    variables = dict(net.named_variables())
    if not variables and source:
        raise ValueError("the net has no parameters yet: build it first, e.g. net.build((28, 28, 1)), then load")
    missing = [name for name in variables if name not in source]
    unexpected = [name for name in source if name not in variables]
    wrong = [
        f"{name}: the net has {variables[name].shape}, the values {np.shape(source[name])}"
        for name in variables
        if name in source and np.shape(source[name]) != variables[name].shape
    ]
    problems = []
    if strict and missing:
        problems.append("missing: " + _listed(missing))
    if strict and unexpected:
        problems.append("unexpected: " + _listed(unexpected))
    if wrong:
        problems.append("wrong shapes: " + _listed(wrong))
    if problems:
        raise ValueError("these values do not fit the net; nothing was changed\n  " + "\n  ".join(problems))
    for name, variable in variables.items():
        if name in source:
            variable.assign(source[name])


def _listed(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")


def read_safetensors(path: Any) -> Mapping[str, NDArray[Any]]:
    """The arrays of a ``.safetensors`` file."""
    load_file = _safetensors().load_file
    found: Mapping[str, NDArray[Any]] = load_file(path)
    return found


def write_safetensors(net: Module, path: Any) -> None:
    """Writes ``net.state_dict()`` as a ``.safetensors`` file."""
    _safetensors().save_file({name: np.ascontiguousarray(value) for name, value in net.state_dict().items()}, path)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError("files of the safetensors format need the package: pip install wiesel[safetensors]") from None
    return safetensors.numpy


def single_output(net: Module, outputs: Any) -> NDArray[np.float32]:
    if not isinstance(outputs, np.ndarray):
        raise TypeError(f"{type(net).__name__} has several outputs; call the net and treat each by itself")
    if outputs.ndim != 2:
        raise ValueError(f"classes are read from outputs of shape (n, classes); this net gives {outputs.shape}")
    return outputs


def class_of(net: Module, outputs: Any) -> Any:
    """The index of the largest output of each sample, or the name of that class."""
    index = single_output(net, outputs).argmax(axis=1)
    names = net.class_names
    if names is None:
        return index
    return np.array(names, dtype=object)[index] if len(names) == outputs.shape[1] else index


def probabilities(net: Module, x: Any) -> NDArray[np.float32]:
    """See ``Module.predict_proba``."""
    from wiesel import ops

    outputs = single_output(net, net(x))
    if net.engine.ends_in("softmax"):
        return outputs
    found: NDArray[np.float32] = ops.softmax(outputs)
    return found
