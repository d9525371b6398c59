"""What all of PyTorch's scripts set alike."""

from __future__ import annotations

import os

import torch


def use_plain_float32() -> None:
    """As many threads as the driver says; no lower precision inside."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_float32_matmul_precision("highest")
    torch.manual_seed(0)


def memory_format(layout: str) -> torch.memory_format:
    return torch.channels_last if layout == "channels_last" else torch.contiguous_format
