"""Windows sliding over an axis: padding, stride, dilation, output size, receptive field. The one place that knows these rules.

With extent ``W``, window ``F`` (dilated: ``D = dilation * (F - 1) + 1``), total padding ``P`` and stride ``S`` the output has
``(W - D + P) / S + 1`` positions. When that is not a whole number, ``fit`` decides what happens:

=========  ==========================================================================================
``floor``  round down: the last pixels are not looked at (the default, as torch and Ng's course do)
``error``  raise, naming the nearest valid extents and padding
``pad``    add zeros until it fits, half of them in front, the odd one behind
``crop``   as ``floor``, and say which pixels are not looked at
=========  ==========================================================================================
"""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

Fit: TypeAlias = Literal["floor", "error", "pad", "crop"]
Padding: TypeAlias = int | str | Sequence[int] | Sequence[Sequence[int]]
"""An int; (vertical, horizontal); ((top, bottom), (left, right)); "valid" or "narrow"; "same"; "same_lower"; "full" or "wide"."""

_FORMS = "an int, a pair, ((top, bottom), (left, right)) or a name"
PADDING_NAMES = ("valid", "narrow", "same", "same_lower", "full", "wide")


@dataclass(frozen=True, slots=True)
class Window:
    """A window along one axis: extents, and the zeros before and after that were settled on."""

    extent: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    note: str = ""
    """What is worth telling about this axis (cropped pixels, uneven padding); empty otherwise."""

    @property
    def span(self) -> int:
        """Pixels from the first to the last one under the window."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def out(self) -> int:
        """Positions of the window."""
        return (self.extent + self.before + self.after - self.span) // self.stride + 1

    @property
    def unseen(self) -> int:
        """Pixels (padding included) at the end that no position covers."""
        return (self.extent + self.before + self.after - self.span) % self.stride


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """The part of the input that one unit sees, along one axis. The input itself is ``ReceptiveField()``.

    ``size`` pixels wide; neighbouring units are ``jump`` pixels apart; the first unit's field is centred at ``centre``
    (pixel i spans [i, i + 1), so the first pixel's centre is 0.5).

    >>> conv1 = ReceptiveField().through(kernel=11, stride=4)
    >>> conv1.through(kernel=3, stride=2).size
    19
    """

    size: int = 1
    jump: int = 1
    centre: float = 0.5

    def through(self, kernel: int, stride: int = 1, dilation: int = 1, before: int = 0) -> ReceptiveField:
        """The field behind one more window of this geometry."""
        span = dilation * (kernel - 1) + 1
        return ReceptiveField(
            self.size + (span - 1) * self.jump,
            self.jump * stride,
            self.centre + ((span - 1) / 2 - before) * self.jump,
        )


def pair(value: int | Sequence[int], name: str, op: str, *, minimum: int = 1) -> tuple[int, int]:
    """``value`` for both spatial axes: an int, or (vertical, horizontal)."""
    values: tuple[Any, ...] = ()
    if _is_int(value):
        values = (value, value)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        values = tuple(value)
    if len(values) != 2 or not all(_is_int(v) for v in values):
        raise TypeError(f"{op}: {name} must be an int or a pair (vertical, horizontal), got {value!r}")
    if min(values) < minimum:
        raise ValueError(f"{op}: {name} must be at least {minimum}, got {value!r}")
    return int(values[0]), int(values[1])


def same_padding(kernel: int, stride: int = 1, dilation: int = 1, extent: int | None = None, *, lower: bool = False) -> tuple[int, int]:
    """Zeros (before, after) with which the output has ``ceil(extent / stride)`` positions.

    With stride 1 that is ``(F - 1) / 2`` on each side, whatever the extent. An odd total puts the extra zero behind
    (ONNX ``SAME_UPPER``), or in front with ``lower`` (``SAME_LOWER``).
    """
    span = dilation * (kernel - 1) + 1
    if extent is None:
        if stride != 1:
            raise ValueError('"same" padding with a stride above 1 depends on the extent; give extent')
        total = span - 1
    else:
        total = max((-(-extent // stride) - 1) * stride + span - extent, 0)
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


def padding_table(kernels: Sequence[int] = (3, 5, 7, 11)) -> str:
    """Lines that tell the padding with which a stride-1 convolution keeps the size: the bigger the kernel, the larger.

    >>> print(padding_table((3, 4)))
    f = 3: p = 1
    f = 4: p = 1 before, 2 after
    """
    lines = []
    for kernel in kernels:
        before, after = same_padding(kernel)
        lines.append(f"f = {kernel}: p = {before}" if before == after else f"f = {kernel}: p = {before} before, {after} after")
    return "\n".join(lines)


def window(
    op: str,
    axis: str,
    extent: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    padding: int | str | tuple[int, int] = 0,
    fit: Fit = "floor",
) -> Window:
    """Settles padding and fit along one axis (``axis`` is "height", "width" or "length", for messages)."""
    if fit not in get_args(Fit):
        raise ValueError(f"{op}: fit must be one of {', '.join(get_args(Fit))}, got {fit!r}")
    span = dilation * (kernel - 1) + 1
    before, after = _sides(op, padding, extent, kernel, stride, dilation)
    found = Window(extent, kernel, stride, dilation, before, after)
    if extent + before + after < span:
        raise ValueError(
            f"{op}: the window spans {span} pixels (kernel {kernel}, dilation {dilation}) but the input has {axis} {extent}"
            f" + padding {before + after}; use a smaller kernel, or a padding of at least {span - extent} in total"
        )
    unseen = found.unseen
    if unseen == 0 or fit == "floor":
        return found
    if fit == "error":
        raise ValueError(_misfit(op, axis, found))
    if fit == "pad":
        more = stride - unseen
        return replace(found, before=before + more // 2, after=after + more - more // 2)
    pixels = max(0, unseen - after)
    what = f"the last {pixels} pixels are" if pixels > 1 else "the last pixel is" if pixels else "only padding is"
    return replace(found, note=f"{op}: {axis} {extent} does not fit kernel {kernel}, stride {stride}: {what} cropped")


def windows2d(
    op: str,
    extents: Sequence[int],
    kernel: Sequence[int],
    stride: int | Sequence[int],
    dilation: int | Sequence[int],
    padding: Padding,
    fit: Fit,
) -> tuple[Window, Window]:
    """The windows along height and width. Cropped pixels (``fit="crop"``) are reported by a warning."""
    strides, dilations = pair(stride, "stride", op), pair(dilation, "dilation", op)
    sides = split_padding(op, padding)
    rows, columns = (
        window(op, axis, extents[i], kernel[i], strides[i], dilations[i], sides[i], fit) for i, axis in enumerate(("height", "width"))
    )
    for found in (rows, columns):
        if found.note:
            warnings.warn(found.note, UserWarning, stacklevel=4)
    return rows, columns


def window_attrs(rows: Window, columns: Window, *, kernel: bool) -> dict[str, Any]:
    """The geometry under the attribute names of ops; ``kernel`` adds kernel_h and kernel_w."""
    attrs = {
        "stride_h": rows.stride, "stride_w": columns.stride,
        "pad_top": rows.before, "pad_bottom": rows.after, "pad_left": columns.before, "pad_right": columns.after,
        "dilation_h": rows.dilation, "dilation_w": columns.dilation,
    }  # fmt: skip
    if kernel:
        attrs |= {"kernel_h": rows.kernel, "kernel_w": columns.kernel}
    return attrs


def split_padding(op: str, padding: Padding) -> tuple[int | str | tuple[int, int], int | str | tuple[int, int]]:
    """Any form of padding, per axis: a name, or (before, after)."""
    if isinstance(padding, str):
        if padding not in PADDING_NAMES:
            raise ValueError(f"{op}: padding must be {_FORMS} ({', '.join(PADDING_NAMES)}), got {padding!r}")
        return padding, padding
    both: tuple[Any, Any]
    if _is_int(padding):
        both = (padding, padding)
    elif isinstance(padding, Sequence) and len(padding) == 2:
        both = (padding[0], padding[1])
    else:
        raise TypeError(f"{op}: padding must be {_FORMS}, got {padding!r}")
    sides: list[tuple[int, int]] = []
    for part in both:
        side: tuple[Any, ...] = (part, part) if _is_int(part) else tuple(part) if isinstance(part, Sequence) else ()
        if len(side) != 2 or not all(_is_int(v) for v in side):
            raise TypeError(f"{op}: padding must be {_FORMS}, got {padding!r}")
        if min(side) < 0:
            raise ValueError(f"{op}: padding must not be negative, got {padding!r}")
        sides.append((int(side[0]), int(side[1])))
    return sides[0], sides[1]


def _sides(op: str, padding: int | str | tuple[int, int], extent: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    if padding in ("valid", "narrow"):
        return 0, 0
    if padding in ("full", "wide"):
        return dilation * (kernel - 1), dilation * (kernel - 1)
    if padding in ("same", "same_lower"):
        return same_padding(kernel, stride, dilation, extent, lower=padding == "same_lower")
    if isinstance(padding, str):
        raise ValueError(f"{op}: padding must be numbers or one of {', '.join(PADDING_NAMES)}, got {padding!r}")
    return (padding, padding) if isinstance(padding, int) else padding


def _misfit(op: str, axis: str, w: Window) -> str:
    """Why the stride does not fit, and the nearest extents and padding with which it does."""
    total, missing = w.before + w.after, w.stride - w.unseen
    out = (w.extent + total - w.span) / w.stride + 1
    smaller, larger = w.extent - w.unseen, w.extent + missing
    extents = f"{smaller} or {larger}" if smaller > 0 and smaller + total >= w.span else f"{larger}"
    needed = total + missing
    left, right = needed // 2, needed - needed // 2
    first, last = ("left", "right") if axis == "width" else ("top", "bottom") if axis == "height" else ("before", "after")
    return (
        f"{op}: {axis} {w.extent}, kernel {w.kernel}, padding {total} in total, stride {w.stride} give"
        f" ({w.extent} - {w.span} + {total}) / {w.stride} + 1 = {out:g} positions. Nearest valid {axis}: {extents}."
        f" Nearest valid padding: {needed} in total ({left} {first}, {right} {last}), which makes it {w.extent + needed} and gives"
        f' {(w.extent + needed - w.span) // w.stride + 1}. Or choose fit="floor", "pad" or "crop"'
    )


def _is_int(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
