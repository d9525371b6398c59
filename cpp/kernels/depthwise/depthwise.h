// Rows of depthwise convolutions, channels innermost. The same two kernels serve every stride, dilation and padding: a stride is a step
// between the positions read (forward, backward-weights) or between the positions written (backward-data, one phase at a time).
#pragma once
#include <stdint.h>

#include "ops/kinds.h"

namespace wl {

// Position p in [0, columns) of the swept row meets, through filter row r and tap t, position p*stride + t*dilation + start of the read
// rows; where that lies outside [0, width) the tap is skipped. Steps are in elements.
struct DepthwiseRow {
  int64_t channels;
  int64_t columns, width;
  int64_t rows, taps;  // filter rows (only those inside the picture) and filter columns; either may be 0
  int64_t stride, dilation, start;
  int64_t x_row, x_col;     // between filter rows, between positions of the read rows
  int64_t w_row, w_vector;  // between filter rows and between vectors of channels of the packed weights; a tap is one vector
  int64_t y_step, y_col;    // between positions of the swept row, in columns and in elements
  bool x_cold, y_cold;      // they lie in no cache: lines are asked for ahead of time
};

struct DepthwiseEpilogue {
  const float* bias;      // [channels], or null
  const float* residual;  // [columns] at steps of residual_col, or null; may be the output itself
  int64_t residual_col;
  UnaryKind activation;
  float alpha, beta;
};

// Weights (and their gradients while they are added up) are packed by vectors of channels: channel c = v*lanes + l of filter row r and tap
// t sits at [v*w_vector + r*w_row + t*lanes + l]; lanes past the last channel are zero in weights and ignored in gradients.
struct DepthwiseKernels {
  // packed[…] = w[r*w_row + t*w_tap + c] for r in [0, rows), t in [0, taps); both steps may be negative. Dense: w_row of the packed ones is
  // taps*lanes, w_vector rows*taps*lanes.
  void (*pack)(int64_t rows, int64_t taps, int64_t channels, const float* w, int64_t w_row, int64_t w_tap, float* packed);
  // dw[r*w_row + t*w_tap + c] += packed[…]
  void (*unpack_add)(int64_t rows, int64_t taps, int64_t channels, const float* packed, float* dw, int64_t w_row, int64_t w_tap);

  // y[p*y_col + c] = act(Σ_r Σ_t x[r*x_row + (p*stride + t*dilation + start)*x_col + c] * w[r, t, c] + bias[c] + residual[p*residual_col +
  // c]). A sum runs over r, inside it over t. `epilogue` may be null.
  void (*convolve_row)(const DepthwiseRow& row, const float* x, const float* w, float* y, const DepthwiseEpilogue* epilogue);

  // dw[r, t, c] += Σ_p x[r*x_row + (p*stride + t*dilation + start)*x_col + c] * dy[p*y_col + c].
  // dw overlaps neither x nor dy. The order of the sum depends on columns, width, stride, dilation and start alone.
  void (*weights_row)(const DepthwiseRow& row, const float* x, const float* dy, float* dw);

  // y[p*y_col + c*m + j] = x[p*x_col + c], j in [0, m).
  void (*widen)(int64_t columns, int64_t channels, int64_t m, const float* x, int64_t x_col, float* y, int64_t y_col);
  // y[p*y_col + c] = Σ_j x[p*x_col + c*m + j], j rising.
  void (*narrow)(int64_t columns, int64_t channels, int64_t m, const float* x, int64_t x_col, float* y, int64_t y_col);
};

}  // namespace wl
