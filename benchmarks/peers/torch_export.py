"""Writes a benchmark's net, with its weights, in the formats that other peers read. Does not import wiesel."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from pipe import serve
from torch_nets import build


def export(net: str, pictures: str, weights: str, folder: str, formats: list[str]) -> dict[str, str]:
    """Makes ``net.onnx``, or ``net.ncnn.param`` and ``net.ncnn.bin``, in ``folder``; the formats that failed, with the error."""
    x = torch.from_numpy(np.load(pictures)).permute(0, 3, 1, 2).contiguous()
    model = build(net, x, weights).eval()
    failed = {}
    for form in formats:
        try:
            {"onnx": to_onnx, "ncnn": to_ncnn}[form](model, x, Path(folder))
        except Exception as error:
            failed[form] = f"{type(error).__name__}: {error}".splitlines()[0]
    return failed


def to_onnx(model: torch.nn.Module, x: torch.Tensor, folder: Path) -> None:
    torch.onnx.export(model, (x,), folder / "net.onnx", input_names=["x"], output_names=["y"], external_data=False, verbose=False)


def to_ncnn(model: torch.nn.Module, x: torch.Tensor, folder: Path) -> None:
    """pnnx traces the net, then converts it; it writes beside the traced file. Weights stay float32."""
    import pnnx

    os.chdir(folder)
    pnnx.export(model, "net.pt", x, fp16=False)
    if not (folder / "net.ncnn.param").exists():
        raise RuntimeError("pnnx has not written net.ncnn.param")


if __name__ == "__main__":
    serve({"export": export})
