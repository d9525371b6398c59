"""ncnn's side of benchmarks/infer.py. Does not import wiesel."""

from __future__ import annotations

import os
from pathlib import Path

import ncnn
import numpy as np
from pipe import Work, digest, nchw, serve_work


class Inference(Work):
    """One net and one picture; no half precision anywhere."""

    def __init__(self, folder: str, pictures: str) -> None:
        x = nchw(np.load(pictures))
        if len(x) != 1:
            raise ValueError("ncnn takes one picture at a time")
        self._x = x[0]
        self._net = ncnn.Net()
        options = self._net.opt
        options.num_threads = int(os.environ["OMP_NUM_THREADS"])
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(options, name, False)
        for suffix, load in ((".param", self._net.load_param), (".bin", self._net.load_model)):
            if load(str(Path(folder) / f"net.ncnn{suffix}")) != 0:
                raise ValueError(f"ncnn cannot load net.ncnn{suffix}")
        self.about = {"version": ncnn.__version__, "digest": digest(self.step(0))}

    def step(self, number: int) -> np.ndarray:
        extractor = self._net.create_extractor()
        extractor.input("in0", ncnn.Mat(self._x))
        _, output = extractor.extract("out0")
        return np.array(output)


if __name__ == "__main__":
    serve_work(Inference)
