"""OpenVINO's side of benchmarks/infer.py. Does not import wiesel."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import openvino
from pipe import Work, digest, nchw, serve_work


class Inference(Work):
    """One net and one batch, tuned for latency; without the hint a processor with AMX would compute in bfloat16."""

    def __init__(self, folder: str, pictures: str) -> None:
        self._x = nchw(np.load(pictures))
        threads = int(os.environ["OMP_NUM_THREADS"])
        config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        compiled = openvino.Core().compile_model(str(Path(folder) / "net.onnx"), "CPU", config)
        self._request = compiled.create_infer_request()
        self._output = compiled.output(0)
        self.about = {"version": openvino.__version__, "digest": digest(self.step(0))}

    def step(self, number: int) -> np.ndarray:
        result: np.ndarray = self._request.infer([self._x], share_inputs=True)[self._output]
        return result


if __name__ == "__main__":
    serve_work(Inference)
