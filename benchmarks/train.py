#!/usr/bin/env python3
"""Training steps of whole nets, beside PyTorch: milliseconds per step, the ratio with its interval, and peak memory.

python benchmarks/train.py --peer-python /path/to/venv/bin/python --nets lenet5,mnist,sixconv,resnet18-32

Both get the same NumPy batches, the same initial weights, cross-entropy and SGD with momentum; a step includes the transfer of the
batch, forward, loss, backward and update. The peer runs in every setting that might be its best; each row compares with the fastest.
"train mnist", "train fashion-mnist" and "train cifar10" are the nets, batches and optimizer of `wiesel train` on those data sets.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import compare
import nets
import numpy as np
import protocol

BATCHES = 4
COMPARED_LOSSES = 3
SETTINGS = {
    f"{layout}{' compiled' if compiled else ''}": {"layout": layout, "compiled": compiled}
    for compiled in (False, True)
    for layout in ("nchw", "channels_last")
}
PEERS = ("torch",)
BY_RATES = ("floor", "forecast")
"""Take turns like contenders: a step's time at best, and as planned, at the rates that the machine has in each round."""


def main() -> int:
    parser = protocol.arguments(__doc__, peers=PEERS, seconds=1.0)
    parser.add_argument(
        "--nets", default="all", help=f"comma-separated, of: {', '.join(nets.CASES | nets.RECIPES)} (default: all but the recipes)"
    )
    options = parser.parse_args()
    cases = nets.choose(options.nets, recipes=True)
    session = protocol.Session("train", options, PEERS)
    results = []
    for case in cases:
        results.append(measure(case, session))
        print(compare.row(results[-1]), file=sys.stderr)  # what is measured is shown, whatever becomes of the rest
    session.report("Training steps", "cross-entropy, SGD with momentum.", results, compare.table(results))
    return 0


def measure(case: nets.Case, session: protocol.Session) -> dict[str, Any]:
    """All contenders on one net. A setting of a peer that does not work is listed with its error."""

    def first(contender: protocol.Contender) -> dict[str, Any]:
        if contender.name in BY_RATES:
            return {}
        losses = contender.ask("first", count=COMPARED_LOSSES)
        return {"losses": losses, "cost": contender.ask("cost")}

    with tempfile.TemporaryDirectory() as scratch:
        batches = Path(scratch) / "batches.npz"
        rng = np.random.default_rng(0)
        x = case.pictures(rng, BATCHES * case.batch).reshape(BATCHES, case.batch, *case.shape)
        np.savez(batches, x=x, y=rng.integers(0, case.classes, (BATCHES, case.batch)))
        setup = {"net": case.net, "batches": str(batches), "weights": str(Path(scratch) / "weights.npz"), "optimizer": dict(case.optimizer)}
        entries = [protocol.Entry("wiesel", "wiesel_train.py", setup)]
        entries += [protocol.Entry(what, "wiesel_by_rates.py", setup | {"what": what}) for what in BY_RATES]
        entries += [
            protocol.Entry(f"{peer} {name}", f"{peer}_train.py", setup | setting)
            for peer in session.peers
            for name, setting in SETTINGS.items()
            if session.wants(name)
        ]
        found = session.side_by_side(case.name, entries, first)
    by_rates = {what: found["contenders"].pop(what)["times"] for what in BY_RATES}
    ours = found["contenders"]["wiesel"]
    for name, about in found["contenders"].items():
        if about["parameters"] != ours["parameters"] or not np.allclose(about["losses"], ours["losses"], rtol=1e-3):
            raise RuntimeError(
                f"{case.name}: {name} is not the same net: {about['parameters']} parameters and losses {about['losses']}, "
                f"wiesel has {ours['parameters']} and {ours['losses']}"
            )
    target = session.options.target or case.training_target
    return {"kind": "train", "net": case.name, "batch": case.batch, "target": target, **by_rates, **found}


if __name__ == "__main__":
    sys.exit(main())
