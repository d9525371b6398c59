"""ONNX Runtime's side of benchmarks/infer.py. Does not import wiesel."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
from pipe import Work, digest, nchw, serve_work


class Inference(Work):
    """One net and one batch; all graph optimisations, which fold batch normalisation."""

    def __init__(self, folder: str, pictures: str) -> None:
        self._x = nchw(np.load(pictures))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self._session = onnxruntime.InferenceSession(str(Path(folder) / "net.onnx"), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.about = {"version": onnxruntime.__version__, "digest": digest(self.step(0))}

    def step(self, number: int) -> np.ndarray:
        result: np.ndarray = self._session.run(None, {self._input: self._x})[0]
        return result


if __name__ == "__main__":
    serve_work(Inference)
