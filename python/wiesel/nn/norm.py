"""Normalisation: over the batch, over neighbouring channels, and of raw pixels at the entrance of a net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wiesel import ops
from wiesel.nn import init
from wiesel.nn.arguments import positive, refuse_positional
from wiesel.nn.module import Module

if TYPE_CHECKING:
    from wiesel.graph.tensor import Tensor


class BatchNorm2d(Module):
    """y = (x - mean) / sqrt(var + eps) · weight + bias per channel (Ioffe and Szegedy 2015), over all axes but the last.

    In training mean and (biased) variance are those of the batch, and the running statistics move towards them:
    running = (1 - momentum) · running + momentum · batch, with the unbiased variance, as in torch. In inference the running ones are used.

    Parameters
    ----------
    momentum : share of the new batch in the running statistics.
    eps : added to the variance.
    affine : with ``weight`` and ``bias``.
    frozen : use the running statistics in training too, and leave them as they are.

    >>> from wiesel import nn
    >>> sorted(nn.BatchNorm2d().build((8, 8, 4)).state_dict())
    ['bias', 'running_mean', 'running_var', 'weight']
    """

    def __init__(self, *extra: object, momentum: float = 0.1, eps: float = 1e-5, affine: bool = True, frozen: bool = False) -> None:
        name = type(self).__name__
        if extra:
            refuse_positional(f"{name}(*, momentum=0.1, eps=1e-5, affine=True, frozen=False)", f"{name}(num_features)", extra)
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"{name}: momentum must be in [0, 1], got {momentum}")
        if eps <= 0.0:
            raise ValueError(f"{name}: eps must be above 0, got {eps}")
        self.momentum = float(momentum)
        self.eps = float(eps)
        self.affine = bool(affine)
        self.frozen = bool(frozen)

    def forward(self, x: Tensor) -> Any:
        channels = x.shape[-1]
        built = self.variable("running_mean")
        if built and built.shape[0] != channels:
            mend = "; this looks like NCHW: use x.transpose(0, 2, 3, 1)" if len(x.shape) == 4 and x.shape[1] == built.shape[0] else ""
            raise ValueError(f"built for {built.shape[0]} channels, got {channels}{mend}")
        weight = self.parameter("weight", (channels,), init.constant(1.0)) if self.affine else None
        bias = self.parameter("bias", (channels,), init.constant(0.0)) if self.affine else None
        mean = self.state("running_mean", (channels,), init.constant(0.0))
        var = self.state("running_var", (channels,), init.constant(1.0))
        if self.frozen or not self.training:
            return ops.batch_norm(x, mean, var, weight, bias, eps=self.eps, frozen=True)
        batch_mean, batch_var = ops.batch_stats(x)
        new_mean, new_var = ops.running_stats(
            batch_mean, batch_var, x, self.latest("running_mean"), self.latest("running_var"), momentum=self.momentum
        )
        self.update("running_mean", new_mean)
        self.update("running_var", new_var)
        return ops.batch_norm(x, batch_mean, batch_var, weight, bias, eps=self.eps, frozen=False)


class BatchNorm1d(BatchNorm2d):
    """``BatchNorm2d`` for (n, c) and (n, length, c): the same formula; the name says what it is applied to."""


class LocalResponseNorm(Module):
    """y = x / (k + alpha / size · Σ x²)^beta over ``size`` neighbouring channels (Krizhevsky et al. 2012; torch's scaling of alpha).

    >>> from wiesel import nn
    >>> nn.LocalResponseNorm(5).size
    5
    """

    def __init__(self, size: int, *extra: object, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        if extra:
            refuse_positional("LocalResponseNorm(size, *, alpha=1e-4, beta=0.75, k=1.0)", "LocalResponseNorm(size, alpha, beta, k)", extra)
        self.size = positive(size, "size", "LocalResponseNorm")
        self.alpha, self.beta, self.k = float(alpha), float(beta), float(k)

    def forward(self, x: Tensor) -> Any:
        return ops.local_response_norm(x, self.size, alpha=self.alpha, beta=self.beta, k=self.k)


class Normalize(Module):
    """Raw pixels to floats, as the first layer of a net and saved with it: y = (x / maximum - mean) / std per channel.

    Takes uint8 (or float) pixels 0 … maximum. ``mean`` and ``std`` are numbers or one number per channel, in units of the maximum.

    >>> import numpy as np
    >>> from wiesel import nn
    >>> float(nn.Normalize(0.5, 0.5)(np.full((1, 1, 1, 1), 255, np.uint8)).item())
    1.0
    """

    def __init__(self, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0, *, maximum: float = 255.0) -> None:
        self.mean = _floats(mean)
        self.std = _floats(std)
        self.maximum = float(maximum)
        if np.min(self.std) <= 0.0 or self.maximum <= 0.0:
            raise ValueError(f"Normalize: std and maximum must be above 0, got std={std!r}, maximum={maximum!r}")

    def forward(self, x: Tensor) -> Any:
        channels = x.shape[-1]
        for name, value in (("mean", self.mean), ("std", self.std)):
            if np.size(value) not in (1, channels):
                raise ValueError(f"{name} has {np.size(value)} values but the input has {channels} channels")
        mean = np.broadcast_to(np.asarray(self.mean, np.float64) * self.maximum, (channels,))
        scale = np.broadcast_to(1.0 / (self.maximum * np.asarray(self.std, np.float64)), (channels,))
        return ops.normalize(x, mean.astype(np.float32), scale.astype(np.float32))


def _floats(value: float | Sequence[float]) -> float | tuple[float, ...]:
    return float(value) if np.ndim(value) == 0 else tuple(float(v) for v in value)  # type: ignore[arg-type, union-attr]
