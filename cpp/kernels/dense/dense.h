// The product of few rows with a matrix of weights as it lies: every weight is read once, in long pieces, and never packed. For dense
// layers at small batches, whose time is that of reading the weights.
//
//   sum[r][j] = Σ_{p < k} a[r][p] * b[p * b_stride + j]                 r < m,
//   j < n
//
// Every sum is the same chain as in brgemm.h: multiply-adds in the order of p, cut every kBrgemmFlush terms, the parts added in order. So
// its bits are those of brgemm, and an op may take either by the number of rows.
#pragma once
#include <stdint.h>

#include "kernels/brgemm/brgemm.h"

namespace wl {

struct DenseArgs {
  int64_t m = 0, n = 0, k = 0;
  const float* a = nullptr;  // m rows of k floats
  int64_t a_stride = 0;
  const float* b = nullptr;  // element (p, j): run: b[p * b_stride + j];
                             // run_transposed: b[j * b_stride + p]
  int64_t b_stride = 0;
  float* scratch = nullptr;   // dense_scratch(m, n, k, width) floats, aligned to a cache line
  float* const* c = nullptr;  // m rows of n floats; do not overlap the others
  bool accumulate = false;    // start from what c holds
};

struct DenseKernels {
  int width;  // columns of a strip

  // c[r][j] = sum[r][j]
  void (*run)(const DenseArgs&);
  void (*run_transposed)(const DenseArgs&);

  // c[r][j] = activation(c[r][j] + bias[j]); out.accumulate and out.residual
  // are not read.
  void (*finish)(int64_t m, int64_t n, const BrgemmOutput& out);
};

// Floats of scratch: parts of sums and packed rows.
constexpr int64_t dense_part(int64_t m, int64_t n, int64_t width) {
  return (n + width - 1) / width * width * m;
}
constexpr int64_t dense_scratch(int64_t m, int64_t n, int64_t k, int64_t width) {
  return dense_part(m, n, width) + (k + 7) / 8 * 8 * m;
}

}  // namespace wl
