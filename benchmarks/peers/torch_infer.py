"""PyTorch's side of benchmarks/infer.py. Does not import wiesel."""

from __future__ import annotations

import numpy as np
import torch
from pipe import Work, digest, serve_work
from torch.fx.experimental.optimization import fuse
from torch_nets import build
from torch_settings import memory_format, use_plain_float32


class Inference(Work):
    """One net and one batch: batch normalisation folded, in one layout; compiled ones with frozen, packed weights."""

    def __init__(self, net: str, pictures: str, weights: str, layout: str, compiled: bool) -> None:
        use_plain_float32()
        form = memory_format(layout)
        x = torch.from_numpy(np.load(pictures)).permute(0, 3, 1, 2).contiguous(memory_format=form)
        self._x = x.numpy()  # shares the memory, and so the order in it
        model = build(net, x, weights).eval()
        parameters = sum(p.numel() for p in model.parameters())
        if compiled:
            torch._inductor.config.freezing = True
            self._model = torch.compile(model.to(memory_format=form))
        else:
            self._model = fuse(model).to(memory_format=form)
        self.about = {"parameters": parameters, "version": torch.__version__, "digest": digest(self.step(0))}

    def step(self, number: int) -> np.ndarray:
        with torch.no_grad():  # inference_mode is slower to enter, and compiled nets are not frozen in it
            result: np.ndarray = self._model(torch.from_numpy(self._x)).numpy()
        return result


if __name__ == "__main__":
    serve_work(Inference)
