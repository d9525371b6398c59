"""PyTorch's side of benchmarks/layers.py. Does not import wiesel."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from pipe import digest, operands, serve, timed
from torch.nn import functional

_step: list[Callable[[int], Any]] = []


def setup(layer: dict[str, Any], direction: str, setting: str) -> list[float] | None:
    """Prepares the layer; the digest of its result, or None where the setting does not have the direction."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_float32_matmul_precision("highest")
    x_nhwc, w_hwio, dy_nhwc = operands(layer)
    form = torch.contiguous_format if setting == "nchw" else torch.channels_last
    x = torch.from_numpy(x_nhwc).permute(0, 3, 1, 2).contiguous(memory_format=form)
    w = torch.from_numpy(w_hwio).permute(3, 2, 0, 1).contiguous(memory_format=form)
    dy = torch.from_numpy(dy_nhwc).permute(0, 3, 1, 2).contiguous(memory_format=form)
    stride, padding, dilation = ([layer[k + "h"], layer[k + "w"]] for k in ("s", "p", "dil"))
    groups = layer["g"]

    def forward(_number: int) -> torch.Tensor:
        return functional.conv2d(x, w, None, stride, padding, dilation, groups)

    def backward(mask: list[bool]) -> Callable[[int], torch.Tensor]:
        def step(_number: int) -> torch.Tensor:
            gradients = torch.ops.aten.convolution_backward(dy, x, w, None, stride, padding, dilation, False, [0, 0], groups, mask)
            return gradients[mask.index(True)]

        return step

    if setting == "prepacked":
        if direction != "forward":
            return None
        packed = torch.ops.mkldnn._reorder_convolution_weight(w, padding, stride, dilation, groups, list(x.shape))

        def prepacked(_number: int) -> torch.Tensor:
            return torch.ops.mkldnn._convolution_pointwise(x, packed, None, padding, stride, dilation, groups, "none", [], "")

        step = prepacked
    else:
        choices = {"forward": forward, "backward_data": backward([True, False, False]), "backward_weights": backward([False, True, False])}
        step = choices[direction]

    def without_gradients(number: int) -> torch.Tensor:
        with torch.no_grad():
            return step(number)

    _step[:] = [without_gradients]
    axes = (2, 3, 1, 0) if direction == "backward_weights" else (0, 2, 3, 1)
    return digest(without_gradients(0).permute(axes).numpy())


def run(seconds: float, least: int) -> dict[str, Any]:
    return {**timed(_step[0], seconds, least), "value": None}


if __name__ == "__main__":
    serve({"setup": setup, "run": run})
