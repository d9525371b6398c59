"""Compiled loops over NumPy data that batches are made of. Source: src/_batch.pyx. No call holds the GIL while it copies."""

import numpy as np
from numpy.typing import NDArray

def gather_rows(source: NDArray[np.uint8], index: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    """``out[i] = source[index[i]]`` over rows of bytes: C-contiguous ``source`` (rows, bytes) and ``out`` (len(index), bytes).

    Raises ValueError when the row lengths or ``len(out)`` do not fit, IndexError when an index is outside ``source``.
    """
