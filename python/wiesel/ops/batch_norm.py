"""Batch normalisation (Ioffe and Szegedy 2015): per channel, over all axes but the last.

    y = (x - mean) / sqrt(var + eps) * gamma + beta

In training mean and var are those of the batch (``batch_stats``; the gradient goes through them), in inference or when frozen the running
ones, which are constants. The running statistics follow torch: ``running = (1 - momentum) * running + momentum * batch``, with the
unbiased variance of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wiesel.graph.ir import Builder, Node, Type, Value
from wiesel.ops import unary
from wiesel.ops.arguments import TensorLike, channel_vector, present, require_dtype, same_shape
from wiesel.ops.base import Cost, Op, register
from wiesel.ops.dispatch import call
from wiesel.ops.kinds import epilogue_attrs

if TYPE_CHECKING:
    from wiesel.program.emit import Emitter


def _channels(op: str, t: Type | None) -> tuple[Type, int]:
    x = present(op, "x", t)
    require_dtype(op, "x", x, "f32")
    if x.rank < 2:
        raise ValueError(f"{op}: expected x of shape (n, …, c), got {x}")
    return x, x.shape[-1]


def _front(x: np.ndarray) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))


@register
class BnStats(Op):
    """x -> mean (c), var (c): biased, over all axes but the last."""

    name = "bn_stats"

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        _, channels = _channels("batch_stats", types[0])
        return Type((channels,)), Type((channels,))

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        raise ValueError("batch_stats: its gradient is part of batch_norm's; statistics with a gradient of their own: mean, square")

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        return (0,), ()

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray) -> tuple[np.ndarray, ...]:
        return x.mean(_front(x)), x.var(_front(x))

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        return Cost(flops=3 * present(self.name, "x", types[0]).elements(1))


@register
class BnApply(Op):
    """x, mean, var, [gamma], [beta], [residual] -> y = activation((x - mean) * gamma / sqrt(var + eps) + beta + residual).

    Unless ``frozen``, mean and var are the statistics of x itself and their share of the gradient is part of dx.
    """

    name = "bn_apply"
    defaults: ClassVar[Mapping[str, Any]] = {"eps": 1e-5, "frozen": False, "activation": "none", "alpha": 0.0, "beta": 0.0}
    in_place = ((0, 0), (5, 0))

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x, channels = _channels("batch_norm", types[0])
        for name, t in zip(("mean", "var", "gamma", "beta"), types[1:5], strict=False):
            channel_vector("batch_norm", name, t, channels)
        present("batch_norm", "mean", types[1])
        present("batch_norm", "var", types[2])
        if len(types) > 5 and types[5] is not None:
            same_shape("batch_norm", "residual", types[5], x.shape)
        return (x,)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        if node.attrs["activation"] != "none":
            raise ValueError("batch_norm: differentiate before activations are fused")
        if node.attrs["frozen"] and any(needed[1:3]):
            raise ValueError("batch_norm: with frozen=True mean and var are constants, but their gradient is wanted")
        x, mean, var, gamma, beta, residual = (*node.inputs, None, None, None)[:6]
        results = b.op("bn_bwd", x, douts[0], mean, var, gamma, beta, eps=node.attrs["eps"], frozen=node.attrs["frozen"])
        parts = list(results) if isinstance(results, tuple) else [results]
        found: list[Value | None] = [None] * len(node.inputs)
        found[0] = parts.pop(0)
        for position, operand in ((3, gamma), (4, beta)):
            if operand is not None:
                found[position] = parts.pop(0)
        if residual is not None:
            found[5] = douts[0]
        return found

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        return (0, 5), (0,)

    def step_attrs(self, attrs: Mapping[str, Any]) -> dict[str, int | float]:
        return {"eps": float(attrs["eps"]), **epilogue_attrs(attrs)}

    def reference(
        self,
        attrs: Mapping[str, Any],
        x: np.ndarray,
        mean: np.ndarray,
        var: np.ndarray,
        gamma: np.ndarray | None = None,
        beta: np.ndarray | None = None,
        residual: np.ndarray | None = None,
    ) -> tuple[np.ndarray, ...]:
        y = (x - mean) / np.sqrt(var + attrs["eps"])
        y = y if gamma is None else y * gamma
        y = y if beta is None else y + beta
        y = y if residual is None else y + residual
        return (np.asarray(unary.KINDS[attrs["activation"]].f(y, attrs["alpha"], attrs["beta"]), dtype=y.dtype),)

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        return Cost(flops=2 * outs[0].elements(1))


@register
class BnBwd(Op):
    """x, dy, mean, var, [gamma], [beta], [y], [sums] -> dx, then dgamma, dbeta where these exist, and dresidual if ``residual``.

    With xhat = (x - mean) / sqrt(var + eps) and means m over all axes but the last:
    dx = gamma / sqrt(var + eps) * (dy - m(dy) - xhat * m(dy * xhat)), or when frozen gamma / sqrt(var + eps) * dy;
    dgamma = sum(dy * xhat), dbeta = sum(dy). With a fused activation dy is first multiplied by its derivative, which is read off y;
    without y (never when frozen) that of ``bn_apply`` on these inputs is meant, which is computed anew from x. ``sums`` are
    ``gradient_sums``, where what made dy has gathered them.
    """

    name = "bn_bwd"
    defaults: ClassVar[Mapping[str, Any]] = {**BnApply.defaults, "residual": False}
    in_place = ((1, 0),)

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x, channels = _channels("batch_norm_backward", types[0])
        same_shape("batch_norm_backward", "dy", present("batch_norm_backward", "dy", types[1]), x.shape)
        vector = Type((channels,))
        gamma, beta = (*types[4:6], None, None)[:2]
        channel_vector("batch_norm_backward", "sums", types[7] if len(types) > 7 else None, 2 * channels)
        return (x, *[vector for t in (gamma, beta) if t is not None], *([x] if attrs["residual"] else []))

    def takes_parts(self, node: Node) -> tuple[Sequence[int], Sequence[int]]:
        return (0, 1, 6), (0, len(node.outputs) - 1) if node.attrs["residual"] else (0,)

    def lower(self, em: Emitter, node: Node) -> None:
        gamma, beta = (*node.inputs[4:6], None, None)[:2]
        outs = [em.tensor(value) for value in node.outputs]
        wanted = (True, gamma is not None, beta is not None, node.attrs["residual"])
        operands = [outs.pop(0) if present else None for present in wanted]
        while operands[-1] is None:
            operands.pop()
        em.step(self.name, [None if v is None else em.tensor(v) for v in node.inputs], operands, **self.step_attrs(node.attrs))

    def step_attrs(self, attrs: Mapping[str, Any]) -> dict[str, int | float]:
        return {"eps": float(attrs["eps"]), "frozen": int(attrs["frozen"]), **epilogue_attrs(attrs)}

    def reference(
        self,
        attrs: Mapping[str, Any],
        x: np.ndarray,
        dy: np.ndarray,
        mean: np.ndarray,
        var: np.ndarray,
        gamma: np.ndarray | None = None,
        beta: np.ndarray | None = None,
        y: np.ndarray | None = None,
        sums: np.ndarray | None = None,
    ) -> tuple[np.ndarray, ...]:
        if sums is None:
            sums = gradient_sums(attrs, x, dy, mean, var, gamma, beta, y)
        dy = _masked(attrs, x, dy, mean, var, gamma, beta, y)
        scale, count = 1 / np.sqrt(var + attrs["eps"]), x.size / x.shape[-1]
        xhat = (x - mean) * scale
        of_dy, of_dy_xhat = sums[: x.shape[-1]], sums[x.shape[-1] :] * scale
        dxhat = dy if attrs["frozen"] else dy - of_dy / count - xhat * (of_dy_xhat / count)
        found = [dxhat * scale if gamma is None else dxhat * (scale * gamma)]
        if gamma is not None:
            found.append(of_dy_xhat)
        if beta is not None:
            found.append(of_dy)
        return (*found, dy) if attrs["residual"] else tuple(found)

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        return Cost(flops=8 * outs[0].elements(1))


def _masked(attrs: Mapping[str, Any], x: np.ndarray, dy: np.ndarray, *norm: np.ndarray | None) -> np.ndarray:
    """dy times the derivative of the activation behind the normalisation. ``norm`` are mean, var, [gamma], [beta] and [y]."""
    if attrs["activation"] == "none":
        return dy
    y = norm[4] if len(norm) > 4 else None
    if y is None:
        (y,) = BnApply().reference(attrs, x, *norm[:4])  # type: ignore[arg-type]
    return np.asarray(dy * unary.KINDS[attrs["activation"]].df(y, attrs["alpha"], attrs["beta"]))


def gradient_sums(attrs: Mapping[str, Any], x: np.ndarray, dy: np.ndarray, *norm: np.ndarray | None) -> np.ndarray:
    """(2c): per channel the sums of g and of g * (x - mean), where g is dy times the derivative of the activation. ``norm`` are mean,
    var, [gamma], [beta] and [y]."""
    g, mean, front = _masked(attrs, x, dy, *norm), norm[0], _front(x)
    return np.concatenate([g.sum(front), (g * (x - mean)).sum(front)])


@register
class BnRunning(Op):
    """mean, var, x, running_mean, running_var -> the running statistics after this batch; x only tells how many values there were."""

    name = "bn_running"
    defaults: ClassVar[Mapping[str, Any]] = {"momentum": 0.1}
    in_place = ((3, 0), (4, 1))
    unread = (2,)

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        _, channels = _channels("running_stats", types[2])
        for name, t in zip(("mean", "var", "x", "running_mean", "running_var"), types, strict=True):
            if name != "x":
                channel_vector("running_stats", name, present("running_stats", name, t), channels)
        return Type((channels,)), Type((channels,))

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        raise ValueError("running_stats: running statistics have no gradient; use stop_gradient")

    def reference(
        self,
        attrs: Mapping[str, Any],
        mean: np.ndarray,
        var: np.ndarray,
        x: np.ndarray,
        running_mean: np.ndarray,
        running_var: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        count = x.size // x.shape[-1]
        unbiased = var * (count / max(count - 1, 1))
        momentum = attrs["momentum"]
        return (1 - momentum) * running_mean + momentum * mean, (1 - momentum) * running_var + momentum * unbiased


def batch_stats(x: TensorLike) -> tuple[Any, Any]:
    """Mean and biased variance per channel, each (c,), over all axes but the last.

    Parts are merged by Chan's formula; never E[x²] - E[x]², which cancels.

    >>> batch_stats([[1.0], [3.0]])
    (array([2.], dtype=float32), array([1.], dtype=float32))
    """
    return call("bn_stats", [x], {})  # type: ignore[no-any-return]


def batch_norm(
    x: TensorLike,
    mean: TensorLike,
    var: TensorLike,
    gamma: TensorLike | None = None,
    beta: TensorLike | None = None,
    *,
    eps: float = 1e-5,
    frozen: bool = True,
) -> Any:
    """``(x - mean) / sqrt(var + eps) * gamma + beta`` per channel; all vectors are (c,).

    ``frozen=False`` says that mean and var are ``batch_stats(x)``: then the gradient of x goes through them too. The default is that of
    inference: mean and var are constants.

    >>> x = np.array([[1.0], [3.0]])
    >>> batch_norm(x, *batch_stats(x), eps=0.0, frozen=False)
    array([[-1.],
           [ 1.]], dtype=float32)
    """
    _check_eps("batch_norm", eps)
    return call("bn_apply", _trim([x, mean, var, gamma, beta]), {"eps": float(eps), "frozen": bool(frozen)})


def batch_norm_backward(
    dy: TensorLike,
    x: TensorLike,
    mean: TensorLike,
    var: TensorLike,
    gamma: TensorLike | None = None,
    beta: TensorLike | None = None,
    *,
    eps: float = 1e-5,
    frozen: bool = False,
) -> Any:
    """Gradients ``(dx, dgamma, dbeta)`` of ``batch_norm``, from that of its output; those of absent operands are left out.

    ``frozen=False`` (training): mean and var are ``batch_stats(x)``.
    """
    _check_eps("batch_norm_backward", eps)
    return call("bn_bwd", _trim([x, dy, mean, var, gamma, beta]), {"eps": float(eps), "frozen": bool(frozen)})


def running_stats(
    mean: TensorLike, var: TensorLike, x: TensorLike, running_mean: TensorLike, running_var: TensorLike, *, momentum: float = 0.1
) -> tuple[Any, Any]:
    """The running statistics after a batch x with ``mean, var = batch_stats(x)``.

    ``(1 - momentum) * running + momentum * batch``, with the unbiased variance (divided by count - 1), as torch does.
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"running_stats: momentum must be between 0 and 1, got {momentum}")
    return call("bn_running", [mean, var, x, running_mean, running_var], {"momentum": float(momentum)})  # type: ignore[no-any-return]


def _check_eps(op: str, eps: float) -> None:
    if not eps >= 0:
        raise ValueError(f"{op}: eps must be at least 0, got {eps}")


def _trim(operands: list[Any]) -> list[Any]:
    """Without trailing absent operands."""
    while operands[-1] is None:
        operands.pop()
    return operands
