#include "kernels/pool/pool.h"

#include "kernels/pool/taps.h"
#include "kernels/pool/thin.h"
#include "simd/simd.h"

namespace wl {
namespace WL_ISA {
namespace {

// Columns of at most kHalf channels share a vector in pairs, where lanes can be masked anywhere.
constexpr int kHalf = kLanes / 2;
constexpr bool kPairs = WL_VECTOR_BYTES == 64;
constexpr uint8_t kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

// How many columns from p on have all their taps inside, at stride 1 and without gaps between pixels: they are computed as one column of
// so many times the channels. Else 1.
WL_INLINE int64_t columns_together(const PoolRow& w, int64_t p, const Taps& taps, bool gapless) {
  if (!gapless || w.stride != 1 || taps.end - taps.begin < w.taps) return 1;
  const int64_t end = w.width - w.start - (w.taps - 1) * w.dilation;
  return (end < w.columns ? end : w.columns) - p;
}

// --- maximum ----------------------------------------------------------------------------------------------------------------------------
// nv vectors of channels of one window of kh x kw taps (0: known only at run time), from x (its first tap inside the picture).
template <int nv, int kh, int kw, bool tail, class Index>
WL_INLINE void max_lanes(const float* x, int64_t x_row, int64_t x_tap, int64_t rows, int64_t taps, int64_t first, int64_t index_row,
                         float* y, Index* index, int lanes) {
  f32v best[nv];
  i32v winner[nv];
#pragma GCC unroll 4
  for (int v = 0; v < nv; ++v) best[v] = load_lanes<tail>(x + v * kLanes, lanes), winner[v] = set1_index(first);
  const int64_t h = kh ? kh : rows, w = kw ? kw : taps;
#pragma GCC unroll 4
  for (int64_t r = 0; r < h; ++r) {
#pragma GCC unroll 4
    for (int64_t t = r == 0; t < w; ++t) {
      const i32v position = set1_index(first + r * index_row + t);
#pragma GCC unroll 4
      for (int v = 0; v < nv; ++v) {
        const f32v value = load_lanes<tail>(x + r * x_row + t * x_tap + v * kLanes, lanes);
        const i32v take = wins(value, best[v]);
        best[v] = select(take, value, best[v]);
        if (index) winner[v] = select_index(take, position, winner[v]);
      }
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < nv; ++v) {
    store_lanes<tail>(y + v * kLanes, best[v], lanes);
    if (index) store_index<tail>(index + v * kLanes, winner[v], lanes);
  }
}

template <int kh, int kw, class Index>
WL_INLINE void max_column(const PoolRow& w, const float* x, Taps taps, int64_t p, int64_t channels, float* y, Index* index) {
  const int64_t tap = w.dilation * w.x_col, count = taps.end - taps.begin, first = w.first_row * w.taps + taps.begin;
  x += (p * w.stride + taps.begin * w.dilation + w.start) * w.x_col;
  y += p * w.y_col;
  if (index) index += p * w.index_col;
  constexpr int wide = kh ? 1 : 4;  // long windows read several neighbouring vectors at each tap
  int64_t c = 0;
  for (; c + wide * kLanes <= channels; c += wide * kLanes)
    max_lanes<wide, kh, kw, false>(x + c, w.x_row, tap, w.rows, count, first, w.taps, y + c, index ? index + c : nullptr, kLanes);
  if (wide > 1)
    for (; c + kLanes <= channels; c += kLanes)
      max_lanes<1, kh, kw, false>(x + c, w.x_row, tap, w.rows, count, first, w.taps, y + c, index ? index + c : nullptr, kLanes);
  if (c < channels)
    max_lanes<1, kh, kw, true>(x + c, w.x_row, tap, w.rows, count, first, w.taps, y + c, index ? index + c : nullptr, (int)(channels - c));
}

// Output columns p and p + 1 with all their taps inside.
template <int kh, int kw, class Index>
WL_INLINE void max_pair(const PoolRow& w, const float* x, int64_t p, float* y, Index* index) {
  const int64_t tap = w.dilation * w.x_col, next = w.stride * w.x_col;
  const int64_t first = w.first_row * w.taps;
  const int n = (int)w.channels;
  x += (p * w.stride + w.start) * w.x_col;
  const auto load_pair = [&](const float* at) __attribute__((always_inline)) {
    return load_between(load_partial(at, n), at + next, kHalf, n);
  };
  f32v best = load_pair(x);
  i32v winner = set1_index(first);
#pragma GCC unroll 4
  for (int64_t r = 0; r < kh; ++r)
#pragma GCC unroll 4
    for (int64_t t = r == 0; t < kw; ++t) {
      const f32v value = load_pair(x + r * w.x_row + t * tap);
      const i32v take = wins(value, best);
      best = select(take, value, best);
      if (index) winner = select_index(take, set1_index(first + r * w.taps + t), winner);
    }
  y += p * w.y_col;
  store_partial(y, best, n);
  store_between(y + w.y_col, best, kHalf, n);
  if (!index) return;
  index += p * w.index_col;
  store_index<true>(index, winner, n);
  store_index_between(index + w.index_col, winner, kHalf, n);
}

template <class Index>
WL_INLINE void max_any(const PoolRow& w, const float* x, float* y, Index* index) {
  // At stride 1 long rows fill vectors by themselves, and few taps are gone through at once.
  if ((w.stride > 1 || w.taps > 3 || w.columns < 32) && thin(w, 16)) return thin_max(w, x, y, index);
  const int64_t shape = w.rows == w.taps ? w.taps : 0;
  const bool gapless = w.x_col == w.channels && w.y_col == w.channels && (!index || w.index_col == w.channels);
  const bool pairs = kPairs && w.channels <= kHalf && !(gapless && w.stride == 1);
  for (int64_t p = 0, together; p < w.columns; p += together) {
    const Taps taps = taps_inside(p * w.stride + w.start, w.taps, w.dilation, w.width);
    together = columns_together(w, p, taps, gapless);
    const int64_t channels = together * w.channels;
    const bool whole = taps.end - taps.begin == w.taps;
    const bool pair = pairs && whole && p + 1 < w.columns && (p + 1) * w.stride + w.start + (w.taps - 1) * w.dilation < w.width;
    if (pair && shape == 2)
      max_pair<2, 2>(w, x, p, y, index), together = 2;
    else if (pair && shape == 3)
      max_pair<3, 3>(w, x, p, y, index), together = 2;
    else if (whole && shape == 2)
      max_column<2, 2>(w, x, taps, p, channels, y, index);
    else if (whole && shape == 3)
      max_column<3, 3>(w, x, taps, p, channels, y, index);
    else
      max_column<0, 0>(w, x, taps, p, channels, y, index);
  }
}

void max_row(const PoolRow& w, const float* x, float* y) {
  max_any<uint8_t>(w, x, y, nullptr);
}
void max_index_u8(const PoolRow& w, const float* x, float* y, uint8_t* index) {
  max_any(w, x, y, index);
}
void max_index_i32(const PoolRow& w, const float* x, float* y, int32_t* index) {
  max_any(w, x, y, index);
}

// --- backward of the maximum ------------------------------------------------------------------------------------------------------------
template <int kh, int kw, bool tail, class Index>
WL_INLINE void tile_lanes(int64_t x_row, int64_t x_col, int64_t rows, int64_t taps, int64_t index_row, const float* dy, const Index* index,
                          float* dx, int lanes) {
  const f32v gradient = load_lanes<tail>(dy, lanes);
  const i32v winner = load_index<tail>(index, lanes);
  const int64_t h = kh ? kh : rows, w = kw ? kw : taps;
#pragma GCC unroll 4
  for (int64_t r = 0; r < h; ++r)
#pragma GCC unroll 4
    for (int64_t t = 0; t < w; ++t)
      store_lanes<tail>(dx + r * x_row + t * x_col, select(winner == set1_index(r * index_row + t), gradient, zero()), lanes);
}

template <int kh, int kw, class Index>
WL_INLINE void tile_column(const PoolRow& w, int64_t taps, int64_t p, const float* dy, const Index* index, float* dx) {
  dy += p * w.y_col;
  index += p * w.index_col;
  dx += p * w.taps * w.x_col;
  int64_t c = 0;
  for (; c + kLanes <= w.channels; c += kLanes)
    tile_lanes<kh, kw, false>(w.x_row, w.x_col, w.rows, taps, w.taps, dy + c, index + c, dx + c, kLanes);
  if (c < w.channels) tile_lanes<kh, kw, true>(w.x_row, w.x_col, w.rows, taps, w.taps, dy + c, index + c, dx + c, (int)(w.channels - c));
}

// All columns of windows 2x2 where pixels lie side by side: both taps of a window row are one run of 2 * channels lanes.
template <class Index>
WL_INLINE void tile_pairs(const PoolRow& w, int64_t columns, const float* dy, const Index* index, float* dx) {
  const int n = (int)w.channels;
  const i32v second = load_u8_between(set1_index(0), kOnes, n, n);  // 1 in the lanes of the second tap
  for (int64_t p = 0; p < columns; ++p, dy += w.y_col, index += w.index_col, dx += 2 * n) {
    const f32v gradient = load_between(load_partial(dy, n), dy, n, n);
    const i32v winner = load_index_between(load_index<true>(index, n), index, n, n);
    for (int r = 0; r < 2; ++r) {
      const f32v v = select(winner == second + set1_index(2 * r), gradient, zero());
      2 * n == kLanes ? store(dx + r * w.x_row, v) : store_partial(dx + r * w.x_row, v, 2 * n);
    }
  }
}

template <class Index>
void max_bwd_tiles(const PoolRow& w, const float* dy, const Index* index, float* dx) {
  if (w.channels == 1 && w.width >= 2 * kLanes) return thin_max_bwd_tiles(w, dy, index, dx);
  int64_t p = 0;
  if (kPairs && w.channels <= kHalf && w.x_col == w.channels && w.rows == 2 && w.taps == 2) {
    p = w.width / 2 < w.columns ? w.width / 2 : w.columns;
    tile_pairs(w, p, dy, index, dx);
  }
  for (; p < w.columns; ++p) {
    const int64_t left = w.width - p * w.taps, taps = left < w.taps ? left : w.taps;
    if (taps == 2 && w.rows == 2 && w.taps == 2)
      tile_column<2, 2>(w, taps, p, dy, index, dx);
    else
      tile_column<0, 0>(w, taps, p, dy, index, dx);
  }
}

// The outputs o = first + j*step, through taps t = last_tap - j*tap_step (j in [0, count)), whose windows hold one input column.
struct Outputs {
  int64_t count, first, step, last_tap, tap_step;
};

WL_INLINE Outputs outputs_dilated(const PoolGather& g, int64_t i) {
  Outputs found{0, 0, 0, 0, 0};
  for (int64_t t = g.taps - 1; t >= 0; --t) {
    const int64_t from = i + g.pad - t * g.dilation;
    if (from < 0 || from % g.stride != 0 || from / g.stride >= g.width) continue;
    if (found.count == 0) found.first = from / g.stride, found.last_tap = t;
    if (found.count == 1) found.step = from / g.stride - found.first, found.tap_step = found.last_tap - t;
    ++found.count;
  }
  return found;
}

// Calls body(i, channels, outputs) for every input column, rising. Without dilation the outputs of a column are neighbours, whose ends only
// move up; at stride 1 and without gaps between pixels the columns that all taps meet are one column of so many times the channels.
template <class Body>
WL_INLINE void for_each_column(const PoolGather& g, bool gapless, Body body) {
  int64_t low = 0, high = -1;
  for (int64_t i = 0, together; i < g.columns; i += together) {
    together = 1;
    if (g.dilation != 1 && g.taps > 1) {
      body(i, g.channels, outputs_dilated(g, i));
      continue;
    }
    const int64_t at = i + g.pad;
    while (at - low * g.stride >= g.taps) ++low;
    while (high + 1 < g.width && (high + 1) * g.stride <= at) ++high;
    const int64_t count = high < low ? 0 : high - low + 1;
    if (gapless && g.stride == 1 && count == g.taps) together = (g.width - g.pad < g.columns ? g.width - g.pad : g.columns) - i;
    body(i, together * g.channels, Outputs{count, low, 1, at - low * g.stride, g.stride});
  }
}

// rows x count outputs, as constants where they are few (0: known only at run time).
template <int kr, int ko, bool tail, class Index>
WL_INLINE void gather_lanes(const PoolGather& g, const Outputs& o, const float* dy, const Index* index, float* dx, int lanes) {
  f32v sum = zero();
  const int64_t rows = kr ? kr : g.rows, count = ko ? ko : o.count;
#pragma GCC unroll 3
  for (int64_t r = 0; r < rows; ++r) {
    const Index* index_at = index + r * g.index_row;
    const float* dy_at = dy + r * g.dy_row;
    int64_t position = (g.last_row - r * g.row_step) * g.taps + o.last_tap;
#pragma GCC unroll 3
    for (int64_t j = 0; j < count; ++j) {
      const i32v winner = load_index<tail>(index_at, lanes);
      sum = sum + select(winner == set1_index(position), load_lanes<tail>(dy_at, lanes), zero());
      index_at += o.step * g.index_col;
      dy_at += o.step * g.dy_col;
      position -= o.tap_step;
    }
  }
  store_lanes<tail>(dx, sum, lanes);
}

template <int kr, int ko, class Index>
WL_INLINE void gather_column(const PoolGather& g, const Outputs& o, int64_t channels, const float* dy, const Index* index, float* dx) {
  dy += o.first * g.dy_col;
  index += o.first * g.index_col;
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) gather_lanes<kr, ko, false>(g, o, dy + c, index + c, dx + c, kLanes);
  if (c < channels) gather_lanes<kr, ko, true>(g, o, dy + c, index + c, dx + c, (int)(channels - c));
}

template <class Index>
void max_bwd_row(const PoolGather& g, const float* dy, const Index* index, float* dx) {
  const bool gapless = g.dy_col == g.channels && g.index_col == g.channels && g.dx_col == g.channels;
  if (thin(g, gapless)) return thin_max_bwd(g, dy, index, dx);
  for_each_column(
      g, gapless, [&](int64_t i, int64_t channels, const Outputs& o) __attribute__((always_inline)) {
        float* to = dx + i * g.dx_col;
        const int64_t few = g.rows <= 3 && o.count <= 3 ? g.rows * 4 + o.count : 0;
        switch (few) {
          case 5: gather_column<1, 1>(g, o, channels, dy, index, to); break;
          case 6: gather_column<1, 2>(g, o, channels, dy, index, to); break;
          case 9: gather_column<2, 1>(g, o, channels, dy, index, to); break;
          case 10: gather_column<2, 2>(g, o, channels, dy, index, to); break;
          case 15: gather_column<3, 3>(g, o, channels, dy, index, to); break;
          default: gather_column<0, 0>(g, o, channels, dy, index, to); break;
        }
      });
}

// --- average ----------------------------------------------------------------------------------------------------------------------------
template <int nv, int kh, int kw, bool tail>
WL_INLINE void average_lanes(const float* x, int64_t x_row, int64_t x_tap, int64_t rows, int64_t taps, float divisor, float* y, int lanes) {
  f32v sum[nv] = {};
  const int64_t h = kh ? kh : rows, w = kw ? kw : taps;
#pragma GCC unroll 4
  for (int64_t r = 0; r < h; ++r) {
    f32v part[nv];
#pragma GCC unroll 4
    for (int v = 0; v < nv; ++v) part[v] = load_lanes<tail>(x + r * x_row + v * kLanes, lanes);
#pragma GCC unroll 4
    for (int64_t t = 1; t < w; ++t) {
#pragma GCC unroll 4
      for (int v = 0; v < nv; ++v) part[v] = part[v] + load_lanes<tail>(x + r * x_row + t * x_tap + v * kLanes, lanes);
    }
#pragma GCC unroll 4
    for (int v = 0; v < nv; ++v) sum[v] = sum[v] + part[v];
  }
#pragma GCC unroll 4
  for (int v = 0; v < nv; ++v) store_lanes<tail>(y + v * kLanes, divisor == 1.0f ? sum[v] : sum[v] / set1(divisor), lanes);
}

template <int kh, int kw>
WL_INLINE void average_column(const PoolRow& w, const float* x, Taps taps, int64_t p, int64_t channels, float divisor, float* y) {
  const int64_t tap = w.dilation * w.x_col, count = taps.end - taps.begin;
  x += (p * w.stride + taps.begin * w.dilation + w.start) * w.x_col;
  y += p * w.y_col;
  constexpr int wide = kh ? 1 : 4;
  int64_t c = 0;
  for (; c + wide * kLanes <= channels; c += wide * kLanes)
    average_lanes<wide, kh, kw, false>(x + c, w.x_row, tap, w.rows, count, divisor, y + c, kLanes);
  if (wide > 1)
    for (; c + kLanes <= channels; c += kLanes) average_lanes<1, kh, kw, false>(x + c, w.x_row, tap, w.rows, count, divisor, y + c, kLanes);
  if (c < channels) average_lanes<1, kh, kw, true>(x + c, w.x_row, tap, w.rows, count, divisor, y + c, (int)(channels - c));
}

void average_row(const PoolRow& w, const float* x, float divisor, bool inside, float* y) {
  if (w.stride > 1 && thin(w, 64)) return thin_average(w, x, divisor, inside, y);
  const int64_t shape = w.rows == w.taps ? w.taps : 0;
  const bool gapless = w.x_col == w.channels && w.y_col == w.channels;
  for (int64_t p = 0, together; p < w.columns; p += together) {
    const Taps taps = taps_inside(p * w.stride + w.start, w.taps, w.dilation, w.width);
    together = columns_together(w, p, taps, gapless);
    const int64_t channels = together * w.channels;
    const int64_t count = taps.end - taps.begin;
    const float d = inside ? divisor * (float)count : divisor;
    if (count == w.taps && shape == 2)
      average_column<2, 2>(w, x, taps, p, channels, d, y);
    else if (count == w.taps && shape == 3)
      average_column<3, 3>(w, x, taps, p, channels, d, y);
    else
      average_column<0, 0>(w, x, taps, p, channels, d, y);
  }
}

template <int kr, int ko, bool inside, bool tail>
WL_INLINE void average_bwd_lanes(const PoolGather& g, const Outputs& o, const float* dy, float scale, bool accumulate, float* dx,
                                 int lanes) {
  f32v sum = accumulate ? load_lanes<tail>(dx, lanes) : zero();
  const int64_t rows = kr ? kr : g.rows, count = ko ? ko : o.count;
#pragma GCC unroll 3
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = dy + r * g.dy_row;
#pragma GCC unroll 3
    for (int64_t j = 0; j < count; ++j, from += o.step * g.dy_col) {
      float factor = scale;
      if (inside) {
        const Taps taps = taps_inside((o.first + j * o.step) * g.stride - g.pad, g.taps, g.dilation, g.columns);
        factor = scale / (float)(taps.end - taps.begin);
      }
      sum = fma(load_lanes<tail>(from, lanes), set1(factor), sum);
    }
  }
  store_lanes<tail>(dx, sum, lanes);
}

template <int kr, int ko, bool inside>
WL_INLINE void average_bwd_column(const PoolGather& g, const Outputs& o, int64_t channels, const float* dy, float scale, bool accumulate,
                                  float* dx) {
  dy += o.first * g.dy_col;
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) average_bwd_lanes<kr, ko, inside, false>(g, o, dy + c, scale, accumulate, dx + c, kLanes);
  if (c < channels) average_bwd_lanes<kr, ko, inside, true>(g, o, dy + c, scale, accumulate, dx + c, (int)(channels - c));
}

void average_bwd_row(const PoolGather& g, const float* dy, float scale, bool inside, bool accumulate, float* dx) {
  const bool gapless = !inside && g.dy_col == g.channels && g.dx_col == g.channels;  // `inside`: a factor of its own for each output
  if (thin(g, gapless)) return thin_average_bwd(g, dy, scale, inside, accumulate, dx);
  for_each_column(
      g, gapless, [&](int64_t i, int64_t channels, const Outputs& o) __attribute__((always_inline)) {
        float* to = dx + i * g.dx_col;
        if (inside)
          average_bwd_column<0, 0, true>(g, o, channels, dy, scale, accumulate, to);
        else if (g.rows == 1 && o.count == 1)
          average_bwd_column<1, 1, false>(g, o, channels, dy, scale, accumulate, to);
        else
          average_bwd_column<0, 0, false>(g, o, channels, dy, scale, accumulate, to);
      });
}

}  // namespace

extern const PoolKernels pool;
const PoolKernels pool = {
    max_row,     max_index_u8,    max_index_i32, max_bwd_tiles<uint8_t>, max_bwd_tiles<int32_t>, max_bwd_row<uint8_t>, max_bwd_row<int32_t>,
    average_row, average_bwd_row,
};

}  // namespace WL_ISA
}  // namespace wl
