#include "kernels/depthwise/depthwise.h"
#include "simd/activation.h"

namespace wl {
namespace ref {
namespace {

void convolve_row(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e) {
  for (int64_t p = 0; p < d.columns; ++p)
    for (int64_t c = 0; c < d.channels; ++c) {
      float sum = 0;
      for (int64_t r = 0; r < d.rows; ++r)
        for (int64_t t = 0; t < d.taps; ++t) {
          const int64_t at = p * d.stride + t * d.dilation + d.start;
          if (at >= 0 && at < d.width) sum += x[r * d.x_row + at * d.x_col + c] * w[r * d.w_row + t * d.w_tap + c];
        }
      if (e) {
        if (e->bias) sum += e->bias[c];
        if (e->residual) sum += e->residual[p * e->residual_col + c];
        sum = unary_slow(e->activation, set1(sum), set1(e->alpha), set1(e->beta))[0];
      }
      y[p * d.y_col + c] = sum;
    }
}

void weights_row(const DepthwiseRow& d, const float* x, const float* dy, float* dw) {
  for (int64_t r = 0; r < d.rows; ++r)
    for (int64_t t = 0; t < d.taps; ++t)
      for (int64_t p = 0; p < d.columns; ++p) {
        const int64_t at = p * d.stride + t * d.dilation + d.start;
        if (at < 0 || at >= d.width) continue;
        for (int64_t c = 0; c < d.channels; ++c)
          dw[r * d.w_row + t * d.w_tap + c] += x[r * d.x_row + at * d.x_col + c] * dy[p * d.y_col + c];
      }
}

void widen(int64_t columns, int64_t channels, int64_t m, const float* x, int64_t x_col, float* y, int64_t y_col) {
  for (int64_t p = 0; p < columns; ++p)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t j = 0; j < m; ++j) y[p * y_col + c * m + j] = x[p * x_col + c];
}

void narrow(int64_t columns, int64_t channels, int64_t m, const float* x, int64_t x_col, float* y, int64_t y_col) {
  for (int64_t p = 0; p < columns; ++p)
    for (int64_t c = 0; c < channels; ++c) {
      float sum = 0;
      for (int64_t j = 0; j < m; ++j) sum += x[p * x_col + c * m + j];
      y[p * y_col + c] = sum;
    }
}

}  // namespace

extern const DepthwiseKernels depthwise;
const DepthwiseKernels depthwise = {convolve_row, weights_row, widen, narrow};

}  // namespace ref
}  // namespace wl
