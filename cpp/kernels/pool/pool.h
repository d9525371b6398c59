// Rows of pooling windows, channels innermost. Rows and columns outside the picture take no part: a maximum never sees padding, an average
// may count it in its divisor.
#pragma once
#include <stdint.h>

namespace wl {

// One row of outputs. Output column p meets, through window row r and tap t, input column p*stride + t*dilation + start of the r-th input
// row; taps outside [0, width) are skipped. Every column has at least one tap inside, and rows > 0.
struct PoolRow {
  int64_t channels;
  int64_t columns, width;  // output and input columns
  int64_t rows, taps;      // window rows inside the picture, window columns
  int64_t stride, dilation, start;
  int64_t first_row;         // number of the first of these rows inside the whole window
  int64_t x_row, x_col;      // elements between window rows, input columns
  int64_t y_col, index_col;  // between output columns
};

// One row of inputs, and the outputs whose windows hold it. Row r in [0, rows) of dy (rising output rows) holds it through window row
// last_row - r*row_step; input column i meets output column o through tap t where o*stride + t*dilation - pad = i, o in [0, width).
struct PoolGather {
  int64_t channels;
  int64_t columns, width;  // input and output columns
  int64_t rows, taps;      // rows may be 0
  int64_t stride, dilation, pad;
  int64_t last_row, row_step;
  int64_t dy_row, dy_col;
  int64_t index_row, index_col;
  int64_t dx_col;
};

struct PoolKernels {
  // y[p*y_col + c] = max of x[r*x_row + column*x_col + c] over the window's taps; NaN if any of them is.
  void (*max_row)(const PoolRow& row, const float* x, float* y);

  // The same, and index[p*index_col + c] = (first_row + r)*taps + t of the tap that won: the first in this order among equals, the first
  // NaN. The window has at most 256 positions for u8.
  void (*max_index_u8)(const PoolRow& row, const float* x, float* y, uint8_t* index);
  void (*max_index_i32)(const PoolRow& row, const float* x, float* y, int32_t* index);

  // dx[r*x_row + (p*taps + t)*x_col + c] = index[p*index_col + c] == r*taps + t ? dy[p*y_col + c] : 0 for the input columns below width:
  // windows side by side (stride = taps, dilation 1, start 0, first_row 0), each of which fills its own place of dx.
  void (*max_bwd_tiles_u8)(const PoolRow& row, const float* dy, const uint8_t* index, float* dx);
  void (*max_bwd_tiles_i32)(const PoolRow& row, const float* dy, const int32_t* index, float* dx);

  // dx[i*dx_col + c] = Σ dy over the outputs of `gather` whose index is the tap that meets i; outputs in rising order.
  void (*max_bwd_row_u8)(const PoolGather& gather, const float* dy, const uint8_t* index, float* dx);
  void (*max_bwd_row_i32)(const PoolGather& gather, const float* dy, const int32_t* index, float* dx);

  // y[p*y_col + c] = (Σ_r Σ_t x[…]) / (divisor * (inside ? taps of p inside the picture : 1)); a row's taps are added up first.
  void (*average_row)(const PoolRow& row, const float* x, float divisor, bool inside, float* y);

  // dx[i*dx_col + c] (+)= Σ dy * scale / (inside ? taps of that output inside the picture : 1), outputs in rising order; adds where
  // `accumulate`, else overwrites.
  void (*average_bwd_row)(const PoolGather& gather, const float* dy, float scale, bool inside, bool accumulate, float* dx);
};

}  // namespace wl
