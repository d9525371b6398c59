"""Losses by name. A loss is a function of symbolic (outputs, targets, sample_weight) that gives a scalar, traced into the net's graph.

=================  ====================================================================================  ========================
name               Σ over samples of weight · l, divided by n                                            targets
=================  ====================================================================================  ========================
"cross_entropy"    -log softmax(logits)[target], or -Σ target · log softmax(logits)                      (n,) integers, (n, classes)
"mse"              mean over the outputs of (output - target)²                                           as the outputs
"hinge"            see ``wiesel.ops.hinge``                                                              (n,) integers
=================  ====================================================================================  ========================

For nets with several outputs a loss is a dict (or tuple) of such, one per output, added up with weights of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from wiesel.graph.ir import BATCH, Type

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wiesel.graph.tensor import Tensor

LossFunction: TypeAlias = Callable[[Any, Any, Any], Any]
Loss: TypeAlias = "str | LossFunction | Mapping[str, Loss] | Sequence[Loss]"


def cross_entropy(outputs: Tensor, targets: Tensor, sample_weight: Tensor | None = None, *, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of the softmax of logits (n, classes), against class numbers (n,) or probabilities (n, classes)."""
    from wiesel import ops

    _refuse_softmax(outputs)
    if len(outputs.shape) != 2:
        raise ValueError(f"cross_entropy: expected logits (n, classes), got {outputs.type}")
    _limit_labels(outputs, targets)
    return ops.cross_entropy(outputs, targets, sample_weight, label_smoothing=smoothing)  # type: ignore[no-any-return]


def mse(outputs: Tensor, targets: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """Mean of the squared differences; targets (n,) go with outputs (n, 1)."""
    from wiesel import ops

    if targets.dtype == "i32":
        raise TypeError(f"mse compares floats, and the targets of {outputs.type} are class numbers; give floats, or use cross_entropy")
    if len(targets.shape) != len(outputs.shape) and targets.type.elements(1) == outputs.type.elements(1):
        targets = ops.reshape(targets, outputs.shape)
    return ops.mse(outputs, targets, sample_weight)  # type: ignore[no-any-return]


def hinge(outputs: Tensor, targets: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """Mean multi-class hinge loss of scores (n, classes) against class numbers (n,)."""
    from wiesel import ops

    _limit_labels(outputs, targets)
    return ops.hinge(outputs, targets, sample_weight)  # type: ignore[no-any-return]


def _limit_labels(outputs: Tensor, targets: Tensor) -> None:
    limits = getattr(outputs.trace, "label_limits", None)
    if limits is not None and targets.dtype == "i32" and targets.value.kind == "input":
        limits[targets.value.name] = outputs.shape[-1]


NAMED: Mapping[str, LossFunction] = {"cross_entropy": cross_entropy, "mse": mse, "hinge": hinge}


def _refuse_softmax(outputs: Tensor) -> None:
    node = outputs.value.producer
    if node is None or node.op.name != "softmax":
        return
    if node.attrs.get("log"):
        raise ValueError(f'the net ends in a log-softmax ({node.path or "forward"}); loss="cross_entropy" takes logits: leave it out')
    raise ValueError(
        f'the net ends in a softmax ({node.path or "forward"}), and loss="cross_entropy" applies one itself: it takes logits. '
        "Leave the softmax out of the net; net.predict_proba applies it for you"
    )


def with_smoothing(smoothing: float) -> LossFunction:
    """Cross-entropy with label smoothing: the target is (1 - smoothing) · target + smoothing / classes."""

    def smoothed(outputs: Tensor, targets: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        return cross_entropy(outputs, targets, sample_weight, smoothing=smoothing)

    return smoothed


def resolve(loss: Loss) -> LossFunction:
    """The function of a loss given by name, as a function, or per output."""
    if isinstance(loss, str):
        if loss not in NAMED:
            raise ValueError(f"no loss is called {loss!r}; known: {', '.join(NAMED)}, or a function of (outputs, targets, sample_weight)")
        return NAMED[loss]
    if isinstance(loss, Mapping):
        parts = {key: resolve(part) for key, part in loss.items()}
        return lambda outputs, targets, weight: _sum_of(list(parts.items()), outputs, targets, weight, {})
    if isinstance(loss, (tuple, list)):
        functions = [resolve(part) for part in loss]
        return lambda outputs, targets, weight: _sum_of(list(enumerate(functions)), outputs, targets, weight, {})
    if not callable(loss):
        raise TypeError(f"a loss is a name, a function of (outputs, targets, sample_weight), or a dict of them per output; got {loss!r}")
    return loss


def weighted(loss: Loss, weights: Mapping[Any, float] | Sequence[float] | None) -> LossFunction:
    """The loss with a factor for each output (1 where none is given)."""
    if weights is None:
        return resolve(loss)
    if not isinstance(loss, (Mapping, tuple, list)):
        raise TypeError("loss_weights go with a loss per output: loss={'a': 'mse', …}")
    parts = list(loss.items()) if isinstance(loss, Mapping) else list(enumerate(loss))
    factors = dict(weights) if isinstance(weights, Mapping) else dict(enumerate(weights))
    unknown = factors.keys() - {key for key, _ in parts}
    if unknown:
        known = ", ".join(str(key) for key, _ in parts)
        raise ValueError(f"loss_weights name {sorted(map(str, unknown))[0]!r}, which has no loss; losses: {known}")
    functions = [(key, resolve(part)) for key, part in parts]
    return lambda outputs, targets, weight: _sum_of(functions, outputs, targets, weight, factors)


def _sum_of(parts: list[tuple[Any, LossFunction]], outputs: Any, targets: Any, weight: Any, factors: Mapping[Any, float]) -> Any:
    total: Any = None
    for key, function in parts:
        try:
            output, target = outputs[key], targets[key]
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"there is a loss for output {key!r}, but the net's outputs or the targets have none of that name") from None
        part = function(output, target, weight)
        factor = float(factors.get(key, 1.0))
        part = part if factor == 1.0 else part * factor
        total = part if total is None else total + part
    if total is None:
        raise ValueError("a loss per output needs at least one output")
    return total


# --- targets: arrays in, checked before anything is computed -------------------------------------------------------------------------


def target_array(values: Any, name: str = "targets") -> NDArray[Any]:
    """Targets as int32 (integers, or floats that are all whole numbers in one column) or float32; NaN is refused."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} have dtype {array.dtype}; integers (n,) or floats (n, classes) are expected")
    if array.ndim == 0:
        raise ValueError(f"{name}: a single number; the first axis counts the samples")
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        if not finite.all():
            first = np.argwhere(~finite)[0]
            what = "NaN" if np.isnan(array[tuple(first)]) else "infinite"
            raise ValueError(f"{name}: {what} at index {', '.join(str(int(i)) for i in first)}, {int((~finite).sum())} such values in all")
        return np.ascontiguousarray(array, np.float32)
    return np.ascontiguousarray(array, np.int32)


def target_arrays(loss: Loss, targets: Any, name: str = "targets") -> Any:
    """All targets as arrays, in the structure given (array, tuple or dict)."""
    if isinstance(targets, Mapping):
        return {key: target_arrays(_part(loss, key), part, f"{name}[{key!r}]") for key, part in targets.items()}
    if isinstance(targets, (tuple, list)) and targets and not isinstance(loss, str) and all(np.ndim(part) >= 1 for part in targets):
        return tuple(target_arrays(_part(loss, i), part, f"{name}[{i}]") for i, part in enumerate(targets))
    array = target_array(targets, name)
    if loss in ("cross_entropy", "hinge") and array.dtype == np.float32 and array.ndim == 1:
        if not (array == np.round(array)).all():
            odd = float(array[array != np.round(array)][0])
            raise ValueError(f"{name}: class numbers (n,) must be whole, got {odd}; probabilities are (n, classes)")
        return array.astype(np.int32)
    if loss == "mse" and array.dtype == np.int32:
        return array.astype(np.float32)
    return array


def _part(loss: Loss, key: Any) -> Any:
    if isinstance(loss, Mapping):
        return loss.get(key)
    if isinstance(loss, (tuple, list)) and isinstance(key, int) and key < len(loss):
        return loss[key]
    return loss if callable(loss) else None


def check_labels(labels: NDArray[Any], classes: int, name: str = "targets") -> None:
    """Refuses class numbers outside 0 … classes - 1."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        bad = int(np.argmax((labels < 0) | (labels >= classes)))
        more = f"give the net's last layer at least {high + 1} outputs, or " if high >= classes else ""
        raise ValueError(
            f"{name}: label {int(labels.flat[bad])} at index {bad} is outside 0 … {classes - 1} of the net's {classes} outputs; "
            f"{more}number the classes from 0"
        )


def target_type(array: NDArray[Any]) -> Type:
    return Type((BATCH, *array.shape[1:]), "i32" if array.dtype == np.int32 else "f32")
