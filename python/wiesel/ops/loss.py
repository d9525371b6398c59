"""Losses: functions of (outputs, targets, sample_weight) that give a scalar.

``reduction="mean"`` divides the sum over the batch by the number of samples, also where samples have weights (they are factors, not shares:
weights with mean 1 leave the step as large as it was); ``"sum"`` does not divide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from wiesel.graph.ir import Builder, Node, Type, Value
from wiesel.graph.tensor import Tensor
from wiesel.ops import reduce
from wiesel.ops.arguments import TensorLike, present, reduction_is_mean, require_dtype, same_shape, shape_of, show
from wiesel.ops.base import Cost, Op, register
from wiesel.ops.binary import multiply, subtract
from wiesel.ops.dispatch import call
from wiesel.ops.one_hot import check_labels, one_hot
from wiesel.ops.shape import with_shape
from wiesel.ops.unary import affine, relu, square

_DEFAULTS: Mapping[str, Any] = {"smoothing": 0.0, "mean": True}


def _smooth(target: np.ndarray, like: np.ndarray, smoothing: float) -> np.ndarray:
    """Targets as rows over the classes, with a share ``smoothing`` spread over all of them."""
    classes = like.shape[-1]
    rows = np.eye(classes, dtype=like.dtype)[target] if target.dtype.kind in "iu" else target
    return np.asarray((1 - smoothing) * rows + smoothing / classes)


class _CrossEntropy(Op):
    defaults: ClassVar[Mapping[str, Any]] = _DEFAULTS
    dtypes: ClassVar[Mapping[int, Sequence[str]]] = {1: ("i32", "f32")}

    def step_attrs(self, attrs: Mapping[str, Any]) -> dict[str, int | float]:
        return {"smoothing": float(attrs["smoothing"]), "mean": int(attrs["mean"])}

    def _check(self, logits: Type, target: Type, weight: Type | None) -> None:
        require_dtype("cross_entropy", "logits", logits, "f32")
        if logits.rank < 2:
            raise ValueError(f"cross_entropy: expected logits of shape (n, …, classes), got {show(logits.shape)}")
        samples = logits.shape[:-1]
        require_dtype("cross_entropy", "targets", target, "i32", "f32")
        if target.dtype == "i32" and target.shape != samples:
            raise ValueError(
                f"cross_entropy: integer targets have shape {show(target.shape)}, expected {show(samples)}: one class per sample"
                " (soft targets are floats)"
            )
        if target.dtype == "f32" and target.shape != logits.shape:
            mend = "; class numbers must be integers" if target.shape == samples else ""
            raise ValueError(f"cross_entropy: soft targets have shape {show(target.shape)}, expected {show(logits.shape)}{mend}")
        if weight is not None:
            same_shape("cross_entropy", "sample_weight", weight, samples)

    def cost(self, attrs: Mapping[str, Any], types: Sequence[Type | None], outs: Sequence[Type]) -> Cost:
        return Cost(flops=12 * present(self.name, "logits", types[0]).elements(1))


@register
class CrossEntropy(_CrossEntropy):
    """logits (n, …, c), target (n, …) or (n, …, c), [weight (n, …)] -> loss (), prob (n, …, c) = softmax(logits)."""

    name = "cross_entropy"

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        logits = present(self.name, "logits", types[0])
        self._check(logits, present(self.name, "targets", types[1]), types[2] if len(types) > 2 else None)
        return Type(()), logits

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        if any(needed[1:]):
            raise ValueError("cross_entropy: no gradient for targets and weights; compose log_softmax, multiply and sum for one")
        if douts[1] is not None:
            raise ValueError("cross_entropy: no gradient through its probabilities; use softmax")
        target, weight = (*node.inputs[1:], None)[:2]
        dlogits = b.op("cross_entropy_bwd", node.outputs[1], target, weight, douts[0], **node.attrs)
        return [dlogits, *[None] * (len(node.inputs) - 1)]

    def reference(
        self, attrs: Mapping[str, Any], logits: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None
    ) -> tuple[np.ndarray, ...]:
        shifted = logits - logits.max(axis=-1, keepdims=True)
        logp = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        loss = -(_smooth(target, logits, attrs["smoothing"]) * logp).sum(axis=-1)
        loss = loss if weight is None else loss * weight
        return np.asarray(loss.mean() if attrs["mean"] else loss.sum()), np.exp(logp)


@register
class CrossEntropyBwd(_CrossEntropy):
    """prob, target, [weight], dloss () -> dlogits = dloss * weight * (prob * sum(t) - t), for the mean divided by the number of samples;
    t are the smoothed targets."""

    name = "cross_entropy_bwd"

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        prob = present(self.name, "prob", types[0])
        self._check(prob, present(self.name, "targets", types[1]), types[2])
        same_shape(self.name, "dloss", present(self.name, "dloss", types[3]), ())
        return (prob,)

    def reference(
        self, attrs: Mapping[str, Any], prob: np.ndarray, target: np.ndarray, weight: np.ndarray | None, dloss: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        t = _smooth(target, prob, attrs["smoothing"])
        factor = dloss / (prob.size // prob.shape[-1]) if attrs["mean"] else dloss
        rows = factor if weight is None else factor * weight[..., None]
        return ((prob * t.sum(axis=-1, keepdims=True) - t) * rows,)


def cross_entropy(
    logits: TensorLike,
    targets: TensorLike,
    sample_weight: TensorLike | None = None,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    """``-log softmax(logits)[target]``, averaged (or summed) over the batch; the softmax is part of it, so give it logits.

    Parameters
    ----------
    logits : (n, classes), or (n, …, classes) where every position is a sample of its own.
    targets : integers (n,), or floats (n, classes): soft targets t, for which it is ``-sum(t * log softmax(logits))``.
    sample_weight : (n,) factors, or None. The mean still divides by the number of samples.
    label_smoothing : share s of the target that is spread over all classes: ``(1 - s) t + s / classes`` (Szegedy et al. 2016).
    reduction : "mean" or "sum".

    Of a uniform output over 10 classes it is ln 10 = 2.302585.

    >>> float(cross_entropy(np.zeros((1, 10)), [3]))  # doctest: +ELLIPSIS
    2.30258...
    """
    attrs = _cross_entropy_attrs("cross_entropy", label_smoothing, reduction)
    _check_targets("cross_entropy", logits, targets)
    operands = [logits, targets] if sample_weight is None else [logits, targets, sample_weight]
    return call("cross_entropy", operands, attrs)[0]


def cross_entropy_backward(
    logits: TensorLike,
    targets: TensorLike,
    sample_weight: TensorLike | None = None,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    dloss: TensorLike = 1.0,
) -> Any:
    """Gradient of ``cross_entropy`` for the logits: ``(softmax(logits) - t) / n``, times ``sample_weight`` and ``dloss``.

    >>> cross_entropy_backward([[0.0, 0.0]], [0])
    array([[-0.5,  0.5]], dtype=float32)
    """
    attrs = _cross_entropy_attrs("cross_entropy_backward", label_smoothing, reduction)
    _check_targets("cross_entropy_backward", logits, targets)
    prob = call("softmax", [logits], {})
    return call("cross_entropy_bwd", [prob, targets, sample_weight, dloss], attrs)


def mse(outputs: TensorLike, targets: TensorLike, sample_weight: TensorLike | None = None, *, reduction: str = "mean") -> Any:
    """Squared error ``(outputs - targets)**2``, averaged (or summed) over all elements.

    ``sample_weight`` (n,) multiplies each sample's share.

    >>> float(mse([[1.0, 2.0]], [[0.0, 0.0]]))
    2.5
    """
    mean = reduction_is_mean("mse", reduction)
    shapes = shape_of(outputs), shape_of(targets)
    if shapes[0] != shapes[1]:
        raise ValueError(f"mse: outputs {show(shapes[0])} and targets {show(shapes[1])} differ in shape")
    error = _weigh("mse", square(subtract(outputs, targets)), sample_weight)
    return reduce.mean(error) if mean else reduce.sum(error)


def hinge(
    outputs: TensorLike, targets: TensorLike, sample_weight: TensorLike | None = None, *, margin: float = 1.0, reduction: str = "mean"
) -> Any:
    """Multi-class hinge loss of Weston and Watkins (1999), scaled as in torch's multi_margin_loss.

    Per sample ``sum over j != target of max(0, margin - outputs[target] + outputs[j]) / classes``, with outputs (n, classes) and
    integer targets (n,).

    >>> float(hinge([[2.0, 1.5, 0.0]], [0]))  # doctest: +ELLIPSIS
    0.1666...
    """
    mean = reduction_is_mean("hinge", reduction)
    shape = shape_of(outputs)
    if len(shape) != 2:
        raise ValueError(f"hinge: expected outputs of shape (n, classes), got {show(shape)}")
    if shape_of(targets) != shape[:1]:
        raise ValueError(f"hinge: targets have shape {show(shape_of(targets))}, expected integers of shape {show(shape[:1])}")
    truth = one_hot(targets, shape[1])
    score = reduce.sum(multiply(outputs, truth), 1, keepdims=True)  # that of the target
    excess = multiply(relu(affine(subtract(outputs, score), 1.0, margin)), affine(truth, -1.0, 1.0))
    rows = _weigh("hinge", affine(reduce.sum(excess, 1), 1.0 / shape[1]), sample_weight)
    return reduce.mean(rows) if mean else reduce.sum(rows)


def _cross_entropy_attrs(op: str, label_smoothing: float, reduction: str) -> dict[str, Any]:
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"{op}: label_smoothing must be at least 0 and below 1, got {label_smoothing}")
    return {"smoothing": float(label_smoothing), "mean": reduction_is_mean(op, reduction)}


def _check_targets(op: str, logits: TensorLike, targets: TensorLike) -> None:
    """What only arrays can be asked: labels in range, soft targets finite."""
    if isinstance(targets, Tensor):
        return
    array, shape = np.asarray(targets), shape_of(logits)
    if array.dtype.kind in "iu" and array.ndim == len(shape) - 1:
        check_labels(op, array, shape[-1])
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{op}: targets hold NaN or infinity, first at sample {int(np.argwhere(~np.isfinite(array))[0][0])}")


def _weigh(op: str, error: TensorLike, sample_weight: TensorLike | None) -> Any:
    """``error`` (n, …) times the weights (n,) of its samples."""
    if sample_weight is None:
        return error
    shape, weights = shape_of(error), shape_of(sample_weight)
    if weights != shape[:1]:
        raise ValueError(f"{op}: sample_weight has shape {show(weights)}, expected {show(shape[:1])}: one factor per sample")
    return multiply(error, with_shape(sample_weight, (*weights, *(1,) * (len(shape) - 1))))
