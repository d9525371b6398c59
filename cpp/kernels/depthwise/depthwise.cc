#include "kernels/depthwise/depthwise.h"

#include "base/align.h"
#include "simd/activation.h"

namespace wl {
namespace WL_ISA {
namespace {

// Positions of the swept row whose taps all lie inside [0, width): [begin, end).
struct Interior {
  int64_t begin, end;
};

WL_INLINE Interior interior(const DepthwiseRow& d) {
  if (d.taps == 0) return {0, d.columns};
  const int64_t reach = d.start + (d.taps - 1) * d.dilation;
  const int64_t begin = clamp(div_up(-d.start, d.stride), 0, d.columns);
  const int64_t end = d.width - 1 < reach ? 0 : (d.width - 1 - reach) / d.stride + 1;
  return {begin, clamp(end, begin, d.columns)};
}

// The taps that column p meets inside [0, width), as a row of one column.
WL_INLINE DepthwiseRow edge_column(const DepthwiseRow& d, int64_t p, int64_t* first_tap) {
  const int64_t at = p * d.stride + d.start;
  const int64_t begin = clamp(div_up(-at, d.dilation), 0, d.taps);
  const int64_t end = clamp(div_up(d.width - at, d.dilation), begin, d.taps);
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

// Columns of a step: each weight loaded serves so many outputs, and so many chains of multiply-adds run side by side, enough to hide how
// long one takes.
constexpr int kColumns = 8;

// Out of cache the arithmetic is too short to hide how long memory takes to come, and prefetchers stop at every page. So a step of np
// columns asks for what a later one, some 5 KB on, will touch: y, and of x the rows that no step has read before, the last s of them. Each
// vector of channels, the one at c, asks for its share, in the order of memory. At a row's end it is the next row that begins there.
constexpr int64_t kAhead = 1280;
template <int floats>
WL_INLINE void fetch(const float* at) {
#pragma GCC unroll 16
  for (int i = 0; i < floats; i += 16) __builtin_prefetch(at + i);
}
template <int np, int s>
WL_INLINE void fetch_step(const DepthwiseRow& d, const float* x, const float* y, int64_t c) {
  if (np < kColumns / 2 || s == 0) return;
  if (d.x_cold) {
    x += max_of(kAhead, np * s * d.x_col) + np * s * c;
#pragma GCC unroll 2
    for (int r = 1; r <= s; ++r) fetch<np * s * kLanes>(x + (d.rows - r) * d.x_row);
  }
  if (d.y_cold) {
    y += max_of(kAhead, np * d.y_col) + np * d.y_step * c;
    for (int64_t i = 0; i < d.y_step; ++i) fetch<np * kLanes>(y + i * np * kLanes);
  }
}

// How many positions of a step lie before and behind the row that is read.
struct Missing {
  int64_t before, behind;
};
// Whether the i-th of so many positions is there; `most` may be missing at each end.
WL_INLINE bool has(const Missing& m, int i, int positions, int most) {
  return !(i < most && i < m.before) && !(i >= positions - most && i >= positions - m.behind);
}
// The same numbers, unknown to the compiler: else it makes a loop of each combination of them, in every function.
WL_INLINE Missing opaque(Missing m) {
  asm("" : "+r"(m.before), "+r"(m.behind));
  return m;
}

// --- forward and backward-data ------------------------------------------------------------------------------------------------------
// kw and s are the taps and the stride (with dilation 1) where they are known at compile time, else 0. Then up to kw / 2 positions may be
// missing at each end of a step.

// `np` columns for one vector of channels: x, y and the epilogue's operands start at the first of them, w at the vector's weights.
template <int np, int kw, int s, bool tail>
WL_INLINE void convolve_lanes(const DepthwiseRow& d, const Missing& missing, const float* x, const float* w, float* y,
                              const DepthwiseEpilogue* e, const float* bias, const float* residual, int lanes) {
  f32v sum[np] = {};
  for (int64_t r = 0; r < d.rows; ++r, x += d.x_row, w += d.w_row) {
    if constexpr (kw > 0) {
      constexpr int positions = (np - 1) * s + kw;
      const Missing here = opaque(missing);
      f32v weight[kw];
#pragma GCC unroll 8
      for (int t = 0; t < kw; ++t) weight[t] = load(w + t * kLanes);
#pragma GCC unroll 32
      for (int i = 0; i < positions; ++i) {
        if (!has(here, i, positions, kw / 2)) continue;
        const f32v at = load_lanes<tail>(x + i * d.x_col, lanes);
#pragma GCC unroll 8
        for (int t = 0; t < kw; ++t)
          if (i >= t && (i - t) % s == 0 && (i - t) / s < np) accumulate(sum[(i - t) / s], at, weight[t]);
      }
    } else {
      const int64_t column = d.stride * d.x_col, tap = d.dilation * d.x_col;
      for (int64_t t = 0; t < d.taps; ++t) {
        const f32v weight = load(w + t * kLanes);
#pragma GCC unroll 8
        for (int j = 0; j < np; ++j) sum[j] = fma(load_lanes<tail>(x + t * tap + j * column, lanes), weight, sum[j]);
      }
    }
  }
  if (bias) {
    const f32v b = load_lanes<tail>(bias, lanes);
#pragma GCC unroll 8
    for (int j = 0; j < np; ++j) sum[j] = sum[j] + b;
  }
  if (residual) {
#pragma GCC unroll 8
    for (int j = 0; j < np; ++j) sum[j] = sum[j] + load_lanes<tail>(residual + j * e->residual_col, lanes);
  }
  if (e && is_clip(e->activation)) {
    const Clip bounds = clip_of(e->activation);
#pragma GCC unroll 8
    for (int j = 0; j < np; ++j) sum[j] = clip(sum[j], bounds);
  }
#pragma GCC unroll 8
  for (int j = 0; j < np; ++j) store_lanes<tail>(y + j * d.y_col, sum[j], lanes);
  if (e && e->activation != UnaryKind::none && !is_clip(e->activation)) {
    for (int j = 0; j < np; ++j) {
      float* at = y + j * d.y_col;
      store_lanes<tail>(at, unary_slow(e->activation, load_lanes<tail>(at, lanes), set1(e->alpha), set1(e->beta)), lanes);
    }
  }
}

template <int np, int kw, int s>
void convolve_columns(const DepthwiseRow& d, const Missing& missing, const float* x, const float* w, float* y, const DepthwiseEpilogue* e,
                      int64_t p) {
  y += p * d.y_col;
  const float* bias = e ? e->bias : nullptr;
  const float* residual = e && e->residual ? e->residual + p * e->residual_col : nullptr;
  int64_t c = 0;
  for (; c + kLanes <= d.channels; c += kLanes, w += d.w_vector) {
    fetch_step<np, s>(d, x, y, c);
    convolve_lanes<np, kw, s, false>(d, missing, x + c, w, y + c, e, bias ? bias + c : nullptr, residual ? residual + c : nullptr, kLanes);
  }
  if (c < d.channels) {
    fetch_step<np, s>(d, x, y, c);
    convolve_lanes<np, kw, s, true>(d, missing, x + c, w, y + c, e, bias ? bias + c : nullptr, residual ? residual + c : nullptr,
                                    (int)(d.channels - c));
  }
}

template <int n>
struct Columns {
  static constexpr int value = n;
};

// Calls body(Columns<size>, missing, first column) for all columns of a row, its ends among them. Of up to three taps there are steps of
// any size, so that they are nearly equal; of more powers of two. A step that asks for the columns between its own, too, is half as long:
// so many lines asked for at once would wait for each other.
template <int kw, int s, class Body>
WL_INLINE void each_step(const DepthwiseRow& d, Body body) {
  const int64_t most = d.y_cold && d.y_step > 1 ? kColumns / 2 : kColumns, equal = div_up(d.columns, div_up(d.columns, most));
  for (int64_t p = 0, size = 0; p < d.columns; p += size) {
    size = min_of(d.columns - p, kw <= 3 ? equal : most);
    if (kw > 3)
      while (size & (size - 1)) size &= size - 1;
    const int64_t first = p * s + d.start, last = first + (size - 1) * s + kw - 1;
    const Missing missing{first < 0 ? -first : 0, last >= d.width ? last - d.width + 1 : 0};
    switch (size) {
#define WL_STEP(n)                                                               \
  case n:                                                                        \
    if constexpr (kw <= 3 || (n & (n - 1)) == 0) body(Columns<n>{}, missing, p); \
    break;
      WL_STEP(1) WL_STEP(2) WL_STEP(3) WL_STEP(4) WL_STEP(5) WL_STEP(6) WL_STEP(7) WL_STEP(8)
#undef WL_STEP
    }
  }
}

// The same with inside and ends apart: any taps, stride, dilation and padding. edge(begin, end) takes columns some of whose taps are
// outside.
template <class Edge, class Body>
WL_INLINE void each_apart(const DepthwiseRow& d, Edge edge, Body body) {
  const Interior in = interior(d);
  edge(0, in.begin);
  int64_t p = in.begin;
  for (; p + 4 <= in.end; p += 4) body(Columns<4>{}, p);
  for (; p < in.end; ++p) body(Columns<1>{}, p);
  edge(in.end, d.columns);
}

template <int kw, int s>
void convolve_steps(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e) {
  each_step<kw, s>(d, [&](auto columns, const Missing& missing, int64_t p) {
    convolve_columns<columns.value, kw, s>(d, missing, x + (p * s + d.start) * d.x_col, w, y, e, p);
  });
}

void convolve_edge(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e, int64_t begin,
                   int64_t end) {
  for (int64_t p = begin; p < end; ++p) {
    int64_t first = 0;
    const DepthwiseRow one = edge_column(d, p, &first);
    convolve_columns<1, 0, 0>(one, {}, x + (one.taps ? one.start * d.x_col : 0), w + first * kLanes, y, e, p);
  }
}

void convolve_apart(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e) {
  each_apart(
      d, [&](int64_t begin, int64_t end) { convolve_edge(d, x, w, y, e, begin, end); },
      [&](auto columns, int64_t p) { convolve_columns<columns.value, 0, 0>(d, {}, x + (p * d.stride + d.start) * d.x_col, w, y, e, p); });
}

// Taps and stride where there is code of their own for them, else 0. Each end of a row may miss no more positions than that code looks at.
WL_INLINE int shape_of(const DepthwiseRow& d) {
  const int64_t last = (d.columns - 1) * d.stride + d.start + d.taps - 1, most = d.taps / 2;
  const bool plain = (d.taps <= 1 || d.dilation == 1) && -d.start <= most && last - d.width + 1 <= most && d.rows > 0;
  return plain && d.taps < 8 && d.stride <= 2 ? (int)(d.stride * 8 + d.taps) : 0;
}
constexpr int shape(int taps, int stride) {
  return stride * 8 + taps;
}

void convolve_row(const DepthwiseRow& d, const float* x, const float* w, float* y, const DepthwiseEpilogue* e) {
  switch (shape_of(d)) {
    case shape(3, 1): return convolve_steps<3, 1>(d, x, w, y, e);
    case shape(3, 2): return convolve_steps<3, 2>(d, x, w, y, e);
    case shape(5, 1): return convolve_steps<5, 1>(d, x, w, y, e);
    case shape(5, 2): return convolve_steps<5, 2>(d, x, w, y, e);
    case shape(1, 1): return convolve_steps<1, 1>(d, x, w, y, e);  // with the next, the phases of stride 2 in backward-data
    case shape(2, 1): return convolve_steps<2, 1>(d, x, w, y, e);
    default: convolve_apart(d, x, w, y, e);
  }
}

// --- backward-weights -----------------------------------------------------------------------------------------------------------------
template <int np, int kw, int s, bool tail>
WL_INLINE void weights_lanes(const DepthwiseRow& d, const Missing& missing, const float* x, const float* dy, float* dw, int lanes) {
  f32v g[np];
#pragma GCC unroll 8
  for (int j = 0; j < np; ++j) g[j] = load_lanes<tail>(dy + j * d.y_col, lanes);
  for (int64_t r = 0; r < d.rows; ++r, x += d.x_row, dw += d.w_row) {
    if constexpr (kw > 0) {
      constexpr int positions = (np - 1) * s + kw;
      const Missing here = opaque(missing);
      f32v sum[kw];
#pragma GCC unroll 8
      for (int t = 0; t < kw; ++t) sum[t] = load(dw + t * kLanes);
#pragma GCC unroll 32
      for (int i = 0; i < positions; ++i) {
        if (!has(here, i, positions, kw / 2)) continue;
        const f32v at = load_lanes<tail>(x + i * d.x_col, lanes);
#pragma GCC unroll 8
        for (int t = 0; t < kw; ++t)
          if (i >= t && (i - t) % s == 0 && (i - t) / s < np) accumulate(sum[t], at, g[(i - t) / s]);
      }
#pragma GCC unroll 8
      for (int t = 0; t < kw; ++t) store(dw + t * kLanes, sum[t]);
    } else {
      const int64_t column = d.stride * d.x_col, tap = d.dilation * d.x_col;
      for (int64_t t = 0; t < d.taps; ++t) {
        f32v sum = load(dw + t * kLanes);
#pragma GCC unroll 8
        for (int j = 0; j < np; ++j) sum = fma(load_lanes<tail>(x + t * tap + j * column, lanes), g[j], sum);
        store(dw + t * kLanes, sum);
      }
    }
  }
}

template <int np, int kw, int s>
void weights_columns(const DepthwiseRow& d, const Missing& missing, const float* x, const float* dy, float* dw) {
  int64_t c = 0;
  for (; c + kLanes <= d.channels; c += kLanes, dw += d.w_vector) {
    fetch_step<np, s>(d, x, dy, c);
    weights_lanes<np, kw, s, false>(d, missing, x + c, dy + c, dw, kLanes);
  }
  if (c < d.channels) {
    fetch_step<np, s>(d, x, dy, c);
    weights_lanes<np, kw, s, true>(d, missing, x + c, dy + c, dw, (int)(d.channels - c));
  }
}

// All columns of a row, like convolve_steps().
template <int kw, int s>
void weights_steps(const DepthwiseRow& d, const float* x, const float* dy, float* dw) {
  each_step<kw, s>(d, [&](auto columns, const Missing& missing, int64_t p) {
    weights_columns<columns.value, kw, s>(d, missing, x + (p * s + d.start) * d.x_col, dy + p * d.y_col, dw);
  });
}

void weights_edge(const DepthwiseRow& d, const float* x, const float* dy, float* dw, int64_t begin, int64_t end) {
  for (int64_t p = begin; p < end; ++p) {
    int64_t first = 0;
    const DepthwiseRow one = edge_column(d, p, &first);
    if (one.taps) weights_columns<1, 0, 0>(one, {}, x + one.start * d.x_col, dy + p * d.y_col, dw + first * kLanes);
  }
}

void weights_apart(const DepthwiseRow& d, const float* x, const float* dy, float* dw) {
  each_apart(
      d, [&](int64_t begin, int64_t end) { weights_edge(d, x, dy, dw, begin, end); },
      [&](auto columns, int64_t p) {
        weights_columns<columns.value, 0, 0>(d, {}, x + (p * d.stride + d.start) * d.x_col, dy + p * d.y_col, dw);
      });
}

void weights_row(const DepthwiseRow& d, const float* x, const float* dy, float* dw) {
  switch (shape_of(d)) {
    case shape(3, 1): return weights_steps<3, 1>(d, x, dy, dw);
    case shape(3, 2): return weights_steps<3, 2>(d, x, dy, dw);
    case shape(5, 1): return weights_steps<5, 1>(d, x, dy, dw);
    case shape(5, 2): return weights_steps<5, 2>(d, x, dy, dw);
    default: weights_apart(d, x, dy, dw);
  }
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
