#include "kernels/depthwise/depthwise.h"
#include "simd/activation.h"

namespace wl {
namespace ref {
namespace {

// One lane: a vector of channels is one channel.
void pack(int64_t rows, int64_t taps, int64_t channels, const float* w, int64_t w_row, int64_t w_tap, float* packed) {
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t t = 0; t < taps; ++t) packed[(c * rows + r) * taps + t] = w[r * w_row + t * w_tap + c];
}

void unpack_add(int64_t rows, int64_t taps, int64_t channels, const float* packed, float* dw, int64_t w_row, int64_t w_tap) {
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t t = 0; t < taps; ++t) dw[r * w_row + t * w_tap + c] += packed[(c * rows + r) * taps + t];
}

void convolve_row(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e) {
  for (int64_t p = 0; p < d.columns; ++p)
    for (int64_t c = 0; c < d.channels; ++c) {
      float sum = 0;
      for (int64_t r = 0; r < d.rows; ++r)
        for (int64_t t = 0; t < d.taps; ++t) {
          const int64_t at = p * d.stride + t * d.dilation + d.start;
          if (at >= 0 && at < d.width) sum += x[r * d.x_row + at * d.x_col + c] * w[c * d.w_vector + r * d.w_row + t];
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
          dw[c * d.w_vector + r * d.w_row + t] += x[r * d.x_row + at * d.x_col + c] * dy[p * d.y_col + c];
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
const DepthwiseKernels depthwise = {pack, unpack_add, convolve_row, weights_row, widen, narrow};

}  // namespace ref
}  // namespace wl
