// Element-wise kernels and kernels over short rows: everything that writes each output once and needs no sum across tasks.
//
// Strides are in elements. Rows are channels or classes and have stride 1 unless a column stride is named. An output may be an input
// exactly (in place). Nothing outside the described elements is touched.
#pragma once
#include <stdint.h>

#include "ops/kinds.h"

namespace wl {

// One operand of a two-dimensional loop: element (r, c) is at data[r * row + c * col]; a stride of 0 repeats.
struct Plane {
  const float* data;
  int64_t row, col;
};

struct BnApply {  // y[r][c] = act((x[r][c] - mean[c]) * scale[c] + shift[c] + residual[r][c])
  const float* x;
  int64_t x_row;
  const float *mean, *scale, *shift;
  const float* residual;  // null: none
  int64_t residual_row;
  float* y;
  int64_t y_row;
  UnaryKind activation;
  float alpha, beta;
};

struct BnGrad {  // g = dy * act'(y); dx[r][c] = a[c] * g + b[c] * (x[r][c] - mean[c]) + shift[c]; dresidual = g
  const float* dy;
  int64_t dy_row;
  const float* y;  // null, with an activation: y = act((x - mean) * scale + offset), by the same operations as bn_apply
  int64_t y_row;
  const float* x;  // null: dx = a * g (then mean, b and shift are not read, and y is there if there is an activation)
  int64_t x_row;
  const float *mean, *a, *b, *shift, *scale, *offset;  // scale and offset are read where y is null and there is an activation
  float* dx;
  int64_t dx_row;
  float* dresidual;  // null: not wanted
  int64_t dresidual_row;
  UnaryKind activation;
  float alpha, beta;
};

struct Lrn {
  int64_t channels;
  int64_t before, after;  // the window of channel c is [c - before, c + after], cut at the ends
  float k, alpha, beta;   // d = k + alpha * Σ x², y = x * d^-beta; alpha is already divided by the window's size
};

struct ClassRows {  // the targets of a cross entropy, one per row: labels or, if null, soft targets
  const int32_t* labels;
  int64_t label_stride;
  const float* targets;
  int64_t target_row;
  const float* weight;  // null: 1
  int64_t weight_stride;
  float smoothing;
};

struct EltwiseKernels {
  // y[i] = kind(x[i])
  void (*unary)(UnaryKind kind, float alpha, float beta, int64_t n, const float* x, float* y);
  // dx[i] = dy[i] * kind'; s is what the kind saves (kinds.h); null where it saves nothing.
  void (*unary_grad)(UnaryKind kind, float alpha, float beta, int64_t n, const float* s, const float* dy, float* dx);
  // y[r][c] = a[r][c] kind b[r][c]
  void (*binary)(BinaryKind kind, int64_t rows, int64_t cols, Plane a, Plane b, float* y, int64_t y_row, int64_t y_col);

  // y[r][c] = (x[r][c] - mean[c]) * scale[c]
  void (*normalize_f32)(int64_t rows, int64_t channels, const float* x, int64_t x_row, const float* mean, const float* scale, float* y,
                        int64_t y_row);
  void (*normalize_u8)(int64_t rows, int64_t channels, const uint8_t* x, int64_t x_row, const float* mean, const float* scale, float* y,
                       int64_t y_row);
  void (*bn_apply)(int64_t rows, int64_t channels, const BnApply& p);
  void (*bn_grad)(int64_t rows, int64_t channels, const BnGrad& p);

  // Local response normalisation of one row. `scratch` holds lrn_scratch(p) floats.
  void (*lrn)(const Lrn& p, const float* x, float* y, float* scratch);
  void (*lrn_grad)(const Lrn& p, const float* x, const float* y, const float* dy, float* dx, float* scratch);

  // y = exp(x - m) / Σ exp(x - m), or its logarithm; m is the row's maximum
  void (*softmax)(bool log, int64_t rows, int64_t classes, const float* x, int64_t x_row, float* y, int64_t y_row);
  // dx = y (dy - Σ y dy), or for the logarithm dx = dy - exp(y) Σ dy
  void (*softmax_grad)(bool log, int64_t rows, int64_t classes, const float* y, int64_t y_row, const float* dy, int64_t dy_row, float* dx,
                       int64_t dx_row);
  // prob = softmax(logits); loss[r] = -weight[r] Σ t' log(prob) with t' = (1 - smoothing) t + smoothing / classes.
  // A label outside [0, classes) gives NaN.
  void (*cross_entropy)(int64_t rows, int64_t classes, const float* logits, int64_t logits_row, const ClassRows& t, float* loss,
                        float* prob, int64_t prob_row);
  // dlogits = factor * weight * (prob Σ t' - t')
  void (*cross_entropy_grad)(int64_t rows, int64_t classes, const float* prob, int64_t prob_row, const ClassRows& t, float factor,
                             float* dlogits, int64_t dlogits_row);

  // y[i] = x[i] * scale where the random number of element first + i is at least `threshold`, else 0 (base/random.h: RandomKey)
  void (*dropout)(int64_t n, const float* x, float* y, uint32_t threshold, float scale, uint64_t key, uint64_t sample, uint64_t first);

  // y[r][c] = x[r][c] for elements of 1, 2, 4 or 8 bytes; x and y do not overlap
  void (*copy)(int size, int64_t rows, int64_t cols, const void* x, int64_t x_row, int64_t x_col, void* y, int64_t y_row, int64_t y_col);
};

inline int64_t lrn_scratch(const Lrn& p) {
  return 2 * p.channels + p.before + p.after;
}

}  // namespace wl
