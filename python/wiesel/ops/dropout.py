"""Dropout (Srivastava et al. 2014), with its random numbers in NumPy: the reference of ``cpp/base/random.h``.

A number is a function of (seed, purpose, stream, step, micro-step, sample, element) and of nothing else: not of the run, the batch that a
sample travels in, or the number of threads. The stream is a hash of the layer's path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from wiesel import random
from wiesel.graph.ir import Builder, Node, Type, Value
from wiesel.graph.tensor import Tensor
from wiesel.ops.arguments import TensorLike, present, require_dtype
from wiesel.ops.base import Op, register
from wiesel.ops.dispatch import call

_MASK = (1 << 64) - 1
_GROUP = 64


def random_key(seed: int, purpose: int, stream: int, step: int, micro_step: int) -> int:
    """The 64-bit key under which every (sample, element) has one number: SplitMix64's finalizer over what the numbers are for."""
    key = 0
    for value in (seed, purpose, stream, step, micro_step):
        z = (key + 0x9E3779B97F4A7C15 + value) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        key = z ^ (z >> 31)
    return key


def philox(counter: np.ndarray, sample: int, key: int | np.ndarray) -> np.ndarray:
    """Philox 4x32-10 (Salmon et al. 2011): four 32-bit numbers for each 64-bit ``counter`` and ``key``, which broadcast; shape (4, …)."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    counter, keys = np.broadcast_arrays(counter, np.asarray(key, np.uint64))
    c0, c1 = counter & low, counter >> shift
    c2, c3 = np.full_like(counter, sample & 0xFFFFFFFF), np.full_like(counter, sample >> 32)
    k0, k1 = keys & low, keys >> shift
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & low, (p0 >> shift) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def random_bits(key: int, sample: int, count: int) -> np.ndarray:
    """The 32-bit numbers of elements 0 … count - 1: element e is word (e % 64) // 16 of counter (e // 64) * 16 + e % 16."""
    groups = -(-count // _GROUP)
    words = philox(np.arange(groups * 16, dtype=np.uint64), sample, key)  # (4, groups * 16)
    numbers: np.ndarray = words.reshape(4, groups, 16).transpose(1, 0, 2).reshape(-1)[:count]
    return numbers


def dropout_mask(
    shape: Sequence[int], rate: float, *, seed: int = 0, stream: int = 0, step: int = 0, micro_step: int = 0, sample: int = 0
) -> np.ndarray:
    """True where an element is kept: where its number is at least ``rate * 2**32``. ``sample`` is the global index of the first one."""
    key, threshold = random_key(seed, random.DROPOUT, stream, step, micro_step), int(rate * 2.0**32)
    rows = [random_bits(key, sample + i, math.prod(shape[1:])) >= threshold for i in range(shape[0])]
    return np.stack(rows).reshape(shape)


@register
class Dropout(Op):
    """x -> y = x / (1 - rate) where kept, else 0. Which are kept depends on ``stream`` and on the scalars of the run; the gradient is the
    same op on dy. The reference has all scalars 0."""

    name = "dropout"
    defaults: ClassVar[Mapping[str, Any]] = {"rate": 0.5, "stream": 0}
    in_place = ((0, 0),)

    def infer(self, attrs: Mapping[str, Any], types: Sequence[Type | None]) -> tuple[Type, ...]:
        x = present(self.name, "x", types[0])
        require_dtype(self.name, "x", x, "f32")
        if x.rank == 0:
            raise ValueError("dropout: x needs a leading axis of samples")
        return (x,)

    def grad(self, b: Builder, node: Node, douts: Sequence[Value | None], needed: Sequence[bool]) -> Sequence[Value | None]:
        return [b.op("dropout", douts[0], **node.attrs)]

    def reference(self, attrs: Mapping[str, Any], x: np.ndarray) -> tuple[np.ndarray, ...]:
        keep = dropout_mask(x.shape, attrs["rate"], stream=attrs["stream"])
        return (np.where(keep, x * x.dtype.type(1 / (1 - attrs["rate"])), 0).astype(x.dtype),)


def dropout(x: TensorLike, rate: float = 0.5, *, seed: int = 0, step: int = 0) -> Any:
    """Sets a share ``rate`` of the elements to 0, and divides the others by ``1 - rate`` so that the expectation stays.

    On a symbolic tensor, which ones depends on the trainer's seed and step, the layer's path (and how often dropout was applied there) and
    the sample; ``seed`` and ``step`` are for arrays. Apply it in training only.

    >>> int((dropout(np.ones((1, 1000)), 0.25) == 0).sum())
    253
    """
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate must be at least 0 and below 1, got {rate}")
    if isinstance(x, Tensor):
        return call("dropout", [x], {"rate": float(rate), "stream": random.stream(_stream_name(x))})
    array = np.asarray(x)
    if array.ndim == 0:
        raise ValueError("dropout: x needs a leading axis of samples")
    keep = dropout_mask(array.shape, rate, seed=seed, step=step)
    return call("binary", [array, keep * np.float32(1 / (1 - rate))], {"kind": "mul"})


def _stream_name(x: Tensor) -> str:
    """The running layer's path; from its second dropout on with ``@2`` …, so that no two have the same mask."""
    path = x.trace.path
    before = sum(node.op.name == "dropout" and node.path == path for node in x.trace.graph.nodes)
    return f"{path}@{before + 1}" if before else path
