"""wiesel's side of benchmarks/layers.py."""

from __future__ import annotations

from typing import Any

from pipe import Work, digest, operands, serve_work

from wiesel import nn
from wiesel.ops.dispatch import call


class Layer(Work):
    """One convolution in one direction."""

    def __init__(self, layer: dict[str, Any], direction: str, setting: str) -> None:
        x, w, dy = operands(layer)
        stride, padding, dilation = ((layer[k + "h"], layer[k + "w"]) for k in ("s", "p", "dil"))
        if direction == "forward":
            kernel = (layer["kh"], layer["kw"])
            net = nn.Conv2d(layer["oc"], kernel, stride=stride, padding=padding, dilation=dilation, groups=layer["g"], bias=False)
            net.build(x.shape[1:], seed=0)
            net.weight.assign(w)
            self._compute = lambda: net(x)
        else:
            attrs: dict[str, Any] = {"groups": layer["g"], "kernel_h": layer["kh"], "kernel_w": layer["kw"]}
            attrs.update(stride_h=stride[0], stride_w=stride[1], dilation_h=dilation[0], dilation_w=dilation[1])
            attrs.update(pad_top=padding[0], pad_bottom=padding[0], pad_left=padding[1], pad_right=padding[1])
            if direction == "backward_data":
                attrs.update(in_h=layer["ih"], in_w=layer["iw"])
                self._compute = lambda: call("conv_bwd_data", [dy, w], attrs)
            else:
                self._compute = lambda: call("conv_bwd_weights", [x, dy], attrs)
        self.about = {"digest": digest(self.step(0))}

    def step(self, number: int) -> Any:
        return self._compute()


if __name__ == "__main__":
    serve_work(Layer)
