#include "kernels/pool/pool.h"

namespace wl {
namespace ref {
namespace {

// Calls body(r, t, element of x) for each tap of output column p that lies inside the picture, in window order.
template <class Body>
void for_each_tap(const PoolRow& w, int64_t p, int64_t c, Body body) {
  for (int64_t r = 0; r < w.rows; ++r)
    for (int64_t t = 0; t < w.taps; ++t) {
      const int64_t column = p * w.stride + t * w.dilation + w.start;
      if (column >= 0 && column < w.width) body(r, t, r * w.x_row + column * w.x_col + c);
    }
}

// Calls body(r, t, o) for each output that meets input column i, in rising order.
template <class Body>
void for_each_output(const PoolGather& g, int64_t i, Body body) {
  for (int64_t r = 0; r < g.rows; ++r)
    for (int64_t t = g.taps - 1; t >= 0; --t) {
      const int64_t at = i + g.pad - t * g.dilation;
      if (at >= 0 && at % g.stride == 0 && at / g.stride < g.width) body(r, t, at / g.stride);
    }
}

template <class Index>
void max_any(const PoolRow& w, const float* x, float* y, Index* index) {
  for (int64_t p = 0; p < w.columns; ++p)
    for (int64_t c = 0; c < w.channels; ++c) {
      float best = 0;
      int64_t winner = -1;
      for_each_tap(w, p, c, [&](int64_t r, int64_t t, int64_t at) {
        const float v = x[at];
        if (winner < 0 || v > best || (v != v && best == best)) best = v, winner = (w.first_row + r) * w.taps + t;
      });
      y[p * w.y_col + c] = best;
      if (index) index[p * w.index_col + c] = (Index)winner;
    }
}

void max_row(const PoolRow& w, const float* x, float* y) {
  max_any<uint8_t>(w, x, y, nullptr);
}

template <class Index>
void max_bwd_tiles(const PoolRow& w, const float* dy, const Index* index, float* dx) {
  for (int64_t p = 0; p < w.columns; ++p)
    for (int64_t c = 0; c < w.channels; ++c)
      for_each_tap(w, p, c, [&](int64_t r, int64_t t, int64_t at) {
        dx[at] = index[p * w.index_col + c] == r * w.taps + t ? dy[p * w.y_col + c] : 0;
      });
}

template <class Index>
void max_bwd_row(const PoolGather& g, const float* dy, const Index* index, float* dx) {
  for (int64_t i = 0; i < g.columns; ++i)
    for (int64_t c = 0; c < g.channels; ++c) {
      float sum = 0;
      for_each_output(g, i, [&](int64_t r, int64_t t, int64_t o) {
        const int64_t position = (g.last_row - r * g.row_step) * g.taps + t;
        if (index[r * g.index_row + o * g.index_col + c] == position) sum += dy[r * g.dy_row + o * g.dy_col + c];
      });
      dx[i * g.dx_col + c] = sum;
    }
}

void average_row(const PoolRow& w, const float* x, float divisor, bool inside, float* y) {
  for (int64_t p = 0; p < w.columns; ++p)
    for (int64_t c = 0; c < w.channels; ++c) {
      float sum = 0;
      int64_t taps = 0;
      for_each_tap(w, p, c, [&](int64_t r, int64_t, int64_t at) { sum += x[at], taps += r == 0; });
      y[p * w.y_col + c] = sum / (inside ? divisor * (float)taps : divisor);
    }
}

void average_bwd_row(const PoolGather& g, const float* dy, float scale, bool inside, bool accumulate, float* dx) {
  for (int64_t i = 0; i < g.columns; ++i)
    for (int64_t c = 0; c < g.channels; ++c) {
      float sum = accumulate ? dx[i * g.dx_col + c] : 0;
      for_each_output(g, i, [&](int64_t r, int64_t, int64_t o) {
        int64_t taps = 0;
        for (int64_t t = 0; t < g.taps; ++t) {
          const int64_t column = o * g.stride + t * g.dilation - g.pad;
          taps += column >= 0 && column < g.columns;
        }
        sum += dy[r * g.dy_row + o * g.dy_col + c] * (inside ? scale / (float)taps : scale);
      });
      dx[i * g.dx_col + c] = sum;
    }
}

}  // namespace

extern const PoolKernels pool;
const PoolKernels pool = {
    max_row,
    max_any<uint8_t>,
    max_any<int32_t>,
    max_bwd_tiles<uint8_t>,
    max_bwd_tiles<int32_t>,
    max_bwd_row<uint8_t>,
    max_bwd_row<int32_t>,
    average_row,
    average_bwd_row,
};

}  // namespace ref
}  // namespace wl
