"""PyTorch's side of benchmarks/layers.py. Does not import wiesel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pipe import Work, digest, operands, serve_work
from torch.nn import functional
from torch_settings import memory_format, use_plain_float32


class Layer(Work):
    """One convolution in one direction and setting."""

    def __init__(self, layer: dict[str, Any], direction: str, setting: str) -> None:
        use_plain_float32()
        x_nhwc, w_hwio, dy_nhwc = operands(layer)
        form = memory_format("nchw" if setting == "nchw" else "channels_last")
        x = torch.from_numpy(x_nhwc).permute(0, 3, 1, 2).contiguous(memory_format=form)
        w = torch.from_numpy(w_hwio).permute(3, 2, 0, 1).contiguous(memory_format=form)
        dy = torch.from_numpy(dy_nhwc).permute(0, 3, 1, 2).contiguous(memory_format=form)
        stride, padding, dilation = ([layer[k + "h"], layer[k + "w"]] for k in ("s", "p", "dil"))
        groups = layer["g"]

        def backward(mask: list[bool]) -> Callable[[], torch.Tensor]:
            def compute() -> torch.Tensor:
                gradients = torch.ops.aten.convolution_backward(dy, x, w, None, stride, padding, dilation, False, [0, 0], groups, mask)
                return gradients[mask.index(True)]

            return compute

        if setting == "prepacked":
            packed = torch.ops.mkldnn._reorder_convolution_weight(w, padding, stride, dilation, groups, list(x.shape))
            pointwise = torch.ops.mkldnn._convolution_pointwise
            self._compute = lambda: pointwise(x, packed, None, padding, stride, dilation, groups, "none", [], "")
        else:
            self._compute = {
                "forward": lambda: functional.conv2d(x, w, None, stride, padding, dilation, groups),
                "backward_data": backward([True, False, False]),
                "backward_weights": backward([False, True, False]),
            }[direction]
        axes = (2, 3, 1, 0) if direction == "backward_weights" else (0, 2, 3, 1)
        self.about = {"digest": digest(self.step(0).permute(axes).numpy())}

    def step(self, number: int) -> torch.Tensor:
        with torch.no_grad():
            return self._compute()


def make(layer: dict[str, Any], direction: str, setting: str) -> Layer | None:
    """None where the setting does not have the direction."""
    return None if setting == "prepacked" and direction != "forward" else Layer(layer, direction, setting)


if __name__ == "__main__":
    serve_work(make)
