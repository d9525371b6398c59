// Reductions: sums, maxima, batch statistics and the sums of batch normalisation's gradient.
//
// Sums are blocked, so that no chain of additions is long; the order depends on the extents alone. Strides are in elements; rows have
// stride 1. Nothing outside the described elements is touched.
#pragma once
#include <stdint.h>

#include "ops/kinds.h"

namespace wl {

struct BnSums {  // g = dy * act'(y)
  const float* dy;
  int64_t dy_row;
  const float* y;  // null, with an activation: y = act((x - mean) * scale + offset), by the same operations as bn_apply
  int64_t y_row;
  const float* x;
  int64_t x_row;
  const float *mean, *scale, *offset;  // scale and offset are read where y is null and there is an activation
  UnaryKind activation;
  float alpha, beta;
};

struct ReduceKernels {
  // out[r] = sum (or maximum; NaN wins) of x[r][0…cols). `mean` counts as sum: the caller divides.
  void (*rows)(ReduceKind kind, int64_t rows, int64_t cols, const float* x, int64_t x_row, float* out);
  // acc[g][c] = acc[g][c] + Σ_r x[g][r][c], or the maximum of all; the rows of acc follow each other without gaps.
  void (*columns)(ReduceKind kind, int64_t groups, int64_t rows, int64_t cols, const float* x, int64_t x_group, int64_t x_row, float* acc);
  // Σ x², in double across blocks
  double (*sum_squares)(int64_t n, const float* x);

  // Per channel mean and M2 = Σ (d - mean)² of d = x[r][c] - shift[c].
  void (*moments)(int64_t rows, int64_t channels, const float* x, int64_t x_row, const float* shift, float* mean, float* m2);
  // Chan's formula: the moments of n_a and n_b elements become those of all, in a.
  void (*merge_moments)(int64_t channels, double n_a, float* mean_a, float* m2_a, double n_b, const float* mean_b, const float* m2_b);
  // sum_g[c] += Σ_r g, sum_gx[c] += Σ_r g * (x - mean[c])
  void (*bn_sums)(int64_t rows, int64_t channels, const BnSums& p, float* sum_g, float* sum_gx);
};

}  // namespace wl
