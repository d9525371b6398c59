# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""Compiled loops over NumPy data that batches are made of."""

from libc.stdint cimport int64_t
from libc.string cimport memcpy


def gather_rows(const unsigned char[:, ::1] source, const int64_t[::1] index, unsigned char[:, ::1] out):
    """``out[i] = source[index[i]]`` over rows of bytes: C-contiguous ``source`` (rows, bytes) and ``out`` (len(index), bytes).

    Raises ValueError when the row lengths or ``len(out)`` do not fit, IndexError when an index is outside ``source``.
    """
    cdef Py_ssize_t rows = source.shape[0], n = index.shape[0], i, bad = -1
    cdef size_t row_bytes = source.shape[1]
    cdef int64_t row
    if out.shape[1] != source.shape[1]:
        raise ValueError(f"gather_rows: rows of {source.shape[1]} bytes do not fit into rows of {out.shape[1]}")
    if out.shape[0] != n:
        raise ValueError(f"gather_rows: {n} indices for {out.shape[0]} rows")
    if n == 0 or row_bytes == 0:
        return
    with nogil:
        for i in range(n):
            row = index[i]
            if row < 0 or row >= rows:
                bad = i
                break
            memcpy(&out[i, 0], &source[row, 0], row_bytes)
    if bad >= 0:
        raise IndexError(f"gather_rows: index {index[bad]} at {bad} is outside 0 … {rows - 1}")
