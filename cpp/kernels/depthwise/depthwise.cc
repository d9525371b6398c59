#include "kernels/depthwise/depthwise.h"

#include "simd/activation.h"

namespace wl {
namespace WL_ISA {
namespace {

// A vector of channels, or (tail) the last few of a row.
template <bool tail>
WL_INLINE f32v load_lanes(const float* p, int lanes) {
  return tail ? load_partial(p, lanes) : load(p);
}
template <bool tail>
WL_INLINE void store_lanes(float* p, f32v v, int lanes) {
  if (tail)
    store_partial(p, v, lanes);
  else
    store(p, v);
}

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

WL_INLINE f32v activate(const DepthwiseEpilogue& e, f32v v) {
  switch (e.activation) {
    case UnaryKind::none: return v;
    case UnaryKind::relu: return unary<UnaryKind::relu>(v, zero(), zero());
    case UnaryKind::relu6: return unary<UnaryKind::relu6>(v, zero(), zero());
    default: return unary_slow(e.activation, v, set1(e.alpha), set1(e.beta));
  }
}

// --- forward and backward-data ------------------------------------------------------------------------------------------------------
// `np` columns from x (the first position read by the first of them), for one vector of channels. kw and s are the number of taps and the
// stride where they are known at compile time (dilation 1), else 0.
template <int np, int kw, int s, bool tail>
WL_INLINE void convolve_lanes(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e, int64_t p,
                              int64_t c, int lanes) {
  f32v sum[np] = {};
  for (int64_t r = 0; r < d.rows; ++r) {
    const float* xr = x + r * d.x_row + c;
    const float* wr = w + r * d.w_row + c;
    if constexpr (kw > 0) {
      constexpr int positions = (np - 1) * s + kw;
      f32v at[positions];
#pragma GCC unroll 32
      for (int i = 0; i < positions; ++i) at[i] = load_lanes<tail>(xr + i * d.x_col, lanes);
#pragma GCC unroll 8
      for (int t = 0; t < kw; ++t) {
        const f32v weight = load_lanes<tail>(wr + t * d.w_tap, lanes);
#pragma GCC unroll 8
        for (int j = 0; j < np; ++j) sum[j] = fma(at[j * s + t], weight, sum[j]);
      }
    } else {
      const int64_t column = d.stride * d.x_col, tap = d.dilation * d.x_col;
      for (int64_t t = 0; t < d.taps; ++t) {
        const f32v weight = load_lanes<tail>(wr + t * d.w_tap, lanes);
#pragma GCC unroll 8
        for (int j = 0; j < np; ++j) sum[j] = fma(load_lanes<tail>(xr + t * tap + j * column, lanes), weight, sum[j]);
      }
    }
  }
  if (e) {
    if (e->bias) {
      const f32v bias = load_lanes<tail>(e->bias + c, lanes);
#pragma GCC unroll 8
      for (int j = 0; j < np; ++j) sum[j] = sum[j] + bias;
    }
    if (e->residual) {
#pragma GCC unroll 8
      for (int j = 0; j < np; ++j) sum[j] = sum[j] + load_lanes<tail>(e->residual + (p + j) * e->residual_col + c, lanes);
    }
#pragma GCC unroll 8
    for (int j = 0; j < np; ++j) sum[j] = activate(*e, sum[j]);
  }
#pragma GCC unroll 8
  for (int j = 0; j < np; ++j) store_lanes<tail>(y + (p + j) * d.y_col + c, sum[j], lanes);
}

template <int np, int kw, int s>
WL_INLINE void convolve_columns(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e, int64_t p) {
  int64_t c = 0;
  for (; c + kLanes <= d.channels; c += kLanes) convolve_lanes<np, kw, s, false>(d, x, w, y, e, p, c, kLanes);
  if (c < d.channels) convolve_lanes<np, kw, s, true>(d, x, w, y, e, p, c, (int)(d.channels - c));
}

constexpr int kColumns = 4;  // per step: each weight loaded serves so many outputs

template <int kw, int s>
void convolve_interior(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e, int64_t begin,
                       int64_t end) {
  int64_t p = begin;
  for (; p + kColumns <= end; p += kColumns) convolve_columns<kColumns, kw, s>(d, x + (p * d.stride + d.start) * d.x_col, w, y, e, p);
  for (; p + 2 <= end; p += 2) convolve_columns<2, kw, s>(d, x + (p * d.stride + d.start) * d.x_col, w, y, e, p);
  for (; p < end; ++p) convolve_columns<1, kw, s>(d, x + (p * d.stride + d.start) * d.x_col, w, y, e, p);
}

void convolve_edge(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e, int64_t begin,
                   int64_t end) {
  for (int64_t p = begin; p < end; ++p) {
    int64_t first = 0;
    const DepthwiseRow one = edge_column(d, p, &first);
    convolve_columns<1, 0, 0>(one, x + (one.taps ? one.start * d.x_col : 0), w + first * d.w_tap, y, e, p);
  }
}

void convolve_row(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e) {
  const Interior in = interior(d);
  convolve_edge(d, x, w, y, e, 0, in.begin);
  const int shape = d.dilation != 1 && d.taps > 1 ? 0 : d.taps >= 8 ? 0 : d.stride == 1 ? (int)d.taps : d.stride == 2 ? 8 + (int)d.taps : 0;
  switch (shape) {
    case 1: convolve_interior<1, 1>(d, x, w, y, e, in.begin, in.end); break;
    case 2: convolve_interior<2, 1>(d, x, w, y, e, in.begin, in.end); break;
    case 3: convolve_interior<3, 1>(d, x, w, y, e, in.begin, in.end); break;
    case 5: convolve_interior<5, 1>(d, x, w, y, e, in.begin, in.end); break;
    case 8 + 3: convolve_interior<3, 2>(d, x, w, y, e, in.begin, in.end); break;
    case 8 + 5: convolve_interior<5, 2>(d, x, w, y, e, in.begin, in.end); break;
    default: convolve_interior<0, 0>(d, x, w, y, e, in.begin, in.end); break;
  }
  convolve_edge(d, x, w, y, e, in.end, d.columns);
}

// --- backward-weights -----------------------------------------------------------------------------------------------------------------
template <int np, int kw, int s, bool tail>
WL_INLINE void weights_lanes(const DepthwiseRow& d, const float* x, const float* dy, float* dw, int64_t c, int lanes) {
  f32v g[np];
#pragma GCC unroll 8
  for (int j = 0; j < np; ++j) g[j] = load_lanes<tail>(dy + j * d.y_col + c, lanes);
  for (int64_t r = 0; r < d.rows; ++r) {
    const float* xr = x + r * d.x_row + c;
    float* wr = dw + r * d.w_row + c;
    if constexpr (kw > 0) {
      constexpr int positions = (np - 1) * s + kw;
      f32v at[positions], sum[kw];
#pragma GCC unroll 32
      for (int i = 0; i < positions; ++i) at[i] = load_lanes<tail>(xr + i * d.x_col, lanes);
#pragma GCC unroll 8
      for (int t = 0; t < kw; ++t) sum[t] = load_lanes<tail>(wr + t * d.w_tap, lanes);
#pragma GCC unroll 8
      for (int j = 0; j < np; ++j) {
#pragma GCC unroll 8
        for (int t = 0; t < kw; ++t) sum[t] = fma(at[j * s + t], g[j], sum[t]);
      }
#pragma GCC unroll 8
      for (int t = 0; t < kw; ++t) store_lanes<tail>(wr + t * d.w_tap, sum[t], lanes);
    } else {
      const int64_t column = d.stride * d.x_col, tap = d.dilation * d.x_col;
      for (int64_t t = 0; t < d.taps; ++t) {
        f32v sum = load_lanes<tail>(wr + t * d.w_tap, lanes);
#pragma GCC unroll 8
        for (int j = 0; j < np; ++j) sum = fma(load_lanes<tail>(xr + t * tap + j * column, lanes), g[j], sum);
        store_lanes<tail>(wr + t * d.w_tap, sum, lanes);
      }
    }
  }
}

template <int np, int kw, int s>
WL_INLINE void weights_columns(const DepthwiseRow& d, const float* x, const float* dy, float* dw) {
  int64_t c = 0;
  for (; c + kLanes <= d.channels; c += kLanes) weights_lanes<np, kw, s, false>(d, x, dy, dw, c, kLanes);
  if (c < d.channels) weights_lanes<np, kw, s, true>(d, x, dy, dw, c, (int)(d.channels - c));
}

template <int kw, int s>
void weights_interior(const DepthwiseRow& d, const float* x, const float* dy, float* dw, int64_t begin, int64_t end) {
  int64_t p = begin;
  for (; p + kColumns <= end; p += kColumns)
    weights_columns<kColumns, kw, s>(d, x + (p * d.stride + d.start) * d.x_col, dy + p * d.y_col, dw);
  for (; p < end; ++p) weights_columns<1, kw, s>(d, x + (p * d.stride + d.start) * d.x_col, dy + p * d.y_col, dw);
}

void weights_edge(const DepthwiseRow& d, const float* x, const float* dy, float* dw, int64_t begin, int64_t end) {
  for (int64_t p = begin; p < end; ++p) {
    int64_t first = 0;
    const DepthwiseRow one = edge_column(d, p, &first);
    if (one.taps) weights_columns<1, 0, 0>(one, x + one.start * d.x_col, dy + p * d.y_col, dw + first * d.w_tap);
  }
}

void weights_row(const DepthwiseRow& d, const float* x, const float* dy, float* dw) {
  const Interior in = interior(d);
  weights_edge(d, x, dy, dw, 0, in.begin);
  const int shape = d.dilation != 1 && d.taps > 1 ? 0 : d.taps >= 8 ? 0 : d.stride == 1 ? (int)d.taps : d.stride == 2 ? 8 + (int)d.taps : 0;
  switch (shape) {
    case 3: weights_interior<3, 1>(d, x, dy, dw, in.begin, in.end); break;
    case 5: weights_interior<5, 1>(d, x, dy, dw, in.begin, in.end); break;
    case 8 + 3: weights_interior<3, 2>(d, x, dy, dw, in.begin, in.end); break;
    case 8 + 5: weights_interior<5, 2>(d, x, dy, dw, in.begin, in.end); break;
    default: weights_interior<0, 0>(d, x, dy, dw, in.begin, in.end); break;
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
const DepthwiseKernels depthwise = {convolve_row, weights_row, widen, narrow};

}  // namespace WL_ISA
}  // namespace wl
