"""Modules that hold others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from wiesel.nn.module import Module


class Sequential(Module):
    """Layers one after the other. Positional ones are named "0", "1", …; keywords give names.

    >>> from wiesel import nn
    >>> net = nn.Sequential(features=nn.Sequential(nn.Conv2d(4, 3), nn.ReLU()), head=nn.Sequential(nn.Flatten(), nn.Linear(10)))
    >>> sorted(net.build((8, 8, 1)).parameters())
    ['features.0.bias', 'features.0.weight', 'head.1.bias', 'head.1.weight']
    """

    def __init__(self, *layers: Module, **named: Module) -> None:
        if len(layers) == 1 and isinstance(layers[0], (list, tuple)):
            raise TypeError("Sequential takes the layers as arguments: Sequential(*layers)")
        for name, layer in (*((str(i), layer) for i, layer in enumerate(layers)), *named.items()):
            if not isinstance(layer, Module):
                mend = " (a class: add parentheses)" if isinstance(layer, type) else ""
                raise TypeError(f"Sequential: layer {name} is {layer!r}{mend}, not a module")
            setattr(self, name, layer)

    def config(self) -> dict[str, Any]:
        return {}  # the layers are all there is to it

    def forward(self, *inputs: Any) -> Any:
        outputs: Any = inputs if len(inputs) != 1 else inputs[0]
        for layer in self:
            outputs = layer(*outputs) if isinstance(outputs, tuple) else layer(outputs)
        return outputs

    def __len__(self) -> int:
        return len(self.children())

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self.children().values()))

    def __getitem__(self, index: int | slice | str) -> Any:
        if isinstance(index, str):
            return self.children()[index]
        layers = list(self)
        return Sequential(*layers[index]) if isinstance(index, slice) else layers[index]

    def append(self, layer: Module) -> Sequential:
        """Adds ``layer`` at the end, named by its position. Returns self."""
        setattr(self, str(len(self)), layer)
        return self


class ModuleList(Module):
    """A list of modules as an attribute; plain lists and tuples of modules become one. Its ``forward`` is yours to write, around it."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def config(self) -> dict[str, Any]:
        return {}

    def __len__(self) -> int:
        return len(self.children())

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self.children().values()))

    def __getitem__(self, index: int) -> Module:
        return list(self)[index]

    def append(self, module: Module) -> ModuleList:
        """Adds ``module`` at the end. Returns self."""
        setattr(self, str(len(self)), module)
        return self
