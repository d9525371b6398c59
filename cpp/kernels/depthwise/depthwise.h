// Rows of depthwise convolutions, channels innermost. The same two kernels serve every stride, dilation and padding: a stride is a step
// between the positions read (forward, backward-weights) or between the positions written (backward-data, one phase at a time).
#pragma once
#include <stdint.h>

#include "ops/kinds.h"

namespace wl {

// Position p in [0, columns) of the swept row meets, through filter row r and tap t, position p*stride + t*dilation + start of the read
// rows; where that lies outside [0, width) the tap is skipped. Steps are in elements and may be negative.
struct DepthwiseRow {
  int64_t channels;
  int64_t columns, width;
  int64_t rows, taps;  // filter rows (only those inside the picture) and filter columns; either may be 0
  int64_t stride, dilation, start;
  int64_t x_row, x_col;  // between filter rows, between positions of the read rows
  int64_t w_row, w_tap;  // between the weights of filter rows, of taps
  int64_t y_col;         // between positions of the swept row
};

struct DepthwiseEpilogue {
  const float* bias;      // [channels], or null
  const float* residual;  // [columns] at steps of residual_col, or null; may be the output itself
  int64_t residual_col;
  UnaryKind activation;
  float alpha, beta;
};

struct DepthwiseKernels {
  // y[p*y_col + c] = act(Σ_r Σ_t x[r*x_row + (p*stride + t*dilation + start)*x_col + c] * w[r*w_row + t*w_tap + c] + bias[c] +
  // residual[p*residual_col + c]). A sum runs over r, inside it over t. `epilogue` may be null.
  void (*convolve_row)(const DepthwiseRow& row, const float* x, const float* w, float* y, const DepthwiseEpilogue* epilogue);

  // dw[r*w_row + t*w_tap + c] += Σ_p x[r*x_row + (p*stride + t*dilation + start)*x_col + c] * dy[p*y_col + c].
  // dw overlaps neither x nor dy. The order of the sum depends on columns, width, stride, dilation and start alone.
  void (*weights_row)(const DepthwiseRow& row, const float* x, const float* dy, float* dw);

  // y[p*y_col + c*m + j] = x[p*x_col + c], j in [0, m).
  void (*widen)(int64_t columns, int64_t channels, int64_t m, const float* x, int64_t x_col, float* y, int64_t y_col);
  // y[p*y_col + c] = Σ_j x[p*x_col + c*m + j], j rising.
  void (*narrow)(int64_t columns, int64_t channels, int64_t m, const float* x, int64_t x_col, float* y, int64_t y_col);
};

}  // namespace wl
