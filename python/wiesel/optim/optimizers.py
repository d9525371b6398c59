"""Optimizers: hyper-parameters here, one pass over flat memory in the core."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar

from wiesel.optim.schedules import Progress, Schedule, as_schedule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wiesel.program.emit import Emitter
    from wiesel.program.layout import Layout, Run, Segment

FIRST_GROUP_SLOT, SLOTS_PER_GROUP, MAX_GROUPS = 8, 4, 16
"""Scalar slots of the program: per group the learning rate and two bias corrections (cpp/ops/kinds.h)."""


class Group:
    """Parameters with settings of their own.

    Parameters
    ----------
    match : a name pattern ("*.bias", "features.*"), several of them, or a function name -> bool.
    settings : the optimizer's arguments that differ, such as ``lr=`` or ``weight_decay=0``.

    >>> from wiesel import optim
    >>> optim.SGD(0.1, weight_decay=5e-4, groups=[optim.Group("*.bias", weight_decay=0.0)]).group_of("conv.bias")
    1
    """

    def __init__(self, match: str | Sequence[str] | Callable[[str], bool], **settings: Any) -> None:
        self.match = match
        self.settings = settings

    def holds(self, name: str) -> bool:
        if callable(self.match):
            return bool(self.match(name))
        patterns = (self.match,) if isinstance(self.match, str) else self.match
        return any(fnmatchcase(name, pattern) for pattern in patterns)


class Optimizer(ABC):
    """Base of all optimizers. ``lr`` is a number or a ``Schedule``; the first group whose match holds a name takes it, group 0 the rest."""

    moments: ClassVar[int]
    """Floats of state per trained number (of the optimizer with all its groups, at most)."""
    known: ClassVar[tuple[str, ...]]
    """Settings besides ``lr``."""

    def __init__(self, lr: float | Schedule, settings: dict[str, Any], groups: Iterable[Group]) -> None:
        self.groups = list(groups)
        if len(self.groups) >= MAX_GROUPS:
            raise ValueError(f"{type(self).__name__}: at most {MAX_GROUPS - 1} groups, got {len(self.groups)}")
        self.settings: list[dict[str, Any]] = []
        self.schedules: list[Schedule] = []
        for number, changes in enumerate([{}, *(group.settings for group in self.groups)]):
            unknown = changes.keys() - {"lr", *self.known}
            if unknown:
                raise TypeError(f"{type(self).__name__}: group {number} sets {sorted(unknown)[0]!r}; known: lr, {', '.join(self.known)}")
            self.schedules.append(as_schedule(changes.get("lr", lr)))
            self.settings.append({**settings, **{k: v for k, v in changes.items() if k != "lr"}})
            self.check(self.settings[-1])

    @abstractmethod
    def check(self, settings: dict[str, Any]) -> None:
        """Raises ValueError for settings that make no sense."""

    @abstractmethod
    def emit_run(self, em: Emitter, layout: Layout, run: Run, settings: dict[str, Any], clip: int | None, clip_value: float | None) -> None:
        """The update step of one run of parameters."""

    def group_of(self, name: str) -> int:
        return next((i for i, group in enumerate(self.groups, start=1) if group.holds(name)), 0)

    def take(self, layout: Layout, segment: Segment, clip_value: float | None) -> dict[str, Any] | None:
        """Attributes of an ``update_matmul`` that updates this parameter; None where the optimizer wants its gradient written."""
        return None

    def emit(
        self,
        em: Emitter,
        layout: Layout,
        *,
        taken: Collection[str] = (),
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        """The update steps of all parameters but those ``taken``, group by group; optimizer state lies in the buffer ``opt``, moment by
        moment."""
        clip = None
        if clip_norm is not None:
            clip = em.scalar("opt", self.moments * layout.grad_bytes, "clip_factor")
            em.step("clip_factor", [em.flat("grads", 0, layout.grad_bytes // 4, "grads")], [clip], max_norm=clip_norm)
            em.charge(2 * (layout.grad_bytes // 4))
        for run in layout.runs(without=taken):
            self.emit_run(em, layout, run, self.settings[run.group], clip, clip_value)

    @staticmethod
    def _shared_attrs(group: int, clip_value: float | None) -> dict[str, int | float]:
        """What the steps of all optimizers are told: the group's scalar slots and the largest element of a gradient."""
        slot = FIRST_GROUP_SLOT + SLOTS_PER_GROUP * group
        return {"slot": slot} if clip_value is None else {"slot": slot, "maximum": float(clip_value)}

    def opt_bytes(self, layout: Layout) -> int:
        """Bytes of the optimizer's memory: the moments and the clip factor."""
        return self.moments * layout.grad_bytes + 64

    def write_scalars(self, scalars: NDArray[Any], progress: Progress) -> None:
        """Writes learning rates (and bias corrections) of the coming step into the doubles of the scalar slots."""
        for group, schedule in enumerate(self.schedules):
            slot = FIRST_GROUP_SLOT + SLOTS_PER_GROUP * group
            self._write_group(scalars, slot, schedule(progress), self.settings[group], progress.step + 1)

    def _write_group(self, scalars: NDArray[Any], slot: int, lr: float, settings: dict[str, Any], t: int) -> None:
        scalars[slot] = lr

    def config(self) -> dict[str, Any]:
        """Class, learning rate and settings, for saving and showing."""
        found = {"optimizer": type(self).__name__, "lr": repr(self.schedules[0]), **self.settings[0]}
        if self.groups:
            found["groups"] = [{k: repr(v) for k, v in g.settings.items()} for g in self.groups]
        return found

    def __repr__(self) -> str:
        inner = ", ".join(f"{k}={v!r}" for k, v in self.settings[0].items())
        return f"{type(self).__name__}({self.schedules[0]!r}, {inner})"


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as torch:

    g = grad + weight_decay · w;  v = momentum · v + (1 - dampening) · g;  w = w - lr · (g + momentum · v if nesterov else v).

    With ``decoupled=True`` the decay leaves the gradient alone: w = w · (1 - lr · weight_decay) first (Loshchilov and Hutter 2017).

    >>> from wiesel import optim
    >>> optim.SGD(optim.Cosine(0.1, epochs=10), momentum=0.9, weight_decay=5e-4).moments
    1
    """

    known = ("momentum", "dampening", "nesterov", "weight_decay", "decoupled")

    def __init__(
        self,
        lr: float | Schedule,
        *,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        groups: Iterable[Group] = (),
    ) -> None:
        super().__init__(
            lr,
            {"momentum": momentum, "dampening": dampening, "nesterov": nesterov, "weight_decay": weight_decay, "decoupled": decoupled},
            groups,
        )
        self.moments = int(any(s["momentum"] != 0.0 for s in self.settings))  # type: ignore[misc]

    def check(self, settings: dict[str, Any]) -> None:
        if not 0.0 <= settings["momentum"] < 1.0:
            raise ValueError(f"SGD: momentum must be in [0, 1), got {settings['momentum']}")
        if settings["weight_decay"] < 0.0:
            raise ValueError(f"SGD: weight_decay must be at least 0, got {settings['weight_decay']}")
        if settings["nesterov"] and (settings["momentum"] == 0.0 or settings["dampening"] != 0.0):
            raise ValueError("SGD: nesterov needs a momentum above 0 and no dampening")

    def emit_run(self, em: Emitter, layout: Layout, run: Run, settings: dict[str, Any], clip: int | None, clip_value: float | None) -> None:
        grad = em.flat("grads", run.grad_offset, run.count)
        param = em.flat("params", run.offset, run.count)
        velocity = em.flat("opt", run.grad_offset, run.count) if settings["momentum"] else None
        em.step("sgd_update", [grad, param, velocity, clip], [param, velocity], **self._step_attrs(run.group, settings, clip_value))
        em.charge(8 * run.count)

    def take(self, layout: Layout, segment: Segment, clip_value: float | None) -> dict[str, Any] | None:
        settings = self.settings[segment.group]
        moments = (segment.grad_offset,) if settings["momentum"] else ()
        step = self._step_attrs(segment.group, settings, clip_value)
        return {"opcode": "sgd_matmul", "offset": segment.offset, "moments": moments, "step": step}

    def _step_attrs(self, group: int, settings: dict[str, Any], clip_value: float | None) -> dict[str, int | float]:
        return {
            "momentum": float(settings["momentum"]),
            "dampening": float(settings["dampening"]),
            "nesterov": int(settings["nesterov"]),
            "decoupled": int(settings["decoupled"]),
            "weight_decay": float(settings["weight_decay"]),
            **self._shared_attrs(group, clip_value),
        }


class Adam(Optimizer):
    """Adam (Kingma and Ba 2014): m = beta1 · m + (1 - beta1) · g;  v = beta2 · v + (1 - beta2) · g²;
    w = w - lr · (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps). ``weight_decay`` is added to the gradient, as torch.

    >>> from wiesel import optim
    >>> optim.Adam(1e-3).moments
    2
    """

    moments = 2
    known = ("beta1", "beta2", "eps", "weight_decay")
    decoupled: ClassVar[bool] = False

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        groups: Iterable[Group] = (),
    ) -> None:
        super().__init__(lr, {"beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}, groups)

    def check(self, settings: dict[str, Any]) -> None:
        name = type(self).__name__
        for beta in ("beta1", "beta2"):
            if not 0.0 <= settings[beta] < 1.0:
                raise ValueError(f"{name}: {beta} must be in [0, 1), got {settings[beta]}")
        if settings["eps"] <= 0.0:
            raise ValueError(f"{name}: eps must be above 0, got {settings['eps']}")
        if settings["weight_decay"] < 0.0:
            raise ValueError(f"{name}: weight_decay must be at least 0, got {settings['weight_decay']}")

    def emit_run(self, em: Emitter, layout: Layout, run: Run, settings: dict[str, Any], clip: int | None, clip_value: float | None) -> None:
        grad = em.flat("grads", run.grad_offset, run.count)
        param = em.flat("params", run.offset, run.count)
        m = em.flat("opt", run.grad_offset, run.count)
        v = em.flat("opt", layout.grad_bytes + run.grad_offset, run.count)
        em.step("adam_update", [grad, param, m, v, clip], [param, m, v], **self._step_attrs(run.group, settings, clip_value))
        em.charge(16 * run.count)

    def take(self, layout: Layout, segment: Segment, clip_value: float | None) -> dict[str, Any] | None:
        moments = segment.grad_offset, layout.grad_bytes + segment.grad_offset
        step = self._step_attrs(segment.group, self.settings[segment.group], clip_value)
        return {"opcode": "adam_matmul", "offset": segment.offset, "moments": moments, "step": step}

    def _step_attrs(self, group: int, settings: dict[str, Any], clip_value: float | None) -> dict[str, int | float]:
        return {
            "beta1": float(settings["beta1"]),
            "beta2": float(settings["beta2"]),
            "eps": float(settings["eps"]),
            "weight_decay": float(settings["weight_decay"]),
            "decoupled": int(self.decoupled),
            **self._shared_attrs(group, clip_value),
        }

    def _write_group(self, scalars: NDArray[Any], slot: int, lr: float, settings: dict[str, Any], t: int) -> None:
        scalars[slot] = lr
        scalars[slot + 1] = -math.expm1(t * math.log(settings["beta1"])) if settings["beta1"] else 1.0
        scalars[slot + 2] = -math.expm1(t * math.log(settings["beta2"])) if settings["beta2"] else 1.0


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017): w = w · (1 - lr · weight_decay) before the step."""

    decoupled = True

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        groups: Iterable[Group] = (),
    ) -> None:
        super().__init__(lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, groups=groups)
