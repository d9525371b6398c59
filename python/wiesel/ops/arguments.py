"""What ops share when they look at their operands: shapes, dtypes, and messages that name the mend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from wiesel.graph.ir import BATCH, Type

TensorLike: TypeAlias = Any
"""An array (anything that NumPy converts) or a symbolic tensor that flows through ``forward``."""


def shape_of(x: TensorLike) -> tuple[int, ...]:
    """Extents of an array, a nested list or a symbolic tensor (whose batch extent is ``BATCH``)."""
    shape = getattr(x, "shape", None)
    return tuple(shape) if shape is not None else np.shape(x)


def show(shape: Sequence[int]) -> str:
    """A shape for messages, with N for the batch extent."""
    inner = ", ".join("N" if e == BATCH else str(e) for e in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def present(op: str, name: str, value: Type | None) -> Type:
    if value is None:
        raise ValueError(f"{op}: operand {name} is missing")
    return value


def require_dtype(op: str, name: str, t: Type, *dtypes: str) -> None:
    if t.dtype not in dtypes:
        mend = "; turn pictures into floats with wl.ops.normalize(x, mean, scale)" if t.dtype == "u8" and "f32" in dtypes else ""
        raise TypeError(f"{op}: {name} has dtype {t.dtype}, expected {' or '.join(dtypes)}{mend}")


def require_images(op: str, t: Type, channels: int | None = None) -> None:
    """``t`` must be (n, h, w, c), with this many channels when given; what looks like another layout is told how to become one."""
    require_image_shape(op, t.shape, channels)
    require_dtype(op, "x", t, "f32")


def require_image_shape(op: str, shape: tuple[int, ...], channels: int | None = None) -> None:
    if len(shape) != 4:
        raise ValueError(f"{op}: expected x of shape (n, h, w, c), got {show(shape)}{_missing_axes(shape, channels)}")
    if channels is None or shape[3] == channels:
        return
    mend = "; this looks like NCHW: use x.transpose(0, 2, 3, 1)" if shape[1] == channels else ""
    raise ValueError(f"{op}: the weights take {channels} channels but x of shape {show(shape)} has {shape[3]}{mend}")


def _missing_axes(shape: tuple[int, ...], channels: int | None) -> str:
    if len(shape) == 2:
        return "; one picture without batch and channel axes: use x[None, ..., None]"
    if len(shape) == 3:
        if channels == shape[2] or (channels is None and shape[2] in (1, 3, 4)):
            return "; the batch axis is missing: use x[None]"
        if channels in (1, None):
            return "; the channel axis is missing: use x[..., None]"
    return ""


def channel_vector(op: str, name: str, t: Type | None, channels: int) -> None:
    """An optional (c,) operand."""
    if t is None:
        return
    require_dtype(op, name, t, "f32")
    if t.shape != (channels,):
        raise ValueError(f"{op}: {name} has shape {show(t.shape)}, expected {show((channels,))}: one value per channel")


def same_shape(op: str, name: str, t: Type, expected: tuple[int, ...]) -> None:
    if t.shape != expected:
        raise ValueError(f"{op}: {name} has shape {show(t.shape)}, expected {show(expected)}")


def normalize_axes(op: str, axes: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Axes as sorted non-negative numbers; None means all."""
    if axes is None:
        return tuple(range(rank))
    given = (axes,) if isinstance(axes, (int, np.integer)) else tuple(axes)
    for axis in given:
        if not -rank <= axis < rank:
            raise ValueError(f"{op}: axis {axis} does not exist in a tensor of {rank} axes")
    found = sorted({int(axis) % rank for axis in given})
    if len(found) != len(given):
        raise ValueError(f"{op}: axes {given} name one axis twice")
    return tuple(found)


def reduction_is_mean(op: str, reduction: str) -> bool:
    if reduction not in ("mean", "sum"):
        raise ValueError(f'{op}: reduction must be "mean" or "sum", got {reduction!r}')
    return reduction == "mean"
