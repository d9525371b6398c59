"""PyTorch's side of benchmarks/train.py. Does not import wiesel."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from pipe import serve, timed
from torch import nn
from torch.nn import functional
from torch_nets import NETS


class Training:
    """One net with its optimizer and batches, in one setting of layout and compilation."""

    def __init__(self, net: str, batches: str, layout: str, compiled: bool, lr: float, momentum: float, weights: str | None) -> None:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.set_float32_matmul_precision("highest")
        torch.manual_seed(0)
        self.format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        with np.load(batches) as file:
            self.batches = [(self.images(x), torch.from_numpy(y)) for x, y in zip(file["x"], file["y"], strict=True)]
        model = NETS[net]()
        if weights is not None:
            load_weights(model, weights, self.batches[0][0])
        model = model.to(memory_format=self.format).train()
        self.parameters = sum(p.numel() for p in model.parameters())
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
        self.model = torch.compile(model) if compiled else model

    def images(self, x: np.ndarray) -> torch.Tensor:
        """(n, h, w, c) to PyTorch's (n, c, h, w), in the setting's order in memory: done once, as a user of PyTorch stores pictures so."""
        return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=self.format)

    def step(self, number: int) -> float:
        x, y = self.batches[number % len(self.batches)]
        self.optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def load_weights(model: nn.Module, path: str, x: torch.Tensor) -> None:
    """Copies the arrays of an .npz (p0, p1, ... in the order of the layers, wiesel's layouts) into ``model``'s parameters."""
    flattened: dict[int, tuple[int, ...]] = {}

    def remember(module: nn.Module, inputs: tuple[torch.Tensor, ...], _output: torch.Tensor) -> None:
        flattened[id(module)] = tuple(inputs[0].shape[1:])

    hooks = [m.register_forward_hook(remember) for m in model.modules() if isinstance(m, nn.Flatten)]
    with torch.no_grad():
        model.eval()(x[:1])
    for hook in hooks:
        hook.remove()
    with np.load(path) as file:
        arrays = iter([torch.from_numpy(file[f"p{i}"]) for i in range(len(file.files))])
    before: tuple[int, ...] | None = None  # what the last Flatten flattened
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Flatten):
                before = flattened[id(module)]
            for name, parameter in module.named_parameters(recurse=False):
                array = next(arrays)
                if isinstance(module, nn.Conv2d) and name == "weight":
                    array = array.permute(3, 2, 0, 1)  # kh kw ic oc -> oc ic kh kw
                elif isinstance(module, nn.Linear) and name == "weight":
                    array = array.T  # in out -> out in
                    if before is not None:
                        c, h, w = before
                        array = array.reshape(-1, h, w, c).permute(0, 3, 1, 2).reshape(-1, c * h * w)
                        before = None
                if array.shape != parameter.shape:
                    raise ValueError(f"{module}.{name} has shape {tuple(parameter.shape)}, the weights have {tuple(array.shape)}")
                parameter.copy_(array)


_training: list[Training] = []


def setup(**settings: Any) -> dict[str, Any]:
    _training[:] = [Training(**settings)]
    return {"parameters": _training[0].parameters, "version": torch.__version__, "threads": torch.get_num_threads()}


def losses(count: int) -> list[float]:
    """The losses of the first steps; they also warm up."""
    return [_training[0].step(i) for i in range(count)]


def run(seconds: float, least: int) -> dict[str, Any]:
    return timed(_training[0].step, seconds, least)


if __name__ == "__main__":
    serve({"setup": setup, "losses": losses, "run": run})
