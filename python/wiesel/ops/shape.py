"""Ops that only move numbers: reshape, flatten, transpose, slice, concat, pad, broadcast, fill, stop_gradient.

Reshapes are other extents over the same storage. The rest is the opcode ``copy`` between views with any strides, and ``fill``.
Elements are in row order (the last axis fastest): flattening (h, w, c) gives ``(y * w + x) * c + channel``.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wiesel.graph.ir import BATCH, Builder, Node, Type, Value, dense_strides
from wiesel.graph.tensor import Tensor
from wiesel.ops.arguments import TensorLike, normalize_axes, present, shape_of, show
from wiesel.ops.base import Cost, Op, register
from wiesel.ops.dispatch import call

if TYPE_CHECKING:
    from wiesel.program.emit import Emitter

_ANY = ("f32", "u8", "i8", "i32")


def broadcast_strides(shape: Sequence[int], out: Sequence[int]) -> tuple[int, ...]:
    """Strides with which a dense tensor of ``shape`` is read as one of extents ``out``: 0 along the axes that are repeated."""
    dense = dense_strides(shape)
    missing = len(out) - len(shape)
    return tuple(
        0 if axis < missing or (shape[axis - missing] == 1 and extent != 1) else dense[axis - missing] for axis, extent in enumerate(out)
    )


def broadcast_shapes(op: str, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy's rule: axes are aligned at the end; extents are equal or one of them is 1. The batch extent stays in front."""
    rank = max(len(a), len(b))
    out = []
    for x, y in zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True):
        if x != y and 1 not in (x, y):
            raise ValueError(f"{op}: shapes {show(a)} and {show(b)} do not broadcast: {show((x,))} against {show((y,))}")
        out.append(y if x == 1 else x)
    if BATCH in out[1:]:
        raise ValueError(f"{op}: shapes {show(a)} and {show(b)} do not broadcast: the batch extent must stay the leading axis")
    return tuple(out)


def unbroadcast(b: Builder, dvalue: Value, t: Type) -> Value:
    """The gradient of an operand of type ``t`` from that of its broadcast form: the sum over the repeated axes."""
    if dvalue.shape == t.shape:
        return dvalue
    missing = dvalue.type.rank - t.rank
    axes = tuple(axis for axis, extent in enumerate(dvalue.shape) if axis < missing or (t.shape[axis - missing] == 1 and extent != 1))
    if axes:
        dvalue = b.op("reduce", dvalue, kind="sum", axes=axes, keepdims=True)
    return dvalue if dvalue.shape == t.shape else b.op("reshape", dvalue, shape=t.shape)


class _Move(Op):
    """Ops that compute nothing."""

    dtypes: ClassVar[Mapping[int, Sequence[str]]] = {0: _ANY}

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        return Cost()


@register
class Reshape(_Move):
    """x -> the same elements in row order under ``shape``. With a batch extent, that stays in front."""

    name = "reshape"
    defaults: ClassVar[Mapping[str, Any]] = {"shape": ()}
    alias = True

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x = present(self.name, "x", types[0])
        shape = tuple(int(e) for e in attrs["shape"])
        if x.has_batch != (bool(shape) and shape[0] == BATCH):
            raise ValueError(f"reshape: {show(x.shape)} cannot become {show(shape)}: the batch extent must stay the leading axis")
        if x.elements(1) != math.prod(builtins.abs(e) for e in shape):
            raise ValueError(f"reshape: {show(x.shape)} has {x.elements(1)} elements, {show(shape)} another number")
        return (Type(shape, x.dtype),)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        x = node.inputs[0]
        assert x is not None
        return [b.op("reshape", douts[0], shape=x.shape)]

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray) -> tuple[np.ndarray, ...]:
        return (x.reshape(attrs["shape"]),)  # a batch extent is -1 for NumPy too


@register
class StopGradient(_Move):
    """x -> x; nothing flows back."""

    name = "stop_gradient"
    alias = True

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        return (present(self.name, "x", types[0]),)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        return [None]

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray) -> tuple[np.ndarray, ...]:
        return (x,)


@register
class Transpose(_Move):
    """x -> axes in the order ``axes``."""

    name = "transpose"
    defaults: ClassVar[Mapping[str, Any]] = {"axes": ()}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x = present(self.name, "x", types[0])
        axes = tuple(attrs["axes"])
        if sorted(axes) != list(range(x.rank)):
            raise ValueError(f"transpose: axes {axes} are not an order of the {x.rank} axes of {show(x.shape)}")
        if x.has_batch and axes[0] != 0:
            raise ValueError(f"transpose: axes {axes} would move the batch axis of {show(x.shape)}, which must stay in front")
        return (Type(tuple(x.shape[axis] for axis in axes), x.dtype),)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        return [b.op("transpose", douts[0], axes=tuple(int(i) for i in np.argsort(node.attrs["axes"])))]

    def lower(self, em: Emitter, node: Node) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        strides = dense_strides(x.shape)
        view = em.view(x, y.shape, tuple(strides[axis] for axis in node.attrs["axes"]), 0)
        em.step("copy", [view], [em.tensor(y)])

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.ascontiguousarray(x.transpose(attrs["axes"])),)


@register
class Slice(_Move):
    """x -> elements ``starts[a] : stops[a] : steps[a]`` of every axis a (steps > 0). On the batch axis only all of it."""

    name = "slice"
    defaults: ClassVar[Mapping[str, Any]] = {"starts": (), "stops": (), "steps": ()}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x = present(self.name, "x", types[0])
        if not len(attrs["starts"]) == len(attrs["stops"]) == len(attrs["steps"]) == x.rank:
            raise ValueError(f"slice: {show(x.shape)} has {x.rank} axes, but starts, stops and steps name another number")
        extents = []
        for axis, extent in enumerate(x.shape):
            start, stop, step = attrs["starts"][axis], attrs["stops"][axis], attrs["steps"][axis]
            if extent == BATCH:
                if (start, stop, step) != (0, BATCH, 1):
                    raise ValueError(f"slice: the batch axis of {show(x.shape)} cannot be cut")
                extents.append(BATCH)
                continue
            if not 0 <= start < stop <= extent or step < 1:
                raise ValueError(f"slice: {start}:{stop}:{step} is empty or outside axis {axis} of {show(x.shape)}")
            extents.append(-(-(stop - start) // step))
        return (Type(tuple(extents), x.dtype),)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        x = node.inputs[0]
        assert x is not None
        return [b.op("place", douts[0], shape=x.shape, starts=node.attrs["starts"], steps=node.attrs["steps"])]

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        return (0,), (0,)

    def lower(self, em: Emitter, node: Node) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        if y.part_of is None:
            em.step("copy", [_strided_view(em, x, y.shape, node.attrs)], [em.tensor(y)])

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray) -> tuple[np.ndarray, ...]:
        cut = tuple(
            builtins.slice(start, None if stop == BATCH else stop, step)
            for start, stop, step in zip(attrs["starts"], attrs["stops"], attrs["steps"], strict=True)
        )
        return (np.ascontiguousarray(x[cut]),)


@register
class Place(_Move):
    """x -> ``value`` everywhere in a tensor of ``shape``, but x at ``starts[a] + i * steps[a]``: zero padding, the gradient of slice."""

    name = "place"
    defaults: ClassVar[Mapping[str, Any]] = {"shape": (), "starts": (), "steps": (), "value": 0.0}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x = present(self.name, "x", types[0])
        shape, starts, steps = attrs["shape"], attrs["starts"], attrs["steps"]
        if not len(shape) == len(starts) == len(steps) == x.rank:
            raise ValueError(f"place: {show(x.shape)} does not fit into {show(shape)}: other number of axes")
        for inner, outer, start, step in zip(x.shape, shape, starts, steps, strict=True):
            whole_batch = (inner, start, step, outer) == (BATCH, 0, 1, BATCH)
            if not whole_batch and not (inner > 0 and start >= 0 and step >= 1 and start + (inner - 1) * step < outer):
                raise ValueError(f"place: {show(x.shape)} from {tuple(starts)} in steps of {tuple(steps)} does not fit into {show(shape)}")
        return (Type(tuple(shape), x.dtype),)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        x, starts, steps = node.inputs[0], node.attrs["starts"], node.attrs["steps"]
        assert x is not None
        stops = tuple(BATCH if e == BATCH else s + (e - 1) * k + 1 for e, s, k in zip(x.shape, starts, steps, strict=True))
        return [b.op("slice", douts[0], starts=tuple(starts), stops=stops, steps=tuple(steps))]

    def lower(self, em: Emitter, node: Node) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        em.step("fill", [], [em.tensor(y)], value=float(node.attrs["value"]))
        em.step("copy", [em.tensor(x)], [_strided_view(em, y, x.shape, node.attrs)])

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray) -> tuple[np.ndarray, ...]:
        y = np.full(Type(tuple(attrs["shape"])).concrete(x.shape[0] if x.ndim else 1), attrs["value"], x.dtype)
        spots = tuple(
            builtins.slice(start, start + (extent - 1) * step + 1, step)
            for start, step, extent in zip(attrs["starts"], attrs["steps"], x.shape, strict=True)
        )
        y[spots] = x
        return (y,)


@register
class Concat(_Move):
    """Tensors -> one, joined along ``axis``."""

    name = "concat"
    defaults: ClassVar[Mapping[str, Any]] = {"axis": -1}
    dtypes: ClassVar[Mapping[int, Sequence[str]]] = {}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        given = [present(self.name, str(i), t) for i, t in enumerate(types)]
        if not given:
            raise ValueError("concat: at least one tensor is needed")
        first, axis = given[0], self._axis(attrs, given[0])
        if first.shape[axis] == BATCH:
            raise ValueError("concat: tensors cannot be joined along the batch axis")
        for t in given[1:]:
            fits = t.dtype == first.dtype and t.rank == first.rank
            if not fits or t.shape[:axis] + t.shape[axis + 1 :] != first.shape[:axis] + first.shape[axis + 1 :]:
                raise ValueError(f"concat: {t} does not fit beside {first} along axis {axis}: all other extents must be equal")
        shape = list(first.shape)
        shape[axis] = sum(t.shape[axis] for t in given)
        return (Type(tuple(shape), first.dtype),)

    def _axis(self, attrs: Mapping[str, Any], t: Type) -> int:
        return normalize_axes(self.name, attrs["axis"], t.rank)[0]

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        dy, y = douts[0], node.outputs[0]
        axis, start = self._axis(node.attrs, y.type), 0
        found: list[Value | None] = []
        for x, wanted in zip(node.inputs, needed, strict=True):
            assert x is not None
            starts, stops = [0] * y.type.rank, list(y.shape)
            starts[axis], stops[axis] = start, start + x.shape[axis]
            start = stops[axis]
            found.append(b.op("slice", dy, starts=tuple(starts), stops=tuple(stops), steps=(1,) * y.type.rank) if wanted else None)
        return found

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        return range(len(node.inputs)), (0,)

    def lower(self, em: Emitter, node: Node) -> None:
        y = node.outputs[0]
        axis, strides, start = self._axis(node.attrs, y.type), em.strides(y), 0
        for x in node.inputs:
            assert x is not None
            if x.part_of != (y, start):
                em.step("copy", [em.tensor(x)], [em.view(y, x.shape, strides, start * strides[axis])])
            start += x.shape[axis]

    def reference(self, attrs: Mapping[str, Any], *arrays: np.ndarray, **named: Any) -> tuple[np.ndarray, ...]:
        return (np.concatenate(arrays, axis=attrs["axis"]),)


@register
class Broadcast(_Move):
    """x, [like] -> x repeated to ``shape`` by NumPy's rule. Where x lacks the batch extent that ``shape`` has, ``like`` tells it."""

    name = "broadcast"
    defaults: ClassVar[Mapping[str, Any]] = {"shape": ()}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x, shape = present(self.name, "x", types[0]), tuple(attrs["shape"])
        if broadcast_shapes(self.name, x.shape, shape) != shape:
            raise ValueError(f"broadcast: {show(x.shape)} cannot be repeated to {show(shape)}")
        _check_like(self.name, shape, types, x.has_batch)
        return (Type(shape, x.dtype),)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        x, dy = node.inputs[0], douts[0]
        assert x is not None and dy is not None
        return [unbroadcast(b, dy, x.type), *[None] * (len(node.inputs) - 1)]

    def lower(self, em: Emitter, node: Node) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        em.step("copy", [em.view(x, y.shape, broadcast_strides(x.shape, y.shape), 0)], [em.tensor(y)])

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray, like: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        n = like.shape[0] if like is not None else x.shape[0] if x.ndim else 1
        return (np.ascontiguousarray(np.broadcast_to(x, Type(tuple(attrs["shape"])).concrete(n))),)


@register
class Fill(_Move):
    """[like] -> a tensor of ``shape`` that holds ``value`` everywhere. A batch extent in ``shape`` is that of ``like``."""

    name = "fill"
    defaults: ClassVar[Mapping[str, Any]] = {"shape": (), "value": 0.0}

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        _check_like(self.name, tuple(attrs["shape"]), [None, *types], False)
        return (Type(tuple(attrs["shape"])),)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        return [None] * len(node.inputs)

    def lower(self, em: Emitter, node: Node) -> None:
        em.step("fill", [], [em.tensor(node.outputs[0])], value=float(node.attrs["value"]))

    def reference(self, attrs: Mapping[str, Any], like: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        n = 1 if like is None else like.shape[0]
        return (np.full(Type(tuple(attrs["shape"])).concrete(n), attrs["value"]),)


def _check_like(op: str, shape: tuple[int, ...], types: Sequence[Type | None], has_batch: bool) -> None:
    """A batch extent in ``shape`` must come from an operand: x itself or ``like``, the second."""
    like = types[1] if len(types) > 1 else None
    if shape and shape[0] == BATCH and not has_batch and (like is None or not like.has_batch):
        raise ValueError(f"{op}: {show(shape)} has a batch extent, but no operand tells it")


def _strided_view(em: Emitter, value: Value, shape: Sequence[int], attrs: Mapping[str, Any]) -> int:
    strides = em.strides(value)
    offset = sum(start * stride for start, stride in zip(attrs["starts"], strides, strict=True))
    return em.view(value, tuple(shape), tuple(s * k for s, k in zip(strides, attrs["steps"], strict=True)), offset)


def with_shape(x: TensorLike, shape: Sequence[int]) -> Any:
    """``x`` under other extents, all of them given: an alias in a graph, a view of an array."""
    if isinstance(x, Tensor):
        return call("reshape", [x], {"shape": tuple(shape)})
    return np.reshape(np.asarray(x), tuple(shape))


def reshape(x: TensorLike, shape: Sequence[int]) -> Any:
    """The same elements in row order under other extents; one extent may be -1 and is worked out.

    A symbolic tensor with a free batch extent keeps it: its ``shape`` starts with -1 (or repeats ``x.shape[0]``), and the others are given.

    >>> reshape([[1.0, 2.0], [3.0, 4.0]], (4,))
    array([1., 2., 3., 4.], dtype=float32)
    """
    extents, given = shape_of(x), tuple(int(e) for e in shape)
    free = [axis for axis, extent in enumerate(given) if extent == -1]
    with_batch = bool(extents) and extents[0] == BATCH
    if with_batch and (not free or free[0] != 0):
        raise ValueError(f"reshape: {show(extents)} has a free batch extent, so the new shape must start with -1, got {given}")
    if with_batch:
        free = free[1:]
    if len(free) > 1:
        raise ValueError(f"reshape: only one extent may be -1, got {given}")
    if free:
        known = math.prod(builtins.abs(e) for e in given)
        total = math.prod(builtins.abs(e) for e in extents)
        if known == 0 or total % known:
            raise ValueError(f"reshape: {total} elements of {show(extents)} cannot be arranged as {given}")
        given = (*given[: free[0]], total // known, *given[free[0] + 1 :])
    return call("reshape", [x], {"shape": given})


def flatten(x: TensorLike, start: int = 1) -> Any:
    """Joins all axes from ``start`` on, in row order: (n, h, w, c) becomes (n, h * w * c), element ``(y * w + x) * c + channel``.

    >>> flatten([[[1.0, 2.0], [3.0, 4.0]]])
    array([[1., 2., 3., 4.]], dtype=float32)
    """
    extents = shape_of(x)
    if not 0 <= start < max(len(extents), 1) or (start == 0 and extents and extents[0] == BATCH):
        raise ValueError(f"flatten: start {start} is not an axis of {show(extents)} behind the batch axis")
    return call("reshape", [x], {"shape": (*extents[:start], math.prod(extents[start:]))})


def transpose(x: TensorLike, axes: Sequence[int]) -> Any:
    """Axes in another order, as ``numpy.transpose``: output axis i is input axis ``axes[i]``. The batch axis of a symbolic tensor stays."""
    rank = len(shape_of(x))
    return call("transpose", [x], {"axes": tuple(int(axis) % rank if -rank <= axis < rank else int(axis) for axis in axes)})


def concat(tensors: Sequence[TensorLike], axis: int = -1) -> Any:
    """Joins tensors along ``axis``, by default the channels; all other extents must be equal.

    >>> concat([[[1.0]], [[2.0]]])
    array([[1., 2.]], dtype=float32)
    """
    return call("concat", list(tensors), {"axis": axis})


def slice(x: TensorLike, cuts: Sequence[builtins.slice | int | None]) -> Any:
    """A part of ``x``: per axis a ``slice`` object with a step of at least 1, None for all of it, or an index, which drops the axis.

    Axes not named are taken whole. The batch axis of a symbolic tensor cannot be cut.

    >>> slice([[1.0, 2.0, 3.0]], [None, builtins.slice(1, 3)])
    array([[2., 3.]], dtype=float32)
    """
    extents = shape_of(x)
    if len(cuts) > len(extents):
        raise ValueError(f"slice: {len(cuts)} cuts for the {len(extents)} axes of {show(extents)}")
    starts, stops, steps, kept = [], [], [], []
    for axis, extent in enumerate(extents):
        cut = cuts[axis] if axis < len(cuts) else None
        if cut is None or cut == builtins.slice(None):
            start, stop, step = 0, extent, 1
        elif extent == BATCH:
            raise ValueError(f"slice: the batch axis of {show(extents)} cannot be cut; give None for it")
        elif isinstance(cut, builtins.slice):
            start, stop, step = cut.indices(extent)
        else:
            if not -extent <= cut < extent:
                raise ValueError(f"slice: index {cut} is outside axis {axis} of {show(extents)}")
            start = cut % extent
            stop, step = start + 1, 1
        starts.append(start)
        stops.append(stop)
        steps.append(step)
        if cut is None or isinstance(cut, builtins.slice):
            kept.append(axis)
    part = call("slice", [x], {"starts": tuple(starts), "stops": tuple(stops), "steps": tuple(steps)})
    found = shape_of(part)
    return part if len(kept) == len(extents) else call("reshape", [part], {"shape": tuple(found[axis] for axis in kept)})


def pad(x: TensorLike, widths: Sequence[int | Sequence[int]], value: float = 0.0) -> Any:
    """Surrounds ``x`` with ``value``: per axis a width for both sides or (before, after), as ``numpy.pad`` with constants.

    >>> pad([[1.0]], [0, (1, 2)])
    array([[0., 1., 0., 0.]], dtype=float32)
    """
    extents = shape_of(x)
    pairs = [(w, w) if isinstance(w, (int, np.integer)) else tuple(w) for w in widths]
    if len(pairs) != len(extents) or any(len(p) != 2 or min(p) < 0 for p in pairs):
        raise ValueError(f"pad: {show(extents)} needs a width of at least 0, or a pair, for each of its axes, got {list(widths)}")
    if extents and extents[0] == BATCH and tuple(pairs[0]) != (0, 0):
        raise ValueError(f"pad: the batch axis of {show(extents)} cannot be padded")
    shape = tuple(e if e == BATCH else e + p[0] + p[1] for e, p in zip(extents, pairs, strict=True))
    starts = tuple(int(p[0]) for p in pairs)
    return call("place", [x], {"shape": shape, "starts": starts, "steps": (1,) * len(shape), "value": float(value)})


def broadcast_to(x: TensorLike, shape: Sequence[int]) -> Any:
    """``x`` repeated to ``shape`` by NumPy's rule."""
    return call("broadcast", [x], {"shape": tuple(int(e) for e in shape)})


def stop_gradient(x: TensorLike) -> Any:
    """``x`` itself, a constant to the gradient: nothing flows back through it."""
    return call("stop_gradient", [x], {})
