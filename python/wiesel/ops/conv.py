"""Convolution in its three directions, and the functions made of them: conv1d, conv2d, conv_transpose2d and their backward forms.

The convolution is a cross-correlation, as in every framework: with input x, weight w, bias b and group q,

    y[n, oy, ox, o] = b[o] + sum over ky, kx, i of  x[n, oy * sh - pad_top + ky * dilh, ox * sw - pad_left + kx * dilw, i] * w[ky, kx, i, o]

x is 0 outside the picture. Group q takes the q-th share of the input channels i to the q-th share of the output channels o, so a weight is
(kh, kw, ic / groups, oc). Depthwise convolution is groups = ic. Each direction's gradient is made of the other two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from wiesel.graph.ir import Builder, Node, Type, Value
from wiesel.ops import reduce, unary
from wiesel.ops.arguments import (
    TensorLike,
    channel_vector,
    present,
    require_dtype,
    require_image_shape,
    require_images,
    same_shape,
    shape_of,
    show,
)
from wiesel.ops.base import Cost, Op, register
from wiesel.ops.batch_norm import BnApply, gradient_sums
from wiesel.ops.dispatch import call
from wiesel.ops.geometry import Fit, Padding, Window, pair, split_padding, window, window_attrs, windows2d
from wiesel.ops.kinds import algorithm_number, epilogue_attrs, unary_number
from wiesel.ops.shape import with_shape

WINDOW_DEFAULTS: Mapping[str, Any] = {
    "kernel_h": 0, "kernel_w": 0, "stride_h": 1, "stride_w": 1, "pad_top": 0, "pad_left": 0, "pad_bottom": 0, "pad_right": 0,
    "dilation_h": 1, "dilation_w": 1,
}  # fmt: skip
"""Attributes of a window over height and width. A convolution's kernel extents may be 0: then they are those of its weight."""

ALGORITHMS = ("automatic", "direct", "depthwise", "planar", "winograd2", "winograd4", "ref")

_CONV_DEFAULTS: Mapping[str, Any] = {**WINDOW_DEFAULTS, "groups": 1, "algorithm": "automatic"}
_NORM_DEFAULTS: Mapping[str, Any] = {"norm": False, "eps": 1e-5, "in_activation": "none"}

IN_ACTIVATIONS = frozenset({"none", "relu", "relu6"})
"""Behind a batch normalisation through which a convolution reads its input."""


def normalises(attrs: Mapping[str, Any], kernel: Sequence[int], ic: int, oc: int) -> bool:
    """Whether a convolution can read its input through a batch normalisation: it reads every pixel once, or it is depthwise."""
    if attrs["algorithm"] not in ("automatic", "direct", "depthwise"):
        return False
    if attrs["groups"] > 1:
        return bool(attrs["groups"] == ic == oc)
    plain = all(attrs[name] == WINDOW_DEFAULTS[name] for name in WINDOW_DEFAULTS if not name.startswith("kernel"))
    return plain and tuple(kernel) == (1, 1)


def _norm_attrs(attrs: Mapping[str, Any]) -> dict[str, int | float]:
    return {"eps": float(attrs["eps"]), "in_activation": unary_number(attrs["in_activation"])} if attrs["norm"] else {}


def _normalised(attrs: Mapping[str, Any], x: np.ndarray, norm: Sequence[np.ndarray | None]) -> np.ndarray:
    if not attrs["norm"]:
        return x
    how = {"eps": attrs["eps"], "activation": attrs["in_activation"], "alpha": 0.0, "beta": 0.0}
    return BnApply().reference(how, x, *norm)[0]  # type: ignore[arg-type]


def windows_of(attrs: Mapping[str, Any], extents: Sequence[int], kernel: Sequence[int]) -> tuple[Window, Window]:
    """The windows along height and width that a node's attributes describe."""
    return (
        Window(extents[0], kernel[0], attrs["stride_h"], attrs["dilation_h"], attrs["pad_top"], attrs["pad_bottom"]),
        Window(extents[1], kernel[1], attrs["stride_w"], attrs["dilation_w"], attrs["pad_left"], attrs["pad_right"]),
    )


def out_extent(op: str, axis: str, found: Window) -> int:
    if found.out < 1:
        raise ValueError(
            f"{op}: the window spans {found.span} pixels but the input has {axis} {found.extent} + padding {found.before + found.after};"
            " use a smaller kernel or more padding"
        )
    return found.out


def padded(x: np.ndarray, rows: Window, columns: Window, value: float = 0.0) -> np.ndarray:
    return np.pad(x, ((0, 0), (rows.before, rows.after), (columns.before, columns.after), (0, 0)), constant_values=value)


def taps(rows: Window, columns: Window) -> Iterator[tuple[int, int, tuple[slice, slice, slice]]]:
    """For every kernel position (ky, kx), in row order, where in the padded picture it reads: one element per output position."""
    for ky in range(rows.kernel):
        for kx in range(columns.kernel):
            top, left = ky * rows.dilation, kx * columns.dilation
            yield (
                ky,
                kx,
                (
                    slice(None),
                    slice(top, top + (rows.out - 1) * rows.stride + 1, rows.stride),
                    slice(left, left + (columns.out - 1) * columns.stride + 1, columns.stride),
                ),
            )


def _group_slices(channels: int, groups: int) -> list[slice]:
    share = channels // groups
    return [slice(q * share, (q + 1) * share) for q in range(groups)]


class _Conv(Op):
    defaults: ClassVar[Mapping[str, Any]] = _CONV_DEFAULTS

    def step_attrs(self, attrs: Mapping[str, Any]) -> dict[str, int | float]:
        found = {name: int(attrs[name]) for name in WINDOW_DEFAULTS if attrs[name]}
        return {**found, "groups": attrs["groups"], "algorithm": algorithm_number(attrs["algorithm"])}

    def _check_weight(self, attrs: Mapping[str, Any], w: Type) -> tuple[int, int]:
        """(ic, oc) of a weight (kh, kw, ic / groups, oc)."""
        require_dtype(self.name, "w", w, "f32")
        if w.rank != 4:
            raise ValueError(f"{self.name}: expected w of shape (kh, kw, ic / groups, oc), got {show(w.shape)}")
        groups, kernel = attrs["groups"], (attrs["kernel_h"], attrs["kernel_w"])
        if kernel not in ((0, 0), w.shape[:2]):
            raise ValueError(f"{self.name}: the kernel is {kernel} but w has shape {show(w.shape)}")
        if groups < 1 or w.shape[3] % groups:
            raise ValueError(f"{self.name}: {w.shape[3]} output channels of w {show(w.shape)} do not divide into {groups} groups")
        return w.shape[2] * groups, w.shape[3]

    def _check_norm(self, norm: Sequence[Type | None], channels: int) -> None:
        """``norm`` are mean, var, [gamma] and [beta] of a batch normalisation."""
        for name, t in zip(("mean", "var"), (*norm, None, None), strict=False):
            present(self.name, name, t)
        for name, t in zip(("mean", "var", "gamma", "beta"), norm, strict=False):
            channel_vector(self.name, name, t, channels)

    def _out(self, attrs: Mapping[str, Any], extents: Sequence[int], kernel: Sequence[int]) -> tuple[int, int]:
        rows, columns = windows_of(attrs, extents, kernel)
        return out_extent(self.name, "height", rows), out_extent(self.name, "width", columns)


def _geometry(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """What the directions of one convolution have in common. Each chooses its algorithm, unless one was asked for that all have."""
    algorithm = attrs["algorithm"] if attrs["algorithm"] in ("direct", "ref") else "automatic"
    return {**{name: attrs[name] for name in WINDOW_DEFAULTS}, "groups": attrs["groups"], "algorithm": algorithm}


def _macs(w: Type, positions: int) -> Cost:
    return Cost(macs=positions * w.elements(1))


@register
class ConvFwd(_Conv):
    """x, w, [bias], [residual] -> y = activation(conv(x, w) + bias + residual), and if ``stats`` mean and biased variance per channel.

    x, w, [bias], [residual], mean, var, [gamma], [beta] if ``norm``: instead of x ``bn_apply`` of it is read (see ``normalises``).
    """

    name = "conv_fwd"
    defaults: ClassVar[Mapping[str, Any]] = {
        **_CONV_DEFAULTS, "activation": "none", "alpha": 0.0, "beta": 0.0, "stats": False, **_NORM_DEFAULTS
    }  # fmt: skip

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x, w = present(self.name, "x", types[0]), present(self.name, "w", types[1])
        ic, oc = self._check_weight(attrs, w)
        require_images(self.name, x, ic)
        y = Type((x.shape[0], *self._out(attrs, x.shape[1:3], w.shape[:2]), oc))
        channel_vector(self.name, "bias", types[2] if len(types) > 2 else None, oc)
        if len(types) > 3 and types[3] is not None:
            same_shape(self.name, "residual", types[3], y.shape)
        if attrs["norm"]:
            self._check_norm(types[4:], ic)
        return (y, Type((oc,)), Type((oc,))) if attrs["stats"] else (y,)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        if node.attrs["activation"] != "none" or node.attrs["stats"] or node.attrs["norm"]:
            raise ValueError("conv_fwd: differentiate before activations, statistics and normalisations are fused")
        x, w, dy, shared = node.inputs[0], node.inputs[1], douts[0], _geometry(node.attrs)
        assert x is not None and w is not None and dy is not None
        shared |= {"kernel_h": w.shape[0], "kernel_w": w.shape[1]}
        found: list[Value | None] = [None] * len(node.inputs)
        if needed[0]:
            found[0] = b.op("conv_bwd_data", dy, w, in_h=x.shape[1], in_w=x.shape[2], **shared)
        if needed[1]:
            found[1] = b.op("conv_bwd_weights", x, dy, **shared)
        if len(needed) > 2 and needed[2]:
            found[2] = b.op("reduce", dy, kind="sum", axes=(0, 1, 2))
        if len(needed) > 3 and needed[3]:
            found[3] = dy
        return found

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        return (3,) if node.attrs["norm"] else (0, 3), () if node.attrs["stats"] else (0,)  # what is gathered or normalised has no gaps

    def step_attrs(self, attrs: Mapping[str, Any]) -> dict[str, int | float]:
        return {**super().step_attrs(attrs), **epilogue_attrs(attrs), **_norm_attrs(attrs)}

    def reference(
        self,
        attrs: Mapping[str, Any],
        x: np.ndarray,
        w: np.ndarray,
        bias: np.ndarray | None = None,
        residual: np.ndarray | None = None,
        *norm: np.ndarray | None,
    ) -> tuple[np.ndarray, ...]:
        x = _normalised(attrs, x, norm)
        rows, columns = windows_of(attrs, x.shape[1:3], w.shape[:2])
        groups = attrs["groups"]
        picture = padded(x, rows, columns)
        y = np.zeros((x.shape[0], rows.out, columns.out, w.shape[3]), np.result_type(x, w))
        for ky, kx, where in taps(rows, columns):
            for ins, outs in zip(_group_slices(x.shape[3], groups), _group_slices(w.shape[3], groups), strict=True):
                y[..., outs] += picture[where][..., ins] @ w[ky, kx][:, outs]
        if bias is not None:
            y += bias
        if residual is not None:
            y += residual
        y = np.asarray(unary.KINDS[attrs["activation"]].f(y, attrs["alpha"], attrs["beta"]), dtype=y.dtype)
        return (y, y.mean((0, 1, 2)), y.var((0, 1, 2))) if attrs["stats"] else (y,)

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        return _macs(present(self.name, "w", types[1]), outs[0].shape[1] * outs[0].shape[2])


@register
class ConvBwdData(_Conv):
    """dy, w -> dx of extents in_h, in_w: every dy spread back over the pixels that its window saw. Also the transposed convolution.

    dy, w, x, mean, var, [gamma], [beta] -> dx, sums if ``sums``: those that ``bn_bwd`` begins with where dx is the gradient of
    ``bn_apply`` on these operands, with its eps and activation.
    """

    name = "conv_bwd_data"
    defaults: ClassVar[Mapping[str, Any]] = {
        **_CONV_DEFAULTS, "in_h": 0, "in_w": 0, "sums": False, "eps": 1e-5, "activation": "none", "alpha": 0.0, "beta": 0.0
    }  # fmt: skip

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        dy, w = present(self.name, "dy", types[0]), present(self.name, "w", types[1])
        ic, oc = self._check_weight(attrs, w)
        require_images(self.name, dy, oc)
        extents = attrs["in_h"], attrs["in_w"]
        same_shape(self.name, "dy", dy, (dy.shape[0], *self._out(attrs, extents, w.shape[:2]), oc))
        dx = Type((dy.shape[0], *extents, ic))
        if not attrs["sums"]:
            return (dx,)
        same_shape(self.name, "x", present(self.name, "x", types[2]), dx.shape)
        self._check_norm(types[3:], ic)
        return dx, Type((2 * ic,))

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        return (0,), () if node.attrs["sums"] else (0,)

    def step_attrs(self, attrs: Mapping[str, Any]) -> dict[str, int | float]:
        return {**super().step_attrs(attrs), **({"eps": float(attrs["eps"]), **epilogue_attrs(attrs)} if attrs["sums"] else {})}

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        if node.attrs["sums"]:
            raise ValueError("conv_bwd_data: differentiate before sums are fused")
        dy, w, ddx, shared = node.inputs[0], node.inputs[1], douts[0], _geometry(node.attrs)
        assert w is not None
        shared |= {"kernel_h": w.shape[0], "kernel_w": w.shape[1]}
        return [
            b.op("conv_fwd", ddx, w, **shared) if needed[0] else None,
            b.op("conv_bwd_weights", ddx, dy, **shared) if needed[1] else None,
        ]

    def reference(
        self, attrs: Mapping[str, Any], dy: np.ndarray, w: np.ndarray, x: np.ndarray | None = None, *norm: np.ndarray | None
    ) -> tuple[np.ndarray, ...]:
        rows, columns = windows_of(attrs, (attrs["in_h"], attrs["in_w"]), w.shape[:2])
        groups = attrs["groups"]
        picture = np.zeros(
            (dy.shape[0], rows.before + rows.extent + rows.after, columns.before + columns.extent + columns.after, w.shape[2] * groups),
            np.result_type(dy, w),
        )
        for ky, kx, where in taps(rows, columns):
            for ins, outs in zip(_group_slices(picture.shape[3], groups), _group_slices(w.shape[3], groups), strict=True):
                picture[where][..., ins] += dy[..., outs] @ w[ky, kx][:, outs].T
        top, left = rows.before, columns.before
        dx = np.ascontiguousarray(picture[:, top : top + rows.extent, left : left + columns.extent])
        return (dx,) if x is None else (dx, gradient_sums(attrs, x, dx, *norm))

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        dy = present(self.name, "dy", types[0])
        return _macs(present(self.name, "w", types[1]), dy.shape[1] * dy.shape[2])


@register
class ConvBwdWeights(_Conv):
    """x, dy -> dw: for every kernel position the product of dy with the pixels that it met there.

    x, dy, mean, var, [gamma], [beta] if ``norm``: as in ``conv_fwd``.
    """

    name = "conv_bwd_weights"
    defaults: ClassVar[Mapping[str, Any]] = {**_CONV_DEFAULTS, **_NORM_DEFAULTS}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x, dy = present(self.name, "x", types[0]), present(self.name, "dy", types[1])
        require_images(self.name, x)
        require_images(self.name, dy)
        kernel, groups = (attrs["kernel_h"], attrs["kernel_w"]), attrs["groups"]
        if x.shape[3] % groups or dy.shape[3] % groups:
            raise ValueError(f"{self.name}: channels of x {show(x.shape)} and dy {show(dy.shape)} do not divide into {groups} groups")
        same_shape(self.name, "dy", dy, (x.shape[0], *self._out(attrs, x.shape[1:3], kernel), dy.shape[3]))
        if attrs["norm"]:
            self._check_norm(types[2:], x.shape[3])
        return (Type((*kernel, x.shape[3] // groups, dy.shape[3])),)

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        return (1,) if node.attrs["norm"] else (0, 1), ()

    def step_attrs(self, attrs: Mapping[str, Any]) -> dict[str, int | float]:
        return {**super().step_attrs(attrs), **_norm_attrs(attrs)}

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        if node.attrs["norm"]:
            raise ValueError("conv_bwd_weights: differentiate before normalisations are fused")
        x, dy, ddw, shared = node.inputs[0], node.inputs[1], douts[0], _geometry(node.attrs)
        assert x is not None
        return [
            b.op("conv_bwd_data", dy, ddw, in_h=x.shape[1], in_w=x.shape[2], **shared) if needed[0] else None,
            b.op("conv_fwd", x, ddw, **shared) if needed[1] else None,
        ]

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray, dy: np.ndarray, *norm: np.ndarray | None) -> tuple[np.ndarray, ...]:
        x = _normalised(attrs, x, norm)
        rows, columns = windows_of(attrs, x.shape[1:3], (attrs["kernel_h"], attrs["kernel_w"]))
        groups = attrs["groups"]
        picture = padded(x, rows, columns)
        dw = np.zeros((rows.kernel, columns.kernel, x.shape[3] // groups, dy.shape[3]), np.result_type(x, dy))
        for ky, kx, where in taps(rows, columns):
            for ins, outs in zip(_group_slices(x.shape[3], groups), _group_slices(dy.shape[3], groups), strict=True):
                dw[ky, kx][:, outs] = np.tensordot(picture[where][..., ins], dy[..., outs], axes=((0, 1, 2), (0, 1, 2)))
        return (dw,)

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        dy = present(self.name, "dy", types[1])
        return _macs(outs[0], dy.shape[1] * dy.shape[2])


def conv2d(
    x: TensorLike,
    w: TensorLike,
    b: TensorLike | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    fit: Fit = "floor",
    algorithm: str = "automatic",
) -> Any:
    """2-D convolution (cross-correlation) of pictures with filters.

    ``y[n, oy, ox, o] = b[o] + sum x[n, oy * s - p + ky * d, ox * s - p + kx * d, i] * w[ky, kx, i, o]``

    Parameters
    ----------
    x : (n, h, w, c), float32; other float or integer arrays are converted.
    w : (kh, kw, c / groups, oc). Depthwise: groups = c, (kh, kw, 1, c * m), output channel ``c * m + j``.
    b : (oc,) or None.
    stride, dilation : int or (vertical, horizontal).
    padding : int, (vertical, horizontal), ((top, bottom), (left, right)), "valid" ("narrow") = 0, "same" = ceil(h / stride) positions
        with the extra zero at the end (ONNX SAME_UPPER), "same_lower", "full" ("wide") = dilation * (k - 1) on each side.
    fit : what happens where the stride does not fit, see ``wiesel.ops.geometry``.
    algorithm : "automatic" (chosen by shape), "direct" (the same sums at every position: a moved picture gives moved bits), "winograd2" or
        "winograd4" (3x3, stride 1), "depthwise" (one input channel per group), "planar" (made for few channels), "ref".

    Returns y (n, oh, ow, oc) with ``oh = (h - d * (kh - 1) - 1 + padding) / stride + 1``. Raises ValueError when shapes do not fit
    together, naming them and the mend.

    LeCun et al. 1998. Grouped: Krizhevsky et al. 2012; dilated: Yu and Koltun 2016.

    >>> image = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 0, 0]])
    >>> x_filter = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    >>> conv2d(image[None, ..., None], x_filter[..., None, None])[0, ..., 0]
    array([[4., 3., 4.],
           [2., 4., 3.],
           [2., 3., 4.]], dtype=float32)
    """
    attrs = _conv2d_attrs("conv2d", shape_of(x), shape_of(w), stride, padding, dilation, groups, fit, algorithm)
    return call("conv_fwd", [x, w] if b is None else [x, w, b], attrs)


def conv2d_backward(
    dy: TensorLike,
    x: TensorLike,
    w: TensorLike,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    fit: Fit = "floor",
    algorithm: str = "automatic",
) -> tuple[Any, Any, Any]:
    """Gradients ``(dx, dw, db)`` of ``conv2d`` for its operands, from the gradient ``dy`` of its output. Parameters as there.

    >>> dx, dw, db = conv2d_backward(np.ones((1, 2, 2, 1)), np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 1)))
    >>> dx[0, ..., 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]], dtype=float32)
    """
    xs = shape_of(x)
    attrs = _conv2d_attrs("conv2d_backward", xs, shape_of(w), stride, padding, dilation, groups, fit, algorithm)
    dx = call("conv_bwd_data", [dy, w], {**attrs, "in_h": xs[1], "in_w": xs[2]})
    return dx, call("conv_bwd_weights", [x, dy], attrs), reduce.sum(dy, (0, 1, 2))


def conv1d(
    x: TensorLike,
    w: TensorLike,
    b: TensorLike | None = None,
    *,
    stride: int = 1,
    padding: int | str | tuple[int, int] = 0,
    dilation: int = 1,
    groups: int = 1,
    fit: Fit = "floor",
) -> Any:
    """1-D convolution over (n, length, c) with a weight (k, c / groups, oc): the same as ``conv2d`` of height 1.

    ``padding`` is an int, (before, after), or a name as in ``conv2d``.

    >>> conv1d(np.array([1, 1, 1, 1, 0, 0])[None, :, None], np.array([1, -1])[:, None, None]).ravel()
    array([0., 0., 0., 1., 0.], dtype=float32)
    """
    attrs, flat_x, flat_w = _conv1d("conv1d", x, w, stride, padding, dilation, groups, fit)
    y = call("conv_fwd", [flat_x, flat_w] if b is None else [flat_x, flat_w, b], attrs)
    return _drop_height(y)


def conv1d_backward(
    dy: TensorLike,
    x: TensorLike,
    w: TensorLike,
    *,
    stride: int = 1,
    padding: int | str | tuple[int, int] = 0,
    dilation: int = 1,
    groups: int = 1,
    fit: Fit = "floor",
) -> tuple[Any, Any, Any]:
    """Gradients ``(dx, dw, db)`` of ``conv1d``, from the gradient ``dy`` of its output."""
    attrs, flat_x, flat_w = _conv1d("conv1d_backward", x, w, stride, padding, dilation, groups, fit)
    ds, xs, ws = shape_of(dy), shape_of(x), shape_of(w)
    flat_dy = with_shape(dy, (ds[0], 1, *ds[1:]))
    dx = call("conv_bwd_data", [flat_dy, flat_w], {**attrs, "in_h": 1, "in_w": xs[1]})
    dw = call("conv_bwd_weights", [flat_x, flat_dy], attrs)
    return with_shape(dx, xs), with_shape(dw, ws), reduce.sum(dy, (0, 1))


def conv_transpose2d(
    x: TensorLike,
    w: TensorLike,
    b: TensorLike | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Any:
    """Transposed convolution: every pixel of x, times the filter, is added to the output at ``position * stride - padding``.

    It is the backward-data direction of the convolution that has the same weight (kh, kw, oc / groups, c), from this output to this input:
    (n, h, w, c) -> (n, oh, ow, oc) with ``oh = (h - 1) * stride - padding + dilation * (kh - 1) + 1 + output_padding``.
    ``padding`` (numbers, as in ``conv2d``) removes border; ``output_padding`` (less than the stride) tells which of the output sizes, that
    the convolution would map to the same input size, is meant.

    Zeiler et al. 2010.

    >>> conv_transpose2d(np.ones((1, 1, 2, 1)), np.ones((1, 3, 1, 1)), stride=2)[0, 0, :, 0]
    array([1., 1., 2., 1., 1.], dtype=float32)
    """
    attrs = _transpose_attrs("conv_transpose2d", shape_of(x), shape_of(w), stride, padding, output_padding, dilation, groups)
    y = call("conv_bwd_data", [x, w], attrs)
    return y if b is None else call("binary", [y, b], {"kind": "add"})


def conv_transpose2d_backward(
    dy: TensorLike,
    x: TensorLike,
    w: TensorLike,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> tuple[Any, Any, Any]:
    """Gradients ``(dx, dw, db)`` of ``conv_transpose2d``: a convolution of ``dy``, and a backward-weights with x in the place of dy."""
    attrs = _transpose_attrs("conv_transpose2d_backward", shape_of(x), shape_of(w), stride, padding, output_padding, dilation, groups)
    attrs = {name: value for name, value in attrs.items() if name not in ("in_h", "in_w")}
    return call("conv_fwd", [dy, w], attrs), call("conv_bwd_weights", [dy, x], attrs), reduce.sum(dy, (0, 1, 2))


def _check_groups(op: str, groups: int) -> None:
    if not isinstance(groups, int) or isinstance(groups, bool) or groups < 1:
        raise ValueError(f"{op}: groups must be an int of at least 1, got {groups!r}")


def _conv2d_attrs(
    op: str, x: tuple[int, ...], w: tuple[int, ...], stride: Any, padding: Padding, dilation: Any, groups: int, fit: Fit, algorithm: str
) -> dict[str, Any]:
    _check_groups(op, groups)
    if algorithm not in ALGORITHMS:
        raise ValueError(f"{op}: algorithm must be one of {', '.join(ALGORITHMS)}, got {algorithm!r}")
    if len(w) != 4:
        raise ValueError(f"{op}: expected w of shape (kh, kw, c / groups, oc), got {show(w)}")
    require_image_shape(op, x, w[2] * groups)
    rows, columns = windows2d(op, x[1:3], (w[0], w[1]), stride, dilation, padding, fit)
    return {**window_attrs(rows, columns, kernel=True), "groups": groups, "algorithm": algorithm}


def _conv1d(
    op: str, x: TensorLike, w: TensorLike, stride: int, padding: int | str | tuple[int, int], dilation: int, groups: int, fit: Fit
) -> tuple[dict[str, Any], Any, Any]:
    """Attributes, and x and w with a height of 1."""
    xs, ws = shape_of(x), shape_of(w)
    _check_groups(op, groups)
    if len(ws) != 3:
        raise ValueError(f"{op}: expected w of shape (k, c / groups, oc), got {show(ws)}")
    if len(xs) != 3:
        mend = "; the channel axis is missing: use x[..., None]" if len(xs) == 2 else ""
        raise ValueError(f"{op}: expected x of shape (n, length, c), got {show(xs)}{mend}")
    if xs[2] != ws[1] * groups:
        mend = "; this looks like (n, c, length): use x.transpose(0, 2, 1)" if xs[1] == ws[1] * groups else ""
        raise ValueError(f"{op}: the weights take {ws[1] * groups} channels but x of shape {show(xs)} has {xs[2]}{mend}")
    side = padding if isinstance(padding, (int, str)) else (int(padding[0]), int(padding[1]))
    (_, step), (_, spacing) = pair(stride, "stride", op), pair(dilation, "dilation", op)
    columns = window(op, "length", xs[1], ws[0], step, spacing, side, fit)
    attrs = {**window_attrs(Window(1, 1), columns, kernel=True), "groups": groups}
    return attrs, with_shape(x, (xs[0], 1, *xs[1:])), with_shape(w, (1, *ws))


def _drop_height(y: TensorLike) -> Any:
    n, _, length, channels = shape_of(y)
    return with_shape(y, (n, length, channels))


def _transpose_attrs(
    op: str, x: tuple[int, ...], w: tuple[int, ...], stride: Any, padding: Padding, output_padding: Any, dilation: Any, groups: int
) -> dict[str, Any]:
    _check_groups(op, groups)
    if len(w) != 4:
        raise ValueError(f"{op}: expected w of shape (kh, kw, oc / groups, c), got {show(w)}")
    require_image_shape(op, x, w[3])
    strides, dilations = pair(stride, "stride", op), pair(dilation, "dilation", op)
    more = pair(output_padding, "output_padding", op, minimum=0)
    sides = split_padding(op, padding)
    found = []
    for i, axis in enumerate(("height", "width")):
        side = sides[i]
        if isinstance(side, str):
            if side in ("same", "same_lower"):
                raise ValueError(f"{op}: padding must be numbers: the size that {side!r} would keep is not known here")
            side = (0, 0) if side in ("valid", "narrow") else (dilations[i] * (w[i] - 1),) * 2
        assert not isinstance(side, int)
        if more[i] >= strides[i]:
            raise ValueError(f"{op}: output_padding {more[i]} along the {axis} must be less than the stride {strides[i]}")
        extent = (x[1 + i] - 1) * strides[i] - side[0] - side[1] + dilations[i] * (w[i] - 1) + 1 + more[i]
        if extent < 1:
            raise ValueError(f"{op}: padding {side} leaves nothing of the {axis} of x {show(x)}")
        found.append(Window(extent, w[i], strides[i], dilations[i], side[0], side[1]))
    rows, columns = found
    return {**window_attrs(rows, columns, kernel=True), "groups": groups, "in_h": rows.extent, "in_w": columns.extent}
