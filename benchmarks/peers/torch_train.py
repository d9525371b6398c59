"""PyTorch's side of benchmarks/train.py. Does not import wiesel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pipe import Work, mark, serve_work
from torch import nn
from torch.nn import functional
from torch_nets import build
from torch_settings import memory_format, use_plain_float32


class Training(Work):
    """One net with its optimizer and batches, in one setting of layout and compilation."""

    def __init__(self, net: str, batches: str, optimizer: dict[str, Any], weights: str | None, layout: str, compiled: bool) -> None:
        use_plain_float32()
        form = memory_format(layout)
        with np.load(batches) as file:  # the pictures are stored in the setting's order in memory, as a user of PyTorch would store them
            x = [torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=form) for x in file["x"]]
            self._batches = list(zip(x, map(torch.from_numpy, file["y"]), strict=True))
        warm_library()
        mark()
        model = build(net, self._batches[0][0], weights).to(memory_format=form).train()
        self._optimizer = torch.optim.SGD(model.parameters(), **optimizer)
        self._model = torch.compile(model) if compiled else model
        parameters = sum(p.numel() for p in model.parameters())
        self.about = {"parameters": parameters, "version": torch.__version__, "threads": torch.get_num_threads()}

    def step(self, number: int) -> float:
        x, y = self._batches[number % len(self._batches)]
        self._optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(self._model(x), y)
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())


def warm_library() -> None:
    """A step of a tiny net: what PyTorch loads and keeps on first use is not the memory of the net that is measured."""
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 2))
    functional.cross_entropy(model(torch.zeros(2, 1, 8, 8)), torch.zeros(2, dtype=torch.long)).backward()
    torch.optim.SGD(model.parameters(), 0.1, momentum=0.9).step()


if __name__ == "__main__":
    serve_work(Training)
