"""Where the time of a program goes: one line per step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wiesel.planning import shape_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wiesel.nn.engine import Runner
    from wiesel.nn.module import Module
    from wiesel.train import Trainer


@dataclass(frozen=True)
class Profile:
    """Seconds per step, mean over the runs. ``str()`` is a table, the slowest first."""

    steps: tuple[dict[str, Any], ...]
    seconds: tuple[float, ...]

    @property
    def total(self) -> float:
        return sum(self.seconds)

    def __str__(self) -> str:
        lines = [f"{'ms':>9}  {'share':>6}  {'entry':<8} {'step':<18} {'path':<28} output  kernel"]
        order = np.argsort(-np.array(self.seconds), kind="stable")
        for i in order:
            step, seconds = self.steps[i], self.seconds[i]
            if seconds == 0.0:
                continue
            output = next((shape_text(o["shape"]) for o in step["outputs"] if o is not None), "")
            lines.append(
                f"{seconds * 1e3:9.4f}  {seconds / max(self.total, 1e-30):6.1%}  {step['entry']:<8} {step['opcode']:<18} "
                f"{step['path']:<28} {output}  {step['algorithm']} {step['kernel']}"
            )
        lines.append(f"{self.total * 1e3:9.4f}  in all")
        return "\n".join(lines)


def profile_net(net: Module, inputs: Sequence[Any], *, runs: int = 10) -> Profile:
    """Forward on ``inputs``; see ``Module.profile``."""
    engine = net.engine
    with engine.lock:
        arrays, n = engine.check_inputs(inputs)
        runner = engine.inference(arrays, n, None)
        n = min(n, runner.n)
        converted = [array[:n] for array in engine.convert(runner, arrays)]
        return _measure(runner, ("forward",), converted, runner.new_outputs(n), n, None, runs=runs)


def profile_training(trainer: Trainer, x: Any, y: Any, *, runs: int = 10) -> Profile:
    """Forward, backward and update on one batch; weights, states and the optimizer's memory are put back. See ``Trainer.profile``."""
    found: Profile = trainer.without_trace(x, y, lambda *how: _measure(*how, runs=runs))
    return found


def _measure(
    runner: Runner,
    entries: Sequence[str],
    arrays: Sequence[NDArray[Any]],
    outputs: Sequence[NDArray[Any]],
    n: int,
    scalars: NDArray[np.int64] | None,
    *,
    runs: int,
) -> Profile:
    steps = runner.compiled.program.steps()
    runner.instance.run(runner.bits(*entries), arrays, outputs, n, scalars)
    seconds = np.zeros(len(steps))
    for _ in range(runs):
        runner.instance.run(runner.bits(*entries), arrays, outputs, n, scalars, seconds)
    return Profile(tuple(steps), tuple(float(s) / runs for s in seconds))
