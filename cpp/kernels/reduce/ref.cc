// The same in a few loops: documentation and oracle. Sums are in double.
#include "kernels/reduce/reduce.h"
#include "simd/activation.h"

namespace wl {
namespace WL_ISA {
namespace {

void rows_ref(ReduceKind kind, int64_t rows, int64_t cols, const float* x, int64_t x_row, float* out) {
  for (int64_t r = 0; r < rows; ++r, x += x_row) {
    double sum = 0;
    float top = -kInfinity;
    for (int64_t c = 0; c < cols; ++c) {
      sum += x[c];
      if (x[c] > top || x[c] != x[c]) top = x[c];
    }
    out[r] = kind == ReduceKind::max ? top : (float)sum;
  }
}

void columns_ref(ReduceKind kind, int64_t groups, int64_t rows, int64_t cols, const float* x, int64_t x_group, int64_t x_row, float* acc) {
  for (int64_t g = 0; g < groups; ++g, x += x_group, acc += cols)
    for (int64_t c = 0; c < cols; ++c) {
      double sum = acc[c];
      float top = acc[c];
      for (int64_t r = 0; r < rows; ++r) {
        const float v = x[r * x_row + c];
        sum += v;
        if (v > top || v != v) top = v;
      }
      acc[c] = kind == ReduceKind::max ? top : (float)sum;
    }
}

double sum_squares_ref(int64_t n, const float* x) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += (double)x[i] * x[i];
  return sum;
}

void moments_ref(int64_t rows, int64_t channels, const float* x, int64_t x_row, const float* shift, float* mean, float* m2) {
  for (int64_t c = 0; c < channels; ++c) {
    double sum = 0, squares = 0;
    for (int64_t r = 0; r < rows; ++r) sum += (double)x[r * x_row + c] - shift[c];
    const double about = sum / (double)rows;
    for (int64_t r = 0; r < rows; ++r) {
      const double d = (double)x[r * x_row + c] - shift[c] - about;
      squares += d * d;
    }
    mean[c] = (float)about, m2[c] = (float)squares;
  }
}

void merge_moments_ref(int64_t channels, double n_a, float* mean_a, float* m2_a, double n_b, const float* mean_b, const float* m2_b) {
  for (int64_t c = 0; c < channels; ++c) {
    const double delta = (double)mean_b[c] - mean_a[c], n = n_a + n_b;
    mean_a[c] = (float)(mean_a[c] + delta * n_b / n);
    m2_a[c] = (float)((double)m2_a[c] + m2_b[c] + delta * delta * n_a * n_b / n);
  }
}

void bn_sums_ref(int64_t rows, int64_t channels, const BnSums& p, float* sum_g, float* sum_gx) {
  for (int64_t c = 0; c < channels; ++c) {
    double g_sum = sum_g[c], gx_sum = sum_gx[c];
    for (int64_t r = 0; r < rows; ++r) {
      const f32v alpha = set1(p.alpha), beta = set1(p.beta);
      f32v g = set1(p.dy[r * p.dy_row + c]);
      if (p.activation != UnaryKind::none) {
        const f32v v = p.y ? set1(p.y[r * p.y_row + c])
                           : unary_slow(p.activation, set1((p.x[r * p.x_row + c] - p.mean[c]) * p.scale[c] + p.offset[c]), alpha, beta);
        g = unary_grad_slow(p.activation, v, g, alpha, beta);
      }
      g_sum += g[0];
      gx_sum += (double)g[0] * ((double)p.x[r * p.x_row + c] - p.mean[c]);
    }
    sum_g[c] = (float)g_sum, sum_gx[c] = (float)gx_sum;
  }
}

}  // namespace

extern const ReduceKernels reduce;
const ReduceKernels reduce = {rows_ref, columns_ref, sum_squares_ref, moments_ref, merge_moments_ref, bn_sums_ref};

}  // namespace WL_ISA
}  // namespace wl
