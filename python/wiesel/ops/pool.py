"""Max, average and sum pooling over windows, and over the whole picture. No parameters; the depth is unchanged.

The gradient of a maximum goes to the pixel that had it, the first in row order where several had it (S-54, S-75); that of an average is
spread, that of a sum is copied. Padding never wins a maximum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from wiesel.graph.ir import Builder, Node, Type, Value
from wiesel.ops.arguments import TensorLike, present, require_dtype, require_image_shape, require_images, same_shape, shape_of
from wiesel.ops.base import Cost, Op, register
from wiesel.ops.conv import WINDOW_DEFAULTS, out_extent, padded, taps, windows_of
from wiesel.ops.dispatch import call
from wiesel.ops.geometry import Fit, Padding, Window, pair, window_attrs, windows2d
from wiesel.ops.kinds import POOL_KINDS
from wiesel.ops.shape import with_shape


class _Pool(Op):
    defaults: ClassVar[Mapping[str, Any]] = WINDOW_DEFAULTS

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        return (0,), (0,)  # the index of a maximum lies alone

    def step_attrs(self, attrs: Mapping[str, Any]) -> dict[str, int | float]:
        return {name: int(attrs[name]) for name in WINDOW_DEFAULTS}

    def _windows(self, attrs: Mapping[str, Any], extents: Sequence[int]) -> tuple[Window, Window]:
        return windows_of(attrs, extents, (attrs["kernel_h"], attrs["kernel_w"]))

    def _out(self, attrs: Mapping[str, Any], x: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output of pooling x."""
        found = [x[0]]
        for axis, w in zip(("height", "width"), self._windows(attrs, x[1:3]), strict=True):
            found.append(out_extent(self.name, axis, w))
            if (w.before or w.after) and not all(_meets_input(w, position) for position in range(w.out)):
                sides = f"({w.before}, {w.after})"
                raise ValueError(f"{self.name}: a window of {w.span} pixels lies wholly in the padding {sides} along the {axis}; pad less")
        return (*found, x[3])

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        windows = min(present(self.name, "operand", types[0]).elements(1), outs[0].elements(1))  # the output forward, dy backward
        return Cost(flops=windows * attrs["kernel_h"] * attrs["kernel_w"])


def _meets_input(w: Window, position: int) -> bool:
    first = position * w.stride - w.before
    return any(0 <= first + k * w.dilation < w.extent for k in range(w.kernel))


class _PoolBwd(_Pool):
    defaults: ClassVar[Mapping[str, Any]] = {**WINDOW_DEFAULTS, "in_h": 0, "in_w": 0}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        dy = present(self.name, "dy", types[0])
        require_images(self.name, dy)
        dx = (dy.shape[0], attrs["in_h"], attrs["in_w"], dy.shape[3])
        same_shape(self.name, "dy", dy, self._out(attrs, dx))
        return (Type(dx),)

    def _spread(self, attrs: Mapping[str, Any], dy: np.ndarray, share: Any) -> np.ndarray:
        """dx from ``share(tap)``, what the tap-th pixel of every window gets."""
        rows, columns = self._windows(attrs, (attrs["in_h"], attrs["in_w"]))
        dx = padded(np.zeros((dy.shape[0], rows.extent, columns.extent, dy.shape[3]), dy.dtype), rows, columns)
        for tap, (_, _, where) in enumerate(taps(rows, columns)):
            dx[where] += share(tap)
        top, left = rows.before, columns.before
        return np.ascontiguousarray(dx[:, top : top + rows.extent, left : left + columns.extent])


@register
class PoolMax(_Pool):
    """x -> y, [index]: the maximum of every window, and its position inside the window (row order; u8 up to 256 positions, else i32).

    Without ``index`` only y is written: a pass leaves out what no gradient reads.
    """

    name = "pool_max"
    defaults: ClassVar[Mapping[str, Any]] = {**WINDOW_DEFAULTS, "index": True}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x = present(self.name, "x", types[0])
        require_images(self.name, x)
        y = self._out(attrs, x.shape)
        index = Type(y, "u8" if attrs["kernel_h"] * attrs["kernel_w"] <= 256 else "i32")
        return (Type(y), index) if attrs["index"] else (Type(y),)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        x = node.inputs[0]
        assert x is not None
        window = {name: node.attrs[name] for name in WINDOW_DEFAULTS}
        return [b.op("pool_max_bwd", douts[0], node.outputs[1], **window, in_h=x.shape[1], in_w=x.shape[2])]

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray) -> tuple[np.ndarray, ...]:
        rows, columns = self._windows(attrs, x.shape[1:3])
        inside = padded(np.ones_like(x, dtype=bool), rows, columns)
        picture = padded(x, rows, columns)
        best = np.zeros((x.shape[0], rows.out, columns.out, x.shape[3]), x.dtype)
        seen, index = np.zeros(best.shape, bool), np.zeros(best.shape, np.int64)
        for tap, (_, _, where) in enumerate(taps(rows, columns)):
            value, valid = picture[where], inside[where]
            better = valid & (~seen | (value > best) | (np.isnan(value) & ~np.isnan(best)))  # strictly better: the first wins; NaN wins
            best[better], index[better] = value[better], tap
            seen |= valid
        if not attrs["index"]:
            return (best,)
        return best, index.astype(np.uint8 if attrs["kernel_h"] * attrs["kernel_w"] <= 256 else np.int32)


@register
class PoolMaxBwd(_PoolBwd):
    """dy, index -> dx: each dy is added to the pixel that had the maximum."""

    name = "pool_max_bwd"
    dtypes: ClassVar[Mapping[int, Sequence[str]]] = {1: ("u8", "i32")}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        index = present(self.name, "index", types[1])
        require_dtype(self.name, "index", index, "u8", "i32")
        same_shape(self.name, "index", index, present(self.name, "dy", types[0]).shape)
        return super().infer(attrs, types)

    def reference(self, attrs: Mapping[str, Any], dy: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, ...]:
        return (self._spread(attrs, dy, lambda tap: np.where(index == tap, dy, 0)),)


class _Average(_Pool):
    """What forward and backward of average and sum pooling share. ``count_padding``: an average divides by the window's area, else by
    the pixels inside the picture."""

    def step_attrs(self, attrs: Mapping[str, Any]) -> dict[str, int | float]:
        return {**super().step_attrs(attrs), "kind": POOL_KINDS[attrs["kind"]], "count_padding": int(attrs["count_padding"])}

    def _area(self, attrs: Mapping[str, Any], extents: Sequence[int], dtype: Any) -> Any:
        """What each sum is divided by: a number, or (1, oh, ow, 1)."""
        if attrs["kind"] == "sum":
            return 1
        if attrs["count_padding"]:
            return attrs["kernel_h"] * attrs["kernel_w"]
        rows, columns = self._windows(attrs, extents)
        inside = padded(np.ones((1, *extents, 1), dtype), rows, columns)
        return sum(inside[where] for _, _, where in taps(rows, columns))


@register
class PoolAvg(_Average):
    """x -> y: the average or the sum of every window."""

    name = "pool_avg"
    defaults: ClassVar[Mapping[str, Any]] = {**WINDOW_DEFAULTS, "kind": "average", "count_padding": True}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x = present(self.name, "x", types[0])
        require_images(self.name, x)
        return (Type(self._out(attrs, x.shape)),)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        x = node.inputs[0]
        assert x is not None
        return [b.op("pool_avg_bwd", douts[0], **node.attrs, in_h=x.shape[1], in_w=x.shape[2])]

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray) -> tuple[np.ndarray, ...]:
        rows, columns = self._windows(attrs, x.shape[1:3])
        picture = padded(x, rows, columns)
        y = np.zeros((x.shape[0], rows.out, columns.out, x.shape[3]), x.dtype)
        for _, _, where in taps(rows, columns):
            y += picture[where]
        return (y / self._area(attrs, x.shape[1:3], x.dtype),)


@register
class PoolAvgBwd(_PoolBwd, _Average):
    """dy -> dx: each dy, divided as its average was, is added to every pixel of its window."""

    name = "pool_avg_bwd"
    defaults: ClassVar[Mapping[str, Any]] = {**PoolAvg.defaults, "in_h": 0, "in_w": 0}

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        return [b.op("pool_avg", douts[0], **{name: node.attrs[name] for name in PoolAvg.defaults})]

    def reference(self, attrs: Mapping[str, Any], dy: np.ndarray) -> tuple[np.ndarray, ...]:
        share = dy / self._area(attrs, (attrs["in_h"], attrs["in_w"]), dy.dtype)
        return (self._spread(attrs, dy, lambda tap: share),)


def max_pool2d(
    x: TensorLike,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    fit: Fit = "floor",
) -> Any:
    """The largest value of every window, per channel: (n, h, w, c) -> (n, oh, ow, c). Where a window holds a NaN the result is NaN.

    ``stride`` is that of the windows, by default the kernel: windows side by side. Padding, dilation, fit and the output size as in
    ``conv2d``; padding never wins.

    >>> x = np.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
    >>> max_pool2d(x[None, ..., None], 2)[0, ..., 0]
    array([[6., 8.],
           [3., 4.]], dtype=float32)
    """
    return call("pool_max", [x], _attrs("max_pool2d", shape_of(x), kernel, stride, padding, dilation, fit))[0]


def max_pool2d_backward(
    dy: TensorLike,
    x: TensorLike,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    fit: Fit = "floor",
) -> Any:
    """Gradient of ``max_pool2d`` for x: each dy goes to the pixel that had the maximum, the first in row order where several had it.

    >>> max_pool2d_backward([[[[1.0]]]], np.array([[1, 3], [3, 0]])[None, ..., None], 2)[0, ..., 0]
    array([[0., 1.],
           [0., 0.]], dtype=float32)
    """
    xs = shape_of(x)
    attrs = _attrs("max_pool2d_backward", xs, kernel, stride, padding, dilation, fit)
    index = call("pool_max", [x], attrs)[1]
    return call("pool_max_bwd", [dy, index], {**attrs, "in_h": xs[1], "in_w": xs[2]})


def avg_pool2d(
    x: TensorLike,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    fit: Fit = "floor",
    count_padding: bool = True,
) -> Any:
    """The mean of every window, per channel. With ``count_padding`` padded zeros count (torch's default), else only the pixels inside.

    Other parameters as in ``max_pool2d``.

    >>> x = np.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
    >>> avg_pool2d(x[None, ..., None], 2)[0, ..., 0]
    array([[3.25, 5.25],
           [2.  , 2.  ]], dtype=float32)
    """
    attrs = _attrs("avg_pool2d", shape_of(x), kernel, stride, padding, 1, fit)
    return call("pool_avg", [x], {**attrs, "kind": "average", "count_padding": bool(count_padding)})


def avg_pool2d_backward(
    dy: TensorLike,
    x_shape: Sequence[int],
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    fit: Fit = "floor",
    count_padding: bool = True,
) -> Any:
    """Gradient of ``avg_pool2d`` for an input of ``x_shape``: each dy is spread evenly over its window.

    >>> avg_pool2d_backward([[[[4.0]]]], (1, 2, 2, 1), 2)[0, ..., 0]
    array([[1., 1.],
           [1., 1.]], dtype=float32)
    """
    attrs = _attrs("avg_pool2d_backward", tuple(x_shape), kernel, stride, padding, 1, fit)
    more = {"kind": "average", "count_padding": bool(count_padding), "in_h": x_shape[1], "in_w": x_shape[2]}
    return call("pool_avg_bwd", [dy], {**attrs, **more})


def sum_pool2d(
    x: TensorLike, kernel: int | Sequence[int], *, stride: int | Sequence[int] | None = None, padding: Padding = 0, fit: Fit = "floor"
) -> Any:
    """The sum of every window, per channel. Parameters as in ``max_pool2d``.

    >>> x = np.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
    >>> sum_pool2d(x[None, ..., None], 2)[0, ..., 0]
    array([[13., 21.],
           [ 8.,  8.]], dtype=float32)
    """
    attrs = _attrs("sum_pool2d", shape_of(x), kernel, stride, padding, 1, fit)
    return call("pool_avg", [x], {**attrs, "kind": "sum"})


def sum_pool2d_backward(
    dy: TensorLike,
    x_shape: Sequence[int],
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    fit: Fit = "floor",
) -> Any:
    """Gradient of ``sum_pool2d`` for an input of ``x_shape``: each dy is copied to every pixel of its window."""
    attrs = _attrs("sum_pool2d_backward", tuple(x_shape), kernel, stride, padding, 1, fit)
    return call("pool_avg_bwd", [dy], {**attrs, "kind": "sum", "in_h": x_shape[1], "in_w": x_shape[2]})


def global_avg_pool2d(x: TensorLike) -> Any:
    """The mean over height and width: (n, h, w, c) -> (n, c) (Lin et al. 2013).

    >>> global_avg_pool2d(np.arange(4.0).reshape(1, 2, 2, 1))
    array([[1.5]], dtype=float32)
    """
    n, h, w, c = _images("global_avg_pool2d", x)
    return with_shape(avg_pool2d(x, (h, w)), (n, c))


def global_max_pool2d(x: TensorLike) -> Any:
    """The maximum over height and width: (n, h, w, c) -> (n, c); the first in row order gets the gradient."""
    n, h, w, c = _images("global_max_pool2d", x)
    return with_shape(max_pool2d(x, (h, w)), (n, c))


def _images(op: str, x: TensorLike) -> tuple[int, ...]:
    shape = shape_of(x)
    require_image_shape(op, shape)
    return shape


def _attrs(op: str, x: tuple[int, ...], kernel: Any, stride: Any, padding: Padding, dilation: Any, fit: Fit) -> dict[str, Any]:
    require_image_shape(op, x)
    extents = pair(kernel, "kernel", op)
    rows, columns = windows2d(op, x[1:3], extents, extents if stride is None else stride, dilation, padding, fit)
    return window_attrs(rows, columns, kernel=True)
