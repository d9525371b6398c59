"""Convolution layers. Shapes are NHWC; the input channels are found on first build."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wiesel import ops
from wiesel.nn import init
from wiesel.nn.activation import activate, check_activation
from wiesel.nn.arguments import pair, positive, refuse_positional
from wiesel.nn.module import Module
from wiesel.ops.arguments import require_image_shape, show

if TYPE_CHECKING:
    from wiesel.graph.tensor import Tensor
    from wiesel.ops.geometry import Fit, Padding

ALGORITHMS = ("automatic", "direct", "planar", "winograd2", "winograd4")
"""What ``Conv2d(algorithm=)`` takes."""


def check_groups(channels: int, groups: int) -> None:
    if channels % groups:
        raise ValueError(f"the {channels} input channels cannot be split into {groups} groups; choose groups that divide {channels}")


class _Conv(Module):
    """What the 2-D convolutions share: parameters, epilogue, and the check of the input's channels."""

    def _check_channels(self, x: Tensor, built_for: int | None) -> int:
        """The channels of ``x``, which must be (n, h, w, c) and agree with an earlier build."""
        require_image_shape("x", x.shape)
        channels = x.shape[-1]
        if built_for is not None and channels != built_for:
            nchw = x.shape[1] == built_for
            mend = "this looks like NCHW: use x.transpose(0, 2, 3, 1)" if nchw else f"give it {built_for} channels, or make a new layer"
            raise ValueError(f"built for {built_for} input channels, got {channels} in {show(x.shape)}; {mend}")
        return channels

    def _bias(self, wanted: bool, channels: int) -> Any:
        return self.parameter("bias", (channels,), init.constant(0.0)) if wanted else None


class Conv2d(_Conv):
    """2-D convolution (cross-correlation, as in all frameworks): y[n, oy, ox, k] = b[k] + Σ x[n, oy·s + ky·d - p, …, c] · w[ky, kx, c, k].

    Parameters
    ----------
    out_channels : number of filters.
    kernel_size : int or (height, width).
    stride, dilation : int or (vertical, horizontal).
    padding : int, (vertical, horizontal), ((top, bottom), (left, right)), "valid", "same", "same_lower" or "full".
    groups : input and output channels are split into this many groups that do not see each other.
    bias : adds one learned number per filter.
    activation : name of a function of ``wiesel.nn`` applied to the output, such as "relu"; it runs in the convolution's epilogue.
    fit : what happens where the stride does not fit: "floor", "error", "pad" or "crop" (see ``wiesel.ops.geometry``).
    algorithm : "automatic" (chosen by shape, ``explain`` says which and why), "direct" (the most exact; a moved picture gives moved bits),
        "planar" (made for few channels), "winograd2" or "winograd4" (3x3, stride 1).

    Input (n, h, w, c), output (n, oh, ow, out_channels) with oh = (h - dilation·(kh - 1) - 1 + padding) / stride + 1.
    ``weight`` has shape (kh, kw, c / groups, out_channels), ``bias`` (out_channels,).

    >>> from wiesel import nn
    >>> net = nn.Conv2d(8, 3, padding="same", activation="relu").build((28, 28, 1))
    >>> net.weight.shape
    (3, 3, 1, 8)
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *extra: object,
        stride: int | tuple[int, int] = 1,
        padding: Padding = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = None,
        fit: Fit = "floor",
        algorithm: str = "automatic",
    ) -> None:
        if extra:
            refuse_positional(
                "Conv2d(out_channels, kernel_size, *, stride=1, padding=0, dilation=1, groups=1, bias=True, activation=None)",
                "Conv2d(in_channels, out_channels, kernel_size, stride, padding)",
                extra,
            )
        self.out_channels = positive(out_channels, "out_channels", "Conv2d")
        self.kernel_size = pair(kernel_size, "kernel_size", "Conv2d")
        self.stride = pair(stride, "stride", "Conv2d")
        self.padding = padding
        self.dilation = pair(dilation, "dilation", "Conv2d")
        self.groups = positive(groups, "groups", "Conv2d")
        if self.out_channels % self.groups:
            raise ValueError(f"Conv2d: out_channels {self.out_channels} must be a multiple of groups {self.groups}")
        self.has_bias = bool(bias)
        self.activation = check_activation(activation, "Conv2d")
        self.fit = fit
        if algorithm not in ALGORITHMS:
            raise ValueError(f"Conv2d: algorithm {algorithm!r} is none of {', '.join(ALGORITHMS)}")
        self.algorithm = algorithm

    def forward(self, x: Tensor) -> Any:
        built = self.variable("weight")
        channels = self._check_channels(x, built.shape[2] * self.groups if built else None)
        check_groups(channels, self.groups)
        shape = (*self.kernel_size, channels // self.groups, self.out_channels)
        weight = self.parameter("weight", shape, init.he_normal(init.fan_in_of(shape), init.gain_of(self.activation)))
        bias = self._bias(self.has_bias, self.out_channels)
        y = ops.conv2d(
            x,
            weight,
            bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            fit=self.fit,
            algorithm=self.algorithm,
        )
        return activate(y, self.activation)


class DepthwiseConv2d(_Conv):
    """Depthwise convolution: every channel has filters of its own, output channel c·m + j is channel c under its filter j.

    Parameters
    ----------
    kernel_size : int or (height, width).
    multiplier : filters per channel, m.
    Others as in ``Conv2d``.

    Input (n, h, w, c), output (n, oh, ow, c·m). ``weight`` has shape (kh, kw, 1, c·m). Equal to ``Conv2d(c·m, kernel_size, groups=c)``.

    >>> from wiesel import nn
    >>> nn.DepthwiseConv2d(3, padding=1).build((8, 8, 16)).weight.shape
    (3, 3, 1, 16)
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        *extra: object,
        multiplier: int = 1,
        stride: int | tuple[int, int] = 1,
        padding: Padding = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        activation: str | None = None,
        fit: Fit = "floor",
    ) -> None:
        if extra:
            refuse_positional(
                "DepthwiseConv2d(kernel_size, *, multiplier=1, stride=1, padding=0, dilation=1, bias=True, activation=None)",
                "Conv2d(channels, channels, kernel_size, groups=channels)",
                extra,
            )
        self.kernel_size = pair(kernel_size, "kernel_size", "DepthwiseConv2d")
        self.multiplier = positive(multiplier, "multiplier", "DepthwiseConv2d")
        self.stride = pair(stride, "stride", "DepthwiseConv2d")
        self.padding = padding
        self.dilation = pair(dilation, "dilation", "DepthwiseConv2d")
        self.has_bias = bool(bias)
        self.activation = check_activation(activation, "DepthwiseConv2d")
        self.fit = fit

    def forward(self, x: Tensor) -> Any:
        built = self.variable("weight")
        channels = self._check_channels(x, built.shape[3] // self.multiplier if built else None)
        shape = (*self.kernel_size, 1, channels * self.multiplier)
        weight = self.parameter("weight", shape, init.he_normal(init.fan_in_of(shape), init.gain_of(self.activation)))
        bias = self._bias(self.has_bias, channels * self.multiplier)
        y = ops.conv2d(x, weight, bias, stride=self.stride, padding=self.padding, dilation=self.dilation, groups=channels, fit=self.fit)
        return activate(y, self.activation)


class ConvTranspose2d(_Conv):
    """Transposed convolution: the backward-data direction of a convolution from the output's to the input's channels.

    Parameters
    ----------
    out_channels, kernel_size, stride, padding, dilation, groups, bias, activation : as in ``Conv2d``; padding is that of the convolution
        whose backward it is, so it removes border.
    output_padding : int or (vertical, horizontal), rows and columns added at the end: with a stride s several input sizes give one output
        size, this chooses among them.

    Input (n, h, w, c), output (n, (h - 1)·s - 2p + d·(kh - 1) + output_padding + 1, …, out_channels).
    ``weight`` has shape (kh, kw, out_channels / groups, c).

    >>> from wiesel import nn
    >>> nn.ConvTranspose2d(4, 2, stride=2)([[[[1.0]]]]).shape
    (1, 2, 2, 4)
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *extra: object,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]] = 0,
        output_padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = None,
    ) -> None:
        if extra:
            refuse_positional(
                "ConvTranspose2d(out_channels, kernel_size, *, stride=1, padding=0, output_padding=0, groups=1, bias=True)",
                "ConvTranspose2d(in_channels, out_channels, kernel_size, stride, padding)",
                extra,
            )
        self.out_channels = positive(out_channels, "out_channels", "ConvTranspose2d")
        self.kernel_size = pair(kernel_size, "kernel_size", "ConvTranspose2d")
        self.stride = pair(stride, "stride", "ConvTranspose2d")
        self.padding = padding
        self.output_padding = pair(output_padding, "output_padding", "ConvTranspose2d", least=0)
        self.dilation = pair(dilation, "dilation", "ConvTranspose2d")
        self.groups = positive(groups, "groups", "ConvTranspose2d")
        if self.out_channels % self.groups:
            raise ValueError(f"ConvTranspose2d: out_channels {self.out_channels} must be a multiple of groups {self.groups}")
        self.has_bias = bool(bias)
        self.activation = check_activation(activation, "ConvTranspose2d")

    def forward(self, x: Tensor) -> Any:
        built = self.variable("weight")
        channels = self._check_channels(x, built.shape[3] if built else None)
        check_groups(channels, self.groups)
        shape = (*self.kernel_size, self.out_channels // self.groups, channels)
        taps = self.kernel_size[0] * self.kernel_size[1]
        overlap = max(1, taps // (self.stride[0] * self.stride[1]))  # filter positions that meet in one output
        weight = self.parameter("weight", shape, init.he_normal(overlap * channels // self.groups, init.gain_of(self.activation)))
        bias = self._bias(self.has_bias, self.out_channels)
        y = ops.conv_transpose2d(
            x,
            weight,
            bias,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        return activate(y, self.activation)


class Conv1d(Module):
    """1-D convolution over (n, length, c): y[n, o, k] = b[k] + Σ x[n, o·s + i·d - p, c] · w[i, c, k].

    Parameters
    ----------
    out_channels : number of filters.
    kernel_size, stride, dilation : ints.
    padding : int, (before, after), "valid", "same", "same_lower" or "full".
    groups, bias, activation, fit : as in ``Conv2d``.

    ``weight`` has shape (kernel_size, c / groups, out_channels).

    >>> from wiesel import nn
    >>> nn.Conv1d(4, 3).build((10, 2)).weight.shape
    (3, 2, 4)
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: int,
        *extra: object,
        stride: int = 1,
        padding: int | str | tuple[int, int] = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = None,
        fit: Fit = "floor",
    ) -> None:
        if extra:
            refuse_positional(
                "Conv1d(out_channels, kernel_size, *, stride=1, padding=0, dilation=1, groups=1, bias=True, activation=None)",
                "Conv1d(in_channels, out_channels, kernel_size, stride, padding)",
                extra,
            )
        self.out_channels = positive(out_channels, "out_channels", "Conv1d")
        self.kernel_size = positive(kernel_size, "kernel_size", "Conv1d")
        self.stride = positive(stride, "stride", "Conv1d")
        self.padding = padding
        self.dilation = positive(dilation, "dilation", "Conv1d")
        self.groups = positive(groups, "groups", "Conv1d")
        if self.out_channels % self.groups:
            raise ValueError(f"Conv1d: out_channels {self.out_channels} must be a multiple of groups {self.groups}")
        self.has_bias = bool(bias)
        self.activation = check_activation(activation, "Conv1d")
        self.fit = fit

    def forward(self, x: Tensor) -> Any:
        if len(x.shape) != 3:
            raise ValueError(f"expected x of shape (n, length, channels), got {show(x.shape)}")
        channels = x.shape[-1]
        built = self.variable("weight")
        if built and channels != built.shape[1] * self.groups:
            mend = "; this looks like NCW: use x.transpose(0, 2, 1)" if x.shape[1] == built.shape[1] * self.groups else ""
            raise ValueError(f"built for {built.shape[1] * self.groups} input channels, got {channels} in {show(x.shape)}{mend}")
        check_groups(channels, self.groups)
        shape = (self.kernel_size, channels // self.groups, self.out_channels)
        weight = self.parameter("weight", shape, init.he_normal(init.fan_in_of(shape), init.gain_of(self.activation)))
        bias = self.parameter("bias", (self.out_channels,), init.constant(0.0)) if self.has_bias else None
        y = ops.conv1d(x, weight, bias, stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups, fit=self.fit)
        return activate(y, self.activation)
