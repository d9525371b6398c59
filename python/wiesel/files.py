"""``save`` and ``load``: nets as files. Nothing in a file is ever run; what is malformed raises ValueError.

GRPH holds the tree of built-in modules with their constructors' arguments; a net with modules of own classes is saved as its traced
graph instead and comes back as ``nn.GraphModule``, with the same parameter names. WGHT holds parameters and states in canonical
layout, META class names, input types and where the file comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wiesel.graph.ir import Type
from wiesel.nn.module import Module
from wiesel.nn.parameter import Parameter
from wiesel.program.container import load as load_container
from wiesel.program.container import pack_arrays, pack_json, unpack_arrays, unpack_json, write_container
from wiesel.program.container import save as save_container

if TYPE_CHECKING:
    from os import PathLike

_MAX_DEPTH = 48
_CONTAINERS = ("Sequential", "ModuleList")


def save(net: Module, path: str | PathLike[str]) -> None:
    """Writes ``net`` to ``path``, conventionally ``*.wsl``. The old file survives a full disk. The net must be built.

    >>> import wiesel as wl
    >>> from wiesel import nn
    >>> wl.save(nn.Linear(3).build((4,)), "/tmp/wiesel-linear.wsl")
    >>> wl.load("/tmp/wiesel-linear.wsl").parameter_count
    15
    """
    save_container(path, write_container(net_sections(net)))


def load(path: str | PathLike[str]) -> Module:
    """The net in the file ``path``: the built-in modules it was made of, or an ``nn.GraphModule``. Runs no code from the file.

    Raises ValueError that names file and offset for anything malformed.
    """
    return read_net(load_container(path), str(path))


def net_sections(net: Module) -> dict[str, bytes]:
    """The sections that describe ``net``: GRPH, WGHT, META."""
    if not net.built:
        raise ValueError("the net is not built, so it has no values to save: net.build((28, 28, 1)), or call or train it first")
    engine = net.engine
    engine.refresh()
    types = [Type(type.shape, type.dtype) for type in engine.sample_types]
    if is_builtin(net):
        graph: dict[str, Any] = {"kind": "modules", "net": _describe_module(net, {})}
    else:
        from wiesel.nn.graph_module import GraphModule, describe_net

        described = net.description if isinstance(net, GraphModule) else describe_net(net, types)
        graph = {"kind": "graph", "graph": described}
    graph["frozen"] = [name for name, p in net.parameters().items() if not p.trainable]
    meta: dict[str, Any] = {
        "class_names": net.class_names,
        "inputs": [{"shape": list(type.shape[1:]), "dtype": type.dtype} for type in types],
        "library": _version(),
    }
    arrays = {name: variable.value for name, variable in net.named_variables()}
    return {"GRPH": pack_json(graph), "WGHT": pack_arrays(arrays), "META": pack_json(meta)}


def read_net(sections: Mapping[str, memoryview], file: str) -> Module:
    """The net that ``net_sections`` described."""
    for tag in ("GRPH", "WGHT"):
        if tag not in sections:
            raise ValueError(f"{file}: there is no section {tag}, so it holds no net")
    graph = unpack_json(sections["GRPH"], file, "GRPH")
    meta = unpack_json(sections["META"], file, "META") if "META" in sections else {}
    arrays = unpack_arrays(sections["WGHT"], file)
    try:
        net = _make_net(graph)
        types = _input_types(meta)
        _check_sizes(net, types, arrays)
        net.engine.trace(types)
        net.load_state_dict(arrays)
        _freeze(net, graph.get("frozen", []))
        names = meta.get("class_names")
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError("class_names must be a list of names")
        net.class_names = names
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise ValueError(f"{file}: the net in it cannot be built: {error}") from error
    return net


def is_builtin(net: Module) -> bool:
    """Whether the net consists of the library's own layers only, so that its tree describes it."""
    from wiesel import nn

    kinds = {type(module) for _, module in net.named_modules()}
    return all(kind is getattr(nn, kind.__name__, None) and kind not in (nn.GraphModule, nn.Module) for kind in kinds)


def _describe_module(module: Module, seen: dict[int, int]) -> dict[str, Any]:
    """Class, arguments and children; a module that is used twice is described once and then referred to."""
    if id(module) in seen:
        return {"same_as": seen[id(module)]}
    seen[id(module)] = len(seen)
    name = type(module).__name__
    found: dict[str, Any] = {"class": name}
    if name in _CONTAINERS:
        found["children"] = [[child, _describe_module(part, seen)] for child, part in module.children().items()]
    else:
        found["arguments"] = {key: _plain(value) for key, value in module.config().items()}
    return found


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _make_net(graph: Any) -> Module:
    if not isinstance(graph, dict) or graph.get("kind") not in ("modules", "graph"):
        raise ValueError("section GRPH holds neither modules nor a graph")
    if graph["kind"] == "graph":
        from wiesel.nn.graph_module import GraphModule

        return GraphModule(graph["graph"])
    return _make_module(graph["net"], [], 0)


def _make_module(described: Any, made: list[Module], depth: int) -> Module:
    from wiesel import nn

    if depth > _MAX_DEPTH:
        raise ValueError("modules are nested too deeply")
    if not isinstance(described, dict):
        raise ValueError(f"{described!r} describes no module")
    if "same_as" in described:
        number = described["same_as"]
        if not isinstance(number, int) or not 0 <= number < len(made):
            raise ValueError(f"module {number!r} is referred to before it is described")
        return made[number]
    name = described.get("class")
    known = name in nn.__all__ and name not in ("Module", "GraphModule", "Parameter", "State", "activate")
    if not isinstance(name, str) or not known:
        raise ValueError(f"no layer is called {name!r}")
    cls: Any = getattr(nn, name)
    if name in _CONTAINERS:
        net: Module = cls()
        made.append(net)
        for child in described["children"]:
            key, part = child
            if not isinstance(key, str) or not key or "." in key or key.startswith("_"):
                raise ValueError(f"{key!r} is no name of a layer")
            setattr(net, key, _make_module(part, made, depth + 1))
        return net
    arguments = described["arguments"]
    if not isinstance(arguments, dict):
        raise ValueError(f"the arguments of {name} are no table")
    values = {key: _tuples(value) for key, value in arguments.items()}
    positional = values.pop("shape", ()) if name == "Reshape" else ()
    module: Module = cls(*positional, **values)
    made.append(module)
    return module


def _input_types(meta: Any) -> list[Type]:
    inputs = meta.get("inputs") if isinstance(meta, dict) else None
    if not isinstance(inputs, list) or not inputs:
        raise ValueError("section META does not tell the shape of the inputs")
    return [Type((-1, *item["shape"]), item["dtype"]) for item in inputs]


def _check_sizes(net: Module, types: list[Type], arrays: Mapping[str, Any]) -> None:
    """Refuses a net whose parameters would not be those in the file, before any memory is asked for."""
    from wiesel.nn.tracing import ModuleTrace, input_names

    with ModuleTrace(net) as trace:
        net(*[trace.input(name, type) for name, type in zip(input_names(len(types)), types, strict=True)])
    for name, variable in net.named_variables():
        if name not in arrays or arrays[name].shape != variable.shape:
            found = f"has shape {arrays[name].shape}" if name in arrays else "is missing"
            raise ValueError(f"{name} {found}; the net needs {variable.shape}")


def _freeze(net: Module, names: Any) -> None:
    parameters = net.parameters()
    for name in names:
        if name not in parameters:
            raise ValueError(f"{name!r} is frozen but no parameter")
        parameter = parameters[name]
        assert isinstance(parameter, Parameter)
        parameter.trainable = False


def _version() -> str:
    from wiesel import __version__

    return f"wiesel {__version__}"
