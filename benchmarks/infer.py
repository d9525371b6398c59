#!/usr/bin/env python3
"""Inference of whole nets, beside PyTorch, ONNX Runtime, OpenVINO and ncnn: milliseconds per call, NumPy in and NumPy out.

python benchmarks/infer.py --peer-python /path/to/venv/bin/python --nets resnet18,mobilenet-v2 [--batch 1]

wiesel is called as ``net(x)``. Every contender has the same weights and must give the same outputs. ONNX Runtime and OpenVINO get the
net as PyTorch exports it, ncnn as pnnx converts it; all are held to float32. Each gets pictures in the order that suits it.
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

SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "torch": {
        f"{layout}{' compiled' if compiled else ''}": {"layout": layout, "compiled": compiled}
        for compiled in (False, True)
        for layout in ("nchw", "channels_last")
    },
    "onnxruntime": {"": {}},
    "openvino": {"": {}},
    "ncnn": {"": {}},
}
FORMATS = {"onnxruntime": "onnx", "openvino": "onnx", "ncnn": "ncnn"}
"""What a peer reads, if it has not the net's own definition."""
TARGET = 0.95  # of each net


def main() -> int:
    parser = protocol.arguments(__doc__, peers=tuple(SETTINGS), seconds=0.5)
    parser.add_argument("--nets", default="all", help=f"comma-separated, of: {', '.join(nets.CASES)}")
    parser.add_argument("--batch", type=int, default=1, help="pictures per call (default: %(default)s)")
    options = parser.parse_args()
    cases = nets.choose(options.nets, recipes=False)
    session = protocol.Session("infer", options, tuple(SETTINGS))
    results = []
    for case in cases:
        results.append(measure(case, options.batch, session))
        print(compare.row(results[-1]), file=sys.stderr)
    session.report("Inference", "NumPy in, NumPy out; weights prepared before.", results, compare.table(results))
    return 0


def measure(case: nets.Case, batch: int, session: protocol.Session) -> dict[str, Any]:
    """All contenders on one net. A peer that cannot read or run it is listed with its error."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pictures, weights = str(folder / "x.npy"), str(folder / "weights.npz")
        np.save(pictures, case.pictures(np.random.default_rng(0), batch))
        entries = [protocol.Entry("wiesel", "wiesel_infer.py", {"net": case.net, "pictures": pictures, "weights": weights})]
        unreadable: dict[str, str] = {}

        def others(_first: protocol.Contender) -> dict[str, Any]:
            """The peers' files are made of the weights that wiesel has written."""
            unreadable.update(export(case, pictures, weights, folder, session))
            return {}

        for peer in session.peers:
            for name, setting in SETTINGS[peer].items():
                own = {"net": case.net, "weights": weights} if peer not in FORMATS else {"folder": scratch}
                if not name or session.wants(name):
                    entries.append(protocol.Entry(f"{peer} {name}".strip(), f"{peer}_infer.py", {"pictures": pictures, **own, **setting}))
        found = session.side_by_side(case.name, entries, lambda c: others(c) if c.name == "wiesel" else {})
    found["failed"] |= {peer: unreadable[form] for peer, form in FORMATS.items() if peer in found["failed"] and form in unreadable}
    norm, projection = found["contenders"]["wiesel"]["digest"]
    for name, about in found["contenders"].items():
        its_norm, its_projection = about["digest"]
        if abs(its_norm - norm) > 1e-3 * norm or abs(its_projection - projection) > 1e-3 * norm:
            raise RuntimeError(f"{case.name}: {name} computes something else: {about['digest']}, wiesel {[norm, projection]}")
    return {"kind": "infer", "net": case.name, "batch": batch, "target": session.options.target or TARGET, **found}


def export(case: nets.Case, pictures: str, weights: str, folder: Path, session: protocol.Session) -> dict[str, str]:
    """Writes the net into ``folder`` in all formats that peers here read; the formats that could not be written, with the error."""
    formats = sorted({FORMATS[peer] for peer in session.peers if peer in FORMATS})
    if not formats:
        return {}
    if not protocol.installed(session.options.peer_python, "torch"):
        return dict.fromkeys(formats, "nothing to export the net with: the peers' interpreter has no torch")
    exporter = session.contender("export", "torch_export.py", silent=True)  # exporters are talkative
    try:
        failed: dict[str, str] = exporter.ask(
            "export", net=case.net, pictures=pictures, weights=weights, folder=str(folder), formats=formats
        )
    finally:
        exporter.close()
    return failed


if __name__ == "__main__":
    sys.exit(main())
