// Rows of so few channels that a pixel fills no vector. Forward, windows are combined at every input column, as if the stride were 1: runs
// of whole rows fill vectors, and the outputs are picked out of them. Backward, outputs are laid out at the distance of their stride and
// gathered as at stride 1; where windows are large and outputs few, each adds to the pixels that it owns.
#pragma once
#include "kernels/pool/pool.h"
#include "kernels/pool/taps.h"
#include "simd/simd.h"

namespace wl {
namespace WL_ISA {
namespace {

// Functions with buffers are not inlined: every row would pay for the room, thin or not.
#define WL_OUTLINE static __attribute__((noinline))

constexpr int64_t kThinChannels = 4;  // rows of fewer are thin
constexpr int64_t kRun = 1024;        // floats of a row that are combined at once

// Whether a row is thin, fits, and has at least so many taps in all: fewer do not pay for the detour through memory.
WL_INLINE bool thin(const PoolRow& w, int64_t least_taps) {
  return w.channels < kThinChannels && w.x_col == w.channels && ((w.taps - 1) * w.dilation + 1) * w.channels <= kRun &&
         w.columns * w.rows * w.taps >= least_taps;
}

// Calls body(channels) with their number as a constant: a loop over so few costs more than its body.
template <int n>
struct Channels {
  static constexpr int count = n;
};
template <class Body>
WL_INLINE void with_channels(int64_t channels, Body body) {
  switch (channels) {
    case 1: body(Channels<1>()); break;
    case 2: body(Channels<2>()); break;
    default: body(Channels<3>()); break;
  }
}

// Neighbouring outputs, and the columns that their taps meet: elements [0, before) of these lie left of the picture, `inside` more in it,
// from element x of its row on, and the rest up to `end` right of it or nowhere.
struct Run {
  int64_t output, outputs;
  int64_t x, before, inside, end;
  int64_t positions, step;  // of windows: every step-th vector from those in [0, positions) on has an output
};

template <class Body>
WL_INLINE void for_each_run(const PoolRow& w, Body body) {
  const int64_t c = w.channels, span = (w.taps - 1) * w.dilation + 1, all = (w.columns - 1) * w.stride + span;
  const int64_t most = all * c <= kRun ? w.columns : (kRun / c - span) / w.stride + 1;
  for (int64_t p = 0; p < w.columns; p += most) {
    Run run;
    run.output = p, run.outputs = w.columns - p < most ? w.columns - p : most;
    const int64_t column = p * w.stride + w.start, columns = (run.outputs - 1) * w.stride + span;
    const int64_t begin = clamp(0, column, column + columns), end = clamp(w.width, begin, column + columns);
    run.x = begin * c, run.before = (begin - column) * c, run.inside = (end - begin) * c, run.end = columns * c + kLanes;
    run.positions = (columns - span + 1) * c, run.step = w.stride * c > kLanes ? w.stride * c : kLanes;
    body(run);
  }
}

// The values of the outputs: those of all positions are in `from`.
template <class From, class To, class Value>
WL_INLINE void pick(const PoolRow& w, const Run& run, const From* from, To* to, int64_t to_col, Value value) {
  with_channels(
      w.channels, [&](auto channels) __attribute__((always_inline)) {
        To* at = to + run.output * to_col;
        for (int64_t o = 0; o < run.outputs; ++o, at += to_col)
          for (int c = 0; c < channels.count; ++c) at[c] = (To)value(from[o * w.stride * channels.count + c]);
      });
}

// --- maximum ---
// Positions in the window are kept below zero: those of padding, from zero on, come after all of them.
constexpr int64_t kFirstPosition = INT32_MIN;

// n elements of a row of pixels: the maximum down the rows, and the position of its first pixel. May write a vector past the end.
template <int nv, bool tail>
WL_INLINE void max_down(const PoolRow& w, const float* x, float* value, int32_t* position, int lanes) {
  f32v best[nv];
  i32v winner[nv], at = set1_index(kFirstPosition + w.first_row * w.taps);
#pragma GCC unroll 4
  for (int v = 0; v < nv; ++v) best[v] = load_lanes<tail>(x + v * kLanes, lanes), winner[v] = at;
  for (int64_t r = 1; r < w.rows; ++r) {
    x += w.x_row;
    at = at + set1_index(w.taps);
#pragma GCC unroll 4
    for (int v = 0; v < nv; ++v) {
      const f32v pixel = load_lanes<tail>(x + v * kLanes, lanes);
      const i32v take = wins(pixel, best[v]);
      best[v] = select(take, pixel, best[v]), winner[v] = select_index(take, at, winner[v]);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < nv; ++v) store(value + v * kLanes, best[v]), store_index<false>(position + v * kLanes, winner[v], kLanes);
}

// The first in row order wins among equals, though the columns are gone through first.
template <class Index>
WL_OUTLINE void thin_max(const PoolRow& w, const float* x, float* y, Index* index) {
  const int64_t channels = w.channels, tap = w.dilation * channels;
  float value[kRun + 2 * kLanes];
  int32_t position[kRun + 2 * kLanes];
  for_each_run(
      w, [&](const Run& run) __attribute__((always_inline)) {
        const auto pad = [&](int64_t i) __attribute__((always_inline)) {
          store(value + i, set1(-__builtin_inff())), store_index<false>(position + i, set1_index(0), kLanes);
        };
        for (int64_t i = 0; i < run.before; i += kLanes) pad(i);
        const float* from = x + run.x;
        float* to = value + run.before;
        int32_t* at = position + run.before;
        int64_t i = 0;
        for (; i + 4 * kLanes <= run.inside; i += 4 * kLanes) max_down<4, false>(w, from + i, to + i, at + i, kLanes);
        for (; i + kLanes <= run.inside; i += kLanes) max_down<1, false>(w, from + i, to + i, at + i, kLanes);
        if (i < run.inside) max_down<1, true>(w, from + i, to + i, at + i, (int)(run.inside - i));
        for (i = run.before + run.inside; i < run.end; i += kLanes) pad(i);

        for (i = 0; i < run.positions; i += run.step) {
          f32v best = load(value + i);
          i32v winner = load_index<false>(position + i, kLanes);
          for (int64_t t = 1; t < w.taps; ++t) {
            const f32v pixel = load(value + i + t * tap);
            const i32v here = load_index<false>(position + i + t * tap, kLanes) + set1_index(t);
            const i32v take = wins(pixel, best) | (~wins(best, pixel) & (here < winner));
            best = select(take, pixel, best), winner = select_index(take, here, winner);
          }
          store(value + i, best), store_index<false>(position + i, winner, kLanes);
        }

        pick(
            w, run, value, y, w.y_col, [](float v) __attribute__((always_inline)) { return v; });
        if (index)
          pick(
              w, run, position, index, w.index_col, [](int32_t v) __attribute__((always_inline)) { return v - (int32_t)kFirstPosition; });
      });
}

// --- average ---
// Adds the taps of `rows` rows to the sums, one row after the other; the rows are worked on together, as each is a chain of additions.
template <int rows>
WL_INLINE void average_along(const PoolRow& w, const Run& run, const float* x, float* sum) {
  float pixels[rows][kRun + 2 * kLanes];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    const float* from = x + r * w.x_row + run.x;
    float* to = pixels[r] + run.before;
    for (int64_t i = 0; i < run.before; i += kLanes) store(pixels[r] + i, zero());
    int64_t i = 0;
    for (; i + kLanes <= run.inside; i += kLanes) store(to + i, load(from + i));
    if (i < run.inside) store(to + i, load_partial(from + i, (int)(run.inside - i)));
    for (i = run.before + run.inside; i < run.end; i += kLanes) store(pixels[r] + i, zero());
  }
  for (int64_t i = 0; i < run.positions; i += run.step) {
    f32v part[rows];
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) part[r] = load(pixels[r] + i);
    for (int64_t t = 1; t < w.taps; ++t)
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) part[r] = part[r] + load(pixels[r] + i + t * w.dilation * w.channels);
    f32v all = load(sum + i);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) all = all + part[r];
    store(sum + i, all);
  }
}

WL_OUTLINE void thin_average(const PoolRow& w, const float* x, float divisor, bool inside, float* y) {
  float sum[kRun + 2 * kLanes];
  for_each_run(
      w, [&](const Run& run) __attribute__((always_inline)) {
        for (int64_t i = 0; i < run.positions; i += run.step) store(sum + i, zero());
        int64_t r = 0;
        for (; r + 4 <= w.rows; r += 4) average_along<4>(w, run, x + r * w.x_row, sum);
        switch (w.rows - r) {
          case 1: average_along<1>(w, run, x + r * w.x_row, sum); break;
          case 2: average_along<2>(w, run, x + r * w.x_row, sum); break;
          case 3: average_along<3>(w, run, x + r * w.x_row, sum); break;
        }
        float mean[kRun + 2 * kLanes];
        const f32v whole = set1(inside ? divisor * (float)w.taps : divisor);
        for (int64_t i = 0; i < run.positions; i += run.step) store(mean + i, load(sum + i) / whole);
        pick(
            w, run, mean, y, w.y_col, [](float v) __attribute__((always_inline)) { return v; });
        if (inside) {
          for (int64_t o = 0; o < run.outputs; ++o) {
            const int64_t p = run.output + o;
            const Taps taps = taps_inside(p * w.stride + w.start, w.taps, w.dilation, w.width);
            const int64_t count = taps.end - taps.begin;
            float* at = sum + o * w.stride * w.channels;
            for (int64_t c = 0; count < w.taps && c < w.channels; ++c) y[p * w.y_col + c] = at[c] / (divisor * (float)count);
          }
        }
      });
}

// --- backward ---
// At stride 1 the columns of a row between its ends fill vectors by themselves.
WL_INLINE bool thin(const PoolGather& g, bool gapless) {
  return g.channels < kThinChannels && !(gapless && g.stride == 1 && g.dilation == 1 && 4 * g.taps < g.width);
}

// Whether the outputs are laid out side by side, at the distance of their stride, and gathered as at stride 1: that pays unless rows are
// short, or windows large and outputs few.
WL_INLINE bool gathers(const PoolGather& g) {
  const bool fits = g.dx_col == g.channels && ((g.taps - 1) * g.dilation + 1) * g.channels <= kRun;
  return fits && g.rows > 0 && g.columns * g.channels >= 2 * kLanes && g.taps * g.columns <= 16 * kLanes * g.width;
}

// place(r, o, c, a, b) lays down what row r knows of channel c of output o: two numbers, zero where no output is. add(r, t, a, b, sum) adds
// that of neighbours which meet their columns through tap t to `sum`.
template <class B, class Place, class Add>
WL_INLINE void gather_thin(const PoolGather& g, bool accumulate, float* dx, Place place, Add add) {
  const int64_t channels = g.channels, reach = (g.taps - 1) * g.dilation, most = kRun / channels - reach;
  float a[kRun + 2 * kLanes];
  B b[kRun + 2 * kLanes];
  for (int64_t i = 0; i < g.columns; i += most) {
    const int64_t columns = g.columns - i < most ? g.columns - i : most, n = columns * channels;
    const int64_t first = i + g.pad - reach, end = first + columns + reach;  // an output lies at column o*stride
    const int64_t o_begin = max_of(0, div_up(first, g.stride));
    const int64_t o_end = (g.width - 1) * g.stride < end ? g.width : div_up(end, g.stride);
    for (int64_t r = 0; r < g.rows; ++r) {
      for (int64_t j = 0; j < (end - first) * channels + kLanes; j += kLanes) {
        store(a + j, zero());
        store(reinterpret_cast<float*>(b + j), zero());
      }
      with_channels(
          channels, [&](auto constant) __attribute__((always_inline)) {
            for (int64_t o = o_begin; o < o_end; ++o)
              for (int c = 0; c < constant.count; ++c) {
                const int64_t at = (o * g.stride - first) * constant.count + c;
                place(r, o, c, a + at, b + at);
              }
          });
      for (int64_t j = 0; j < n; j += kLanes) {
        const bool tail = j + kLanes > n;
        f32v sum = zero();
        if (accumulate || r > 0) sum = tail ? load_partial(dx + i * channels + j, (int)(n - j)) : load(dx + i * channels + j);
        for (int64_t t = g.taps - 1, at = j; t >= 0; --t, at += g.dilation * channels) sum = add(r, t, load(a + at), b + at, sum);
        if (tail)
          store_partial(dx + i * channels + j, sum, (int)(n - j));
        else
          store(dx + i * channels + j, sum);
      }
    }
  }
}

WL_INLINE void clear_row(const PoolGather& g, float* dx) {
  const bool gapless = g.dx_col == g.channels;
  const int64_t runs = gapless ? 1 : g.columns, n = gapless ? g.columns * g.channels : g.channels;
  for (int64_t run = 0; run < runs; ++run, dx += g.dx_col) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(dx + i, zero());
    if (i < n) store_partial(dx + i, zero(), (int)(n - i));
  }
}

template <class Index>
WL_OUTLINE void thin_max_bwd(const PoolGather& g, const float* dy, const Index* index, float* dx) {
  if (gathers(g))
    return gather_thin<int32_t>(
        g, false, dx,
        [&](int64_t r, int64_t o, int64_t c, float* gradient, int32_t* winner) __attribute__((always_inline)) {
          *gradient = dy[r * g.dy_row + o * g.dy_col + c], *winner = index[r * g.index_row + o * g.index_col + c];
        },
        [&](int64_t r, int64_t t, f32v gradient, const int32_t* winner, f32v sum) __attribute__((always_inline)) {
          const i32v position = set1_index((g.last_row - r * g.row_step) * g.taps + t);
          return sum + select(load_index<false>(winner, kLanes) == position, gradient, zero());
        });
  clear_row(g, dx);
  for (int64_t r = 0; r < g.rows; ++r) {
    const int64_t first = (g.last_row - r * g.row_step) * g.taps;
    with_channels(
        g.channels, [&](auto channels) __attribute__((always_inline)) {
          for (int64_t o = 0; o < g.width; ++o)
            for (int c = 0; c < channels.count; ++c) {
              const int64_t tap = index[r * g.index_row + o * g.index_col + c] - first, column = o * g.stride + tap * g.dilation - g.pad;
              if (tap < 0 || tap >= g.taps || column < 0 || column >= g.columns) continue;
              dx[column * g.dx_col + c] += dy[r * g.dy_row + o * g.dy_col + c];
            }
        });
  }
}

// Windows side by side: every row of theirs is a row of dx, which one row of outputs holds.
template <class Index>
WL_INLINE void thin_max_bwd_tiles(const PoolRow& w, const float* dy, const Index* index, float* dx) {
  PoolGather g{};
  g.channels = w.channels, g.columns = w.width, g.width = w.columns;
  g.rows = 1, g.taps = w.taps, g.stride = w.taps, g.dilation = 1;
  g.dy_col = w.y_col, g.index_col = w.index_col, g.dx_col = w.x_col;
  for (int64_t r = 0; r < w.rows; ++r) {
    g.last_row = r;
    thin_max_bwd(g, dy, index, dx + r * w.x_row);
  }
}

WL_INLINE float fma1(float a, float b, float c) {  // as fma()
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

// dx[i] += dy[i % channels] * factor.
WL_INLINE void spread(const float* dy, int64_t channels, float factor, float* dx, int64_t n) {
  float pattern[kThinChannels * kLanes];
  for (int64_t i = 0; i < channels * kLanes; i += channels)
    for (int64_t c = 0; c < channels; ++c) pattern[i + c] = dy[c];
  int64_t i = 0, at = 0;
  for (; i + kLanes <= n; i += kLanes) {
    store(dx + i, fma(load(pattern + at), set1(factor), load(dx + i)));
    at = at + kLanes == channels * kLanes ? 0 : at + kLanes;
  }
  if (i < n) store_partial(dx + i, fma(load(pattern + at), set1(factor), load_partial(dx + i, (int)(n - i))), (int)(n - i));
}

WL_OUTLINE void thin_average_bwd(const PoolGather& g, const float* dy, float scale, bool inside, bool accumulate, float* dx) {
  const auto factor_of = [&](int64_t o) __attribute__((always_inline)) {
    const Taps taps = taps_inside(o * g.stride - g.pad, g.taps, g.dilation, g.columns);
    return scale / (float)(taps.end - taps.begin);
  };
  if (gathers(g))
    return gather_thin<float>(
        g, accumulate, dx,
        [&](int64_t r, int64_t o, int64_t c, float* gradient, float* factor)
            __attribute__((always_inline)) { *gradient = dy[r * g.dy_row + o * g.dy_col + c], *factor = inside ? factor_of(o) : scale; },
        [&](int64_t, int64_t, f32v gradient, const float* factor, f32v sum)
            __attribute__((always_inline)) { return fma(gradient, load(factor), sum); });
  if (!accumulate) clear_row(g, dx);
  const bool gapless = g.dilation == 1 && g.dx_col == g.channels;
  for (int64_t r = 0; r < g.rows; ++r)
    for (int64_t o = 0; o < g.width; ++o) {
      const float* from = dy + r * g.dy_row + o * g.dy_col;
      const int64_t column = o * g.stride - g.pad;
      const Taps taps = taps_inside(column, g.taps, g.dilation, g.columns);
      const int64_t count = taps.end - taps.begin;
      const float factor = inside ? scale / (float)count : scale;
      float* to = dx + (column + taps.begin * g.dilation) * g.dx_col;
      if (gapless && count * g.channels >= 4 * kLanes) {
        spread(from, g.channels, factor, to, count * g.channels);
        continue;
      }
      with_channels(
          g.channels, [&](auto channels) __attribute__((always_inline)) {
            for (int64_t t = 0; t < count; ++t, to += g.dilation * g.dx_col)
              for (int c = 0; c < channels.count; ++c) to[c] = fma1(from[c], factor, to[c]);
          });
    }
}

}  // namespace
}  // namespace WL_ISA
}  // namespace wl

#undef WL_OUTLINE
