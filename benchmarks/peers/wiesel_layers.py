"""wiesel's side of benchmarks/layers.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipe import digest, operands, serve, timed

from wiesel import nn
from wiesel.ops.dispatch import call

_step: list[Callable[[int], Any]] = []


def setup(layer: dict[str, Any], direction: str, setting: str) -> list[float]:
    """Prepares the layer; the digest of its result."""
    x, w, dy = operands(layer)
    stride, padding, dilation = ((layer[k + "h"], layer[k + "w"]) for k in ("s", "p", "dil"))
    if direction == "forward":
        kernel = (layer["kh"], layer["kw"])
        net = nn.Conv2d(layer["oc"], kernel, stride=stride, padding=padding, dilation=dilation, groups=layer["g"], bias=False)
        net.build(x.shape[1:], seed=0)
        net.weight.assign(w)
        _step[:] = [lambda _number: net(x)]
    else:
        attrs: dict[str, Any] = {"groups": layer["g"], "kernel_h": layer["kh"], "kernel_w": layer["kw"]}
        attrs.update(stride_h=stride[0], stride_w=stride[1], dilation_h=dilation[0], dilation_w=dilation[1])
        attrs.update(pad_top=padding[0], pad_bottom=padding[0], pad_left=padding[1], pad_right=padding[1])
        if direction == "backward_data":
            attrs.update(in_h=layer["ih"], in_w=layer["iw"])
            _step[:] = [lambda _number: call("conv_bwd_data", [dy, w], attrs)]
        else:
            _step[:] = [lambda _number: call("conv_bwd_weights", [x, dy], attrs)]
    return digest(_step[0](0))


def run(seconds: float, least: int) -> dict[str, Any]:
    return {**timed(_step[0], seconds, least), "value": None}


if __name__ == "__main__":
    serve({"setup": setup, "run": run})
