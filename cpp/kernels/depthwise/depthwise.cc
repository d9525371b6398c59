#include "kernels/depthwise/depthwise.h"

#include "simd/activation.h"

namespace wl {
namespace WL_ISA {
namespace {

// Positions of the swept row whose taps all lie inside [0, width): [begin, end).
struct Interior {
  int64_t begin, end;
};
WL_INLINE int64_t ceil_div(int64_t a, int64_t b) {
  return a <= 0 ? -(-a / b) : (a + b - 1) / b;
}
WL_INLINE int64_t clamp(int64_t v, int64_t low, int64_t high) {
  return v < low ? low : v > high ? high : v;
}

WL_INLINE Interior interior(const DepthwiseRow& d) {
  if (d.taps == 0) return {0, d.columns};
  const int64_t reach = d.start + (d.taps - 1) * d.dilation;
  const int64_t begin = clamp(ceil_div(-d.start, d.stride), 0, d.columns);
  const int64_t end = d.width - 1 < reach ? 0 : (d.width - 1 - reach) / d.stride + 1;
  return {begin, clamp(end, begin, d.columns)};
}

// The taps that column p meets inside [0, width), as a row of one column.
WL_INLINE DepthwiseRow edge_column(const DepthwiseRow& d, int64_t p, int64_t* first_tap) {
  const int64_t at = p * d.stride + d.start;
  const int64_t begin = clamp(ceil_div(-at, d.dilation), 0, d.taps);
  const int64_t end = clamp(ceil_div(d.width - at, d.dilation), begin, d.taps);
  DepthwiseRow one = d;
  one.columns = 1;
  one.taps = end - begin;
  one.start = at + begin * d.dilation;
  *first_tap = begin;
  return one;
}

// --- packed weights -----------------------------------------------------------------------------------------------------------------
void pack(int64_t rows, int64_t taps, int64_t channels, const float* w, int64_t w_row, int64_t w_tap, float* packed) {
  for (int64_t c = 0; c < channels; c += kLanes)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t t = 0; t < taps; ++t, packed += kLanes) {
        const float* from = w + r * w_row + t * w_tap + c;
        store(packed, c + kLanes <= channels ? load(from) : load_partial(from, (int)(channels - c)));
      }
}

void unpack_add(int64_t rows, int64_t taps, int64_t channels, const float* packed, float* dw, int64_t w_row, int64_t w_tap) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    const int lanes = (int)(channels - c);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t t = 0; t < taps; ++t, packed += kLanes) {
        float* to = dw + r * w_row + t * w_tap + c;
        if (lanes >= kLanes)
          store(to, load(to) + load(packed));
        else
          store_partial(to, load_partial(to, lanes) + load(packed), lanes);
      }
  }
}

constexpr int kColumns = 4;  // per step: each weight loaded serves so many outputs

// Asks for memory some 5 KB behind a vector of channels of a step's columns: out of cache the arithmetic is too short to hide how long it
// takes to come, and prefetchers stop at every page. At a row's end these are the first columns of the next one. Not worth it with strides.
constexpr int64_t kAhead = 1280;
WL_INLINE void fetch_ahead(const float* x, int64_t column) {
#pragma GCC unroll 8
  for (int i = 0; i < kColumns; ++i) __builtin_prefetch(x + i * column + kAhead);
}

// --- forward and backward-data ------------------------------------------------------------------------------------------------------
// kr, kw and s are the filter rows, the taps and the stride (with dilation 1) where they are known at compile time, else 0.

// `np` columns for one vector of channels: x, y and the epilogue's operands start at the first of them, w at the vector's weights.
template <int np, int kr, int kw, int s, bool tail>
WL_INLINE void convolve_lanes(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e,
                              const float* bias, const float* residual, int lanes) {
  f32v sum[np] = {};
  const int64_t rows = kr ? kr : d.rows;
  if constexpr (np == kColumns && kw > 0 && s == 1) fetch_ahead(x + (rows - 1) * d.x_row, d.x_col);
#pragma GCC unroll 3
  for (int64_t r = 0; r < rows; ++r) {
    const float* xr = x + r * d.x_row;
    const float* wr = w + (kr ? r * kw * kLanes : r * d.w_row);
    if constexpr (kw > 0) {
      constexpr int positions = (np - 1) * s + kw;
      f32v at[positions];
#pragma GCC unroll 32
      for (int i = 0; i < positions; ++i) at[i] = load_lanes<tail>(xr + i * d.x_col, lanes);
#pragma GCC unroll 8
      for (int t = 0; t < kw; ++t) {
        const f32v weight = load(wr + t * kLanes);
#pragma GCC unroll 8
        for (int j = 0; j < np; ++j) sum[j] = fma(at[j * s + t], weight, sum[j]);
      }
    } else {
      const int64_t column = d.stride * d.x_col, tap = d.dilation * d.x_col;
      for (int64_t t = 0; t < d.taps; ++t) {
        const f32v weight = load(wr + t * kLanes);
#pragma GCC unroll 8
        for (int j = 0; j < np; ++j) sum[j] = fma(load_lanes<tail>(xr + t * tap + j * column, lanes), weight, sum[j]);
      }
    }
  }
  if (e) {
    const f32v b = bias ? load_lanes<tail>(bias, lanes) : zero();
#pragma GCC unroll 8
    for (int j = 0; j < np; ++j) {
      if (bias) sum[j] = sum[j] + b;
      if (residual) sum[j] = sum[j] + load_lanes<tail>(residual + j * e->residual_col, lanes);
      sum[j] = unary_apply(e->activation, sum[j], set1(e->alpha), set1(e->beta));
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < np; ++j) store_lanes<tail>(y + j * d.y_col, sum[j], lanes);
}

template <int np, int kr, int kw, int s>
WL_INLINE void convolve_columns(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e, int64_t p) {
  y += p * d.y_col;
  const float* bias = e ? e->bias : nullptr;
  const float* residual = e && e->residual ? e->residual + p * e->residual_col : nullptr;
  int64_t c = 0;
  if (e) {
    for (; c + kLanes <= d.channels; c += kLanes, w += d.w_vector)
      convolve_lanes<np, kr, kw, s, false>(d, x + c, w, y + c, e, bias ? bias + c : nullptr, residual ? residual + c : nullptr, kLanes);
  } else {
    for (; c + kLanes <= d.channels; c += kLanes, w += d.w_vector)
      convolve_lanes<np, kr, kw, s, false>(d, x + c, w, y + c, nullptr, nullptr, nullptr, kLanes);
  }
  if (c < d.channels)
    convolve_lanes<np, 0, kw, s, true>(d, x + c, w, y + c, e, bias ? bias + c : nullptr, residual ? residual + c : nullptr,
                                       (int)(d.channels - c));
}

template <int kr, int kw, int s>
void convolve_interior(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e, int64_t begin,
                       int64_t end) {
  int64_t p = begin;
  for (; p + kColumns <= end; p += kColumns) convolve_columns<kColumns, kr, kw, s>(d, x + (p * d.stride + d.start) * d.x_col, w, y, e, p);
  for (; p + 2 <= end; p += 2) convolve_columns<2, kr, kw, s>(d, x + (p * d.stride + d.start) * d.x_col, w, y, e, p);
  for (; p < end; ++p) convolve_columns<1, kr, kw, s>(d, x + (p * d.stride + d.start) * d.x_col, w, y, e, p);
}

void convolve_edge(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e, int64_t begin,
                   int64_t end) {
  for (int64_t p = begin; p < end; ++p) {
    int64_t first = 0;
    const DepthwiseRow one = edge_column(d, p, &first);
    convolve_columns<1, 0, 0, 0>(one, x + (one.taps ? one.start * d.x_col : 0), w + first * kLanes, y, e, p);
  }
}

// A number for the combinations of rows, taps and stride that have code of their own; 0 for all others.
WL_INLINE int shape_of(const DepthwiseRow& d) {
  const bool plain = d.taps <= 1 || d.dilation == 1;
  return plain && d.taps < 8 && d.rows < 8 && d.stride <= 2 ? (int)(d.stride * 64 + d.rows * 8 + d.taps) : 0;
}
constexpr int shape(int rows, int taps, int stride) {
  return stride * 64 + rows * 8 + taps;
}

void convolve_row(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e) {
  const Interior in = interior(d);
  convolve_edge(d, x, w, y, e, 0, in.begin);
  const bool dense = d.w_row == d.taps * kLanes;
  switch (dense ? shape_of(d) : 0) {
    case shape(3, 3, 1): convolve_interior<3, 3, 1>(d, x, w, y, e, in.begin, in.end); break;
    case shape(3, 3, 2): convolve_interior<3, 3, 2>(d, x, w, y, e, in.begin, in.end); break;
    case shape(2, 3, 1): convolve_interior<2, 3, 1>(d, x, w, y, e, in.begin, in.end); break;
    // The phases of a 3x3 or 5x5 kernel of stride 2 in backward-data.
    case shape(1, 1, 1): convolve_interior<1, 1, 1>(d, x, w, y, e, in.begin, in.end); break;
    case shape(1, 2, 1): convolve_interior<1, 2, 1>(d, x, w, y, e, in.begin, in.end); break;
    case shape(2, 1, 1): convolve_interior<2, 1, 1>(d, x, w, y, e, in.begin, in.end); break;
    case shape(2, 2, 1): convolve_interior<2, 2, 1>(d, x, w, y, e, in.begin, in.end); break;
    case shape(3, 2, 1): convolve_interior<3, 2, 1>(d, x, w, y, e, in.begin, in.end); break;
    case shape(5, 5, 1):
    case shape(4, 5, 1):
    case shape(3, 5, 1): convolve_interior<0, 5, 1>(d, x, w, y, e, in.begin, in.end); break;
    case shape(5, 5, 2):
    case shape(4, 5, 2):
    case shape(3, 5, 2): convolve_interior<0, 5, 2>(d, x, w, y, e, in.begin, in.end); break;
    default: convolve_interior<0, 0, 0>(d, x, w, y, e, in.begin, in.end); break;
  }
  convolve_edge(d, x, w, y, e, in.end, d.columns);
}

// --- backward-weights -----------------------------------------------------------------------------------------------------------------
template <int np, int kr, int kw, int s, bool tail>
WL_INLINE void weights_lanes(const DepthwiseRow& d, const float* x, const float* dy, float* dw, int lanes) {
  f32v g[np];
#pragma GCC unroll 8
  for (int j = 0; j < np; ++j) g[j] = load_lanes<tail>(dy + j * d.y_col, lanes);
  const int64_t rows = kr ? kr : d.rows;
  if constexpr (np == kColumns && kw > 0 && s == 1) fetch_ahead(x + (rows - 1) * d.x_row, d.x_col), fetch_ahead(dy, d.y_col);
#pragma GCC unroll 3
  for (int64_t r = 0; r < rows; ++r) {
    const float* xr = x + r * d.x_row;
    float* wr = dw + (kr ? r * kw * kLanes : r * d.w_row);
    if constexpr (kw > 0) {
      constexpr int positions = (np - 1) * s + kw;
      f32v at[positions], sum[kw];
#pragma GCC unroll 32
      for (int i = 0; i < positions; ++i) at[i] = load_lanes<tail>(xr + i * d.x_col, lanes);
#pragma GCC unroll 8
      for (int t = 0; t < kw; ++t) sum[t] = load(wr + t * kLanes);
#pragma GCC unroll 8
      for (int j = 0; j < np; ++j) {
#pragma GCC unroll 8
        for (int t = 0; t < kw; ++t) sum[t] = fma(at[j * s + t], g[j], sum[t]);
      }
#pragma GCC unroll 8
      for (int t = 0; t < kw; ++t) store(wr + t * kLanes, sum[t]);
    } else {
      const int64_t column = d.stride * d.x_col, tap = d.dilation * d.x_col;
      for (int64_t t = 0; t < d.taps; ++t) {
        f32v sum = load(wr + t * kLanes);
#pragma GCC unroll 8
        for (int j = 0; j < np; ++j) sum = fma(load_lanes<tail>(xr + t * tap + j * column, lanes), g[j], sum);
        store(wr + t * kLanes, sum);
      }
    }
  }
}

template <int np, int kr, int kw, int s>
WL_INLINE void weights_columns(const DepthwiseRow& d, const float* x, const float* dy, float* dw) {
  int64_t c = 0;
  for (; c + kLanes <= d.channels; c += kLanes, dw += d.w_vector) weights_lanes<np, kr, kw, s, false>(d, x + c, dy + c, dw, kLanes);
  if (c < d.channels) weights_lanes<np, 0, kw, s, true>(d, x + c, dy + c, dw, (int)(d.channels - c));
}

template <int kr, int kw, int s>
void weights_interior(const DepthwiseRow& d, const float* x, const float* dy, float* dw, int64_t begin, int64_t end) {
  int64_t p = begin;
  for (; p + kColumns <= end; p += kColumns)
    weights_columns<kColumns, kr, kw, s>(d, x + (p * d.stride + d.start) * d.x_col, dy + p * d.y_col, dw);
  for (; p < end; ++p) weights_columns<1, kr, kw, s>(d, x + (p * d.stride + d.start) * d.x_col, dy + p * d.y_col, dw);
}

void weights_edge(const DepthwiseRow& d, const float* x, const float* dy, float* dw, int64_t begin, int64_t end) {
  for (int64_t p = begin; p < end; ++p) {
    int64_t first = 0;
    const DepthwiseRow one = edge_column(d, p, &first);
    if (one.taps) weights_columns<1, 0, 0, 0>(one, x + one.start * d.x_col, dy + p * d.y_col, dw + first * kLanes);
  }
}

void weights_row(const DepthwiseRow& d, const float* x, const float* dy, float* dw) {
  const Interior in = interior(d);
  weights_edge(d, x, dy, dw, 0, in.begin);
  const bool dense = d.w_row == d.taps * kLanes;
  switch (dense ? shape_of(d) : 0) {
    case shape(3, 3, 1): weights_interior<3, 3, 1>(d, x, dy, dw, in.begin, in.end); break;
    case shape(3, 3, 2): weights_interior<3, 3, 2>(d, x, dy, dw, in.begin, in.end); break;
    case shape(2, 3, 1): weights_interior<2, 3, 1>(d, x, dy, dw, in.begin, in.end); break;
    case shape(5, 5, 1):
    case shape(4, 5, 1):
    case shape(3, 5, 1): weights_interior<0, 5, 1>(d, x, dy, dw, in.begin, in.end); break;
    case shape(5, 5, 2):
    case shape(4, 5, 2):
    case shape(3, 5, 2): weights_interior<0, 5, 2>(d, x, dy, dw, in.begin, in.end); break;
    default: weights_interior<0, 0, 0>(d, x, dy, dw, in.begin, in.end); break;
  }
  weights_edge(d, x, dy, dw, in.end, d.columns);
}

// --- channel multipliers --------------------------------------------------------------------------------------------------------------
void widen(int64_t columns, int64_t channels, int64_t m, const float* x, int64_t x_col, float* y, int64_t y_col) {
  for (int64_t p = 0; p < columns; ++p) {
    const float* from = x + p * x_col;
    float* to = y + p * y_col;
    if (m == 2)
      for (int64_t c = 0; c < channels; ++c) to[2 * c] = to[2 * c + 1] = from[c];
    else
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t j = 0; j < m; ++j) to[c * m + j] = from[c];
  }
}

void narrow(int64_t columns, int64_t channels, int64_t m, const float* x, int64_t x_col, float* y, int64_t y_col) {
  for (int64_t p = 0; p < columns; ++p) {
    const float* from = x + p * x_col;
    float* to = y + p * y_col;
    if (m == 2) {
      for (int64_t c = 0; c < channels; ++c) to[c] = from[2 * c] + from[2 * c + 1];
      continue;
    }
    for (int64_t c = 0; c < channels; ++c) {
      float sum = from[c * m];
      for (int64_t j = 1; j < m; ++j) sum = sum + from[c * m + j];
      to[c] = sum;
    }
  }
}

}  // namespace

extern const DepthwiseKernels depthwise;
const DepthwiseKernels depthwise = {pack, unpack_add, convolve_row, weights_row, widen, narrow};

}  // namespace WL_ISA
}  // namespace wl
