#include "kernels/reduce/reduce.h"

#include "simd/activation.h"
#include "simd/channels.h"
#include "simd/transpose.h"

namespace wl {
namespace WL_ISA {
namespace {

constexpr int64_t kRowBlock = 1024;          // elements of a row that one block sums
constexpr int64_t kMediumRow = 16 * kLanes;  // elements of a row that one chain per lane sums
constexpr int64_t kAhead = 1024;  // elements that a pass with little arithmetic asks for beforehand: prefetchers stop at every page
constexpr int64_t kTile = 8192;   // elements of a tile of rows, whose sums are added up before they join the others

// How far ahead kAhead elements lie in memory, in rows of n that may have gaps between them.
constexpr int64_t ahead(int64_t n, int64_t row) {
  return (n < kAhead ? kAhead / n : 1) * row;
}

// The maximum, or a NaN if either is one. All bits set is a NaN, and a mask costs less than a choice.
WL_INLINE f32v max_nan(f32v m, f32v x) {
  return from_bits(bits(max(m, x)) | (x != x));
}

template <ReduceKind kind>
WL_INLINE f32v combine(f32v a, f32v b) {
  return kind == ReduceKind::max ? max_nan(a, b) : a + b;
}
template <ReduceKind kind>
WL_INLINE f32v neutral() {
  return kind == ReduceKind::max ? set1(-kInfinity) : zero();
}

template <ReduceKind kind>
WL_INLINE float across(f32v v) {
  if (kind != ReduceKind::max) return reduce_add(v);
  return reduce_lanes(
      v, [](auto a, auto b) __attribute__((always_inline)) { return ((b > a) | (b != b)) ? b : a; });
}

// Lane i is across(v[i]), in the same order.
template <ReduceKind kind>
WL_INLINE f32v across_each(f32v (&v)[kLanes]) {
  transpose(v);
#pragma GCC unroll 4
  for (int half = kLanes / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) v[i] = combine<kind>(v[i], v[i + half]);
  return v[0];
}

template <ReduceKind kind>
WL_INLINE f32v partial_or_neutral(int n, const float* x) {
  return kind == ReduceKind::max ? select(first_lanes(n), load_partial(x, n), neutral<kind>()) : load_partial(x, n);
}

// One block of a row: four independent chains.
template <ReduceKind kind>
WL_INLINE f32v row_block(int64_t n, const float* x) {
  f32v acc[4] = {neutral<kind>(), neutral<kind>(), neutral<kind>(), neutral<kind>()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) acc[j] = combine<kind>(acc[j], load(x + i + j * kLanes));
  for (; i + kLanes <= n; i += kLanes) acc[0] = combine<kind>(acc[0], load(x + i));
  if (i < n) acc[1] = combine<kind>(acc[1], partial_or_neutral<kind>((int)(n - i), x + i));
  return combine<kind>(combine<kind>(acc[0], acc[1]), combine<kind>(acc[2], acc[3]));
}

// v[r]: what a long row comes to in each lane.
template <ReduceKind kind, int n>
WL_INLINE void add_long(int64_t cols, const float* x, int64_t x_row, f32v (&v)[n]) {
  for (int r = 0; r < n; ++r, x += x_row) {
    f32v total = neutral<kind>();
    for (int64_t i = 0; i < cols; i += kRowBlock)
      total = combine<kind>(total, row_block<kind>(cols - i < kRowBlock ? cols - i : kRowBlock, x + i));
    v[r] = total;
  }
}

// The same of rows of a vector or a few: one chain each, for the rows are independent.
template <ReduceKind kind, int n>
WL_INLINE void add_medium(int64_t cols, const float* x, int64_t x_row, f32v (&v)[n]) {
#pragma GCC unroll 16
  for (int r = 0; r < n; ++r) v[r] = load(x + r * x_row);
  int64_t i = kLanes;
  for (; i + kLanes <= cols; i += kLanes)
#pragma GCC unroll 16
    for (int r = 0; r < n; ++r) v[r] = combine<kind>(v[r], load(x + r * x_row + i));
  if (i == cols) return;
  const i32v seen = first_lanes((int)(i + kLanes - cols));  // of the row's last vector
#pragma GCC unroll 16
  for (int r = 0; r < n; ++r) v[r] = combine<kind>(v[r], select(seen, neutral<kind>(), load(x + r * x_row + cols - kLanes)));
}

// Rows shorter than a vector, each from left to right.
template <ReduceKind kind>
void short_rows(int64_t rows, int64_t cols, const float* x, int64_t x_row, float* out) {
  int64_t r = 0;
  for (; r + kLanes <= rows; r += kLanes, x += kLanes * x_row) {
    f32v v[kLanes];
    if (x_row == cols && (rows - r - kLanes + 1) * cols >= kLanes) {  // a whole vector ends in rows that follow
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) v[i] = load(x + i * cols);
    } else {
      for (int i = 0; i < kLanes; ++i) v[i] = load_partial(x + i * x_row, (int)cols);
    }
    transpose(v);
#pragma GCC unroll 16
    for (int i = 1; i < kLanes; ++i)
      if (i < cols) v[0] = combine<kind>(v[0], v[i]);
    store(out + r, v[0]);
  }
  for (; r < rows; ++r, x += x_row) {
    float total = x[0];
    for (int64_t i = 1; i < cols; ++i) total = kind != ReduceKind::max ? total + x[i] : x[i] > total || x[i] != x[i] ? x[i] : total;
    out[r] = total;
  }
}

template <ReduceKind kind>
void rows_kernel(int64_t rows, int64_t cols, const float* x, int64_t x_row, float* out) {
  if (cols < kLanes) return short_rows<kind>(rows, cols, x, x_row, out);
  const auto add = [=](auto& v, const float* first) __attribute__((always_inline)) {
    cols <= kMediumRow ? add_medium<kind>(cols, first, x_row, v) : add_long<kind>(cols, first, x_row, v);
  };
  int64_t r = 0;
  for (; r + kLanes <= rows; r += kLanes) {
    f32v v[kLanes];
    add(v, x + r * x_row);
    store(out + r, across_each<kind>(v));
  }
  for (; r < rows; ++r) {
    f32v v[1];
    add(v, x + r * x_row);
    out[r] = across<kind>(v[0]);
  }
}

void rows_any(ReduceKind kind, int64_t rows, int64_t cols, const float* x, int64_t x_row, float* out) {
  if (kind == ReduceKind::max) return rows_kernel<ReduceKind::max>(rows, cols, x, x_row, out);
  rows_kernel<ReduceKind::sum>(rows, cols, x, x_row, out);
}

// --- sums over rows, per channel -----------------------------------------------------------------------------------------------------
//
// `Sources` describes what is added: at(r, i, access, sums) adds the terms of
// row r at columns i… to sums[0…terms). The rows of a tile are taken four at a
// time, so that accumulators in memory are touched once per four rows.

// acc[t][c] += Σ over `rows` rows of width `width`; merged rows give `merge` partial sums per channel, folded in order.
template <int terms, class Source>
WL_INLINE void add_tile(int64_t rows, int64_t width, const Source& source, float (*acc)[kMaxWidth]) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
    for_vectors(width, [&](int64_t i, auto at) {
      f32v s0[terms], s1[terms], s2[terms], s3[terms];
      source(r, i, at, s0), source(r + 1, i, at, s1), source(r + 2, i, at, s2), source(r + 3, i, at, s3);
      for (int t = 0; t < terms; ++t) at.put(acc[t] + i, at.get(acc[t] + i) + ((s0[t] + s1[t]) + (s2[t] + s3[t])));
    });
  for (; r < rows; ++r)
    for_vectors(width, [&](int64_t i, auto at) {
      f32v s[terms];
      source(r, i, at, s);
      for (int t = 0; t < terms; ++t) at.put(acc[t] + i, at.get(acc[t] + i) + s[t]);
    });
}

// total[t] = the terms of `rows` rows at one vector of columns, in the order of add_tile; row(r, sums) gives those of a row.
template <ReduceKind kind, int terms, class Row>
WL_INLINE void add_column(int64_t rows, const Row& row, f32v (&total)[terms]) {
  for (int t = 0; t < terms; ++t) total[t] = neutral<kind>();
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    f32v s0[terms], s1[terms], s2[terms], s3[terms];
    row(r, s0), row(r + 1, s1), row(r + 2, s2), row(r + 3, s3);
    for (int t = 0; t < terms; ++t)
      total[t] = combine<kind>(total[t], combine<kind>(combine<kind>(s0[t], s1[t]), combine<kind>(s2[t], s3[t])));
  }
  for (; r < rows; ++r) {
    f32v s[terms];
    row(r, s);
    for (int t = 0; t < terms; ++t) total[t] = combine<kind>(total[t], s[t]);
  }
}

// Rows that do not merge and are one tile, which stays near: a vector of columns after the other, with the sums in registers.
constexpr bool is_small(int64_t rows, int64_t cols) {
  return rows * cols <= kTile;
}
template <ReduceKind kind, int terms, class Source>
WL_INLINE void add_small(int64_t rows, int64_t cols, const Source& source, float* const (&out)[terms]) {
  for_vectors(cols, [&](int64_t i, auto at) {
    f32v total[terms];
    add_column<kind>(
        rows, [&](int64_t r, f32v * s) __attribute__((always_inline)) { source(r, i, at, s); }, total);
    for (int t = 0; t < terms; ++t) at.put(out[t] + i, combine<kind>(at.get(out[t] + i), total[t]));
  });
}

WL_INLINE void clear(int64_t n, float* p) {
  for (int64_t i = 0; i < n; ++i) p[i] = 0.0f;
}

// out[c] += Σ_m acc[m * channels + c]
WL_INLINE void fold(int64_t channels, int64_t merge, const float* acc, float* out) {
  for_vectors(channels, [&](int64_t i, auto at) {
    f32v sum = at.get(acc + i);
    for (int64_t m = 1; m < merge; ++m) sum = sum + at.get(acc + m * channels + i);
    at.put(out + i, at.get(out + i) + sum);
  });
}

// out[t][c] += Σ_r terms: tiles of rows are summed on their own and then added.
// make(merge, first) gives the source of rows `first`, `first + merge` … merged
// by `merge`.
template <int terms, class Make>
WL_INLINE void add_rows(int64_t rows, int64_t channels, int64_t merge, const Make& make, float* const (&out)[terms]) {
  float acc[terms][kMaxWidth];
  const int64_t merged = rows / merge, width = merge * channels,
                per_tile = width >= kTile / 64 ? (width >= kTile / 32 ? 32 : 64) : kTile / width;
  const auto source = make(merge, 0);
  for (int64_t begin = 0; begin < merged; begin += per_tile) {
    for (int t = 0; t < terms; ++t) clear(width, acc[t]);
    const int64_t n = merged - begin < per_tile ? merged - begin : per_tile;
    add_tile<terms>(
        n, width, [&](int64_t r, int64_t i, auto at, f32v* s) { source(begin + r, i, at, s); }, acc);
    for (int t = 0; t < terms; ++t) fold(channels, merge, acc[t], out[t]);
  }
  if (const int64_t rest = rows - merged * merge) {
    const auto tail = make(1, merged * merge);
    for (int t = 0; t < terms; ++t) clear(channels, acc[t]);
    add_tile<terms>(rest, channels, tail, acc);
    for (int t = 0; t < terms; ++t) fold(channels, 1, acc[t], out[t]);
  }
}

void columns_max(int64_t rows, int64_t cols, const float* x, int64_t x_row, float* acc) {
  if (const int64_t merge = merge_of(rows, cols, x_row == cols); merge > 1) {  // several narrow rows side by side
    float wide[kMaxWidth];
    const int64_t width = merge * cols, merged = rows / merge;
    for_vectors(width, [&](int64_t i, auto at) { at.put(wide + i, at.get(x + i)); });
    columns_max(merged - 1, width, x + width, width, wide);
    columns_max(merge, cols, wide, cols, acc);
    rows -= merged * merge, x += merged * width;
  }
  for (int64_t r = 0; r < rows; ++r, x += x_row)
    for_vectors(cols, [&](int64_t i, auto at) { at.put(acc + i, max_nan(at.get(acc + i), at.get(x + i))); });
}

void columns_sum(int64_t rows, int64_t cols, const float* x, int64_t x_row, float* acc) {
  for (int64_t c0 = 0; c0 < cols; c0 += kMaxWidth) {
    const int64_t n = cols - c0 < kMaxWidth ? cols - c0 : kMaxWidth;
    const auto make = [&](int64_t merge, int64_t first) {
      const float* p = x + c0 + first * x_row;
      return [p, row = merge * x_row](int64_t r, int64_t i, auto at, f32v* s) { s[0] = at.get(p + r * row + i); };
    };
    add_rows<1>(rows, n, merge_of(rows, n, x_row == cols && n == cols), make, {acc + c0});
  }
}

template <ReduceKind kind>
void columns_kernel(int64_t groups, int64_t rows, int64_t cols, const float* x, int64_t x_group, int64_t x_row, float* acc) {
  const int64_t merge = merge_of(rows, cols, x_row == cols);
  const bool small = is_small(rows, cols) && (merge == 1 || rows < 8 * merge);
  for (int64_t g = 0; g < groups; ++g, x += x_group, acc += cols) {
    if (small) {
      const float* whole = x + (x_row == cols ? rows * cols - kLanes : -1);  // up to here, whole vectors end in this row or the next ones
      const auto source = [=](int64_t r, int64_t i, auto at, f32v* s) {
        const float* p = x + r * x_row + i;
        s[0] = p <= whole ? load(p) : at.get(p);
      };
      add_small<kind>(rows, cols, source, {acc});
    } else if (kind == ReduceKind::max) {
      columns_max(rows, cols, x, x_row, acc);
    } else {
      columns_sum(rows, cols, x, x_row, acc);
    }
  }
}

void columns_any(ReduceKind kind, int64_t groups, int64_t rows, int64_t cols, const float* x, int64_t x_group, int64_t x_row, float* acc) {
  if (kind == ReduceKind::max) return columns_kernel<ReduceKind::max>(groups, rows, cols, x, x_group, x_row, acc);
  columns_kernel<ReduceKind::sum>(groups, rows, cols, x, x_group, x_row, acc);
}

double sum_squares_kernel(int64_t n, const float* x) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kRowBlock) {
    const int64_t m = n - begin < kRowBlock ? n - begin : kRowBlock;
    f32v acc[4] = {};
    int64_t i = begin;
    for (; i + 4 * kLanes <= begin + m; i += 4 * kLanes)
      for (int j = 0; j < 4; ++j) {
        const f32v v = load(x + i + j * kLanes);
        acc[j] = fma(v, v, acc[j]);
      }
    for_vectors(begin + m - i, [&](int64_t j, auto at) {
      const f32v v = at.get(x + i + j);
      acc[0] = fma(v, v, acc[0]);
    });
    total += (double)reduce_add((acc[0] + acc[1]) + (acc[2] + acc[3]));
  }
  return total;
}

// --- batch statistics ----------------------------------------------------------------------------------------------------------------

void merge_moments_kernel(int64_t channels, double n_a, float* mean_a, float* m2_a, double n_b, const float* mean_b, const float* m2_b) {
  const f32v share = set1((float)(n_b / (n_a + n_b))), weight = set1((float)(n_a * n_b / (n_a + n_b)));
  for_vectors(channels, [&](int64_t c, auto at) {
    const f32v delta = at.get(mean_b + c) - at.get(mean_a + c);
    at.put(mean_a + c, fma(delta, share, at.get(mean_a + c)));
    at.put(m2_a + c, fma(delta * delta, weight, at.get(m2_a + c) + at.get(m2_b + c)));
  });
}

// As tile_moments of a small tile, a vector of channels after the other. Out of line, so that the loops of large tiles
// stay as they are.
__attribute__((noinline)) void small_moments(int64_t rows, int64_t channels, const float* x, int64_t x_row, const float* shift, float* mean,
                                             float* m2) {
  const int64_t pilot_rows = rows < 4 ? rows : 4;
  const float count = (float)rows;
  for_vectors(channels, [&](int64_t i, auto at) {
    const auto value = [&](int64_t r) __attribute__((always_inline)) {
      return at.get(x + r * x_row + i);
    };
    f32v first[1], sums[2];
    add_column<ReduceKind::sum>(
        pilot_rows, [&](int64_t r, f32v * s) __attribute__((always_inline)) { s[0] = value(r); }, first);
    const f32v pilot = first[0] * set1(1.0f / (float)pilot_rows);
    const auto terms = [&](int64_t r, f32v * s) __attribute__((always_inline)) {
      s[0] = value(r) - pilot;
      s[1] = s[0] * s[0];
    };
    add_column<ReduceKind::sum>(rows, terms, sums);
    const f32v offset = sums[0] * set1(1.0f / count), excess = sums[1] - offset * sums[0];
    at.put(mean + i, (pilot - at.get(shift + i)) + offset);
    at.put(m2 + i, select(excess < 0.0f, zero(), excess));  // NaN stays
  });
}

// One sweep: sums of d = x - pilot and of d², where the pilot is the mean of
// the tile's first k rows. About the tile's own mean, n (mean - pilot)² <= M2 n
// / k, so at most a factor n / k of precision is lost, whatever the data; tiles
// keep n / k below about 130.
WL_INLINE void tile_moments(int64_t rows, int64_t channels, const float* x, int64_t x_row, const float* shift, float* mean, float* m2) {
  const int64_t merge = merge_of(rows, channels, x_row == channels), pilot_rows = rows < 4 * merge ? rows : 4 * merge;
  if (merge == 1 && is_small(rows, channels)) return small_moments(rows, channels, x, x_row, shift, mean, m2);
  float pilot[kMaxWidth], repeated[kMaxWidth], sum[kMaxWidth], squares[kMaxWidth];
  const auto value = [x, x_row](int64_t by, int64_t first) {
    return [p = x + first * x_row, row = by * x_row](int64_t r, int64_t i, auto at, f32v* s) { s[0] = at.get(p + r * row + i); };
  };
  clear(channels, pilot);
  add_rows<1>(pilot_rows, channels, merge, value, {pilot});
  for (int64_t c = 0; c < channels; ++c) pilot[c] = pilot[c] / (float)pilot_rows;
  const float* about = repeat(pilot, channels, merge, repeated);
  // Inlined by force: else it depends on what else this file holds, and a call costs a quarter of the time.
  const auto terms = [&](int64_t by, int64_t first) {
    return [ p = x + first * x_row, row = by * x_row, a = by > 1 ? about : pilot, next = ahead(by * channels, by * x_row) ](
        int64_t r, int64_t i, auto at, f32v* s) __attribute__((always_inline)) {
      __builtin_prefetch(p + r * row + i + next);
      const f32v d = at.get(p + r * row + i) - at.get(a + i);
      s[0] = d;
      s[1] = d * d;
    };
  };
  clear(channels, sum);
  clear(channels, squares);
  add_rows<2>(rows, channels, merge, terms, {sum, squares});
  const float count = (float)rows;
  for (int64_t c = 0; c < channels; ++c) {
    const float offset = sum[c] / count, excess = squares[c] - offset * sum[c];
    mean[c] = (pilot[c] - shift[c]) + offset;
    m2[c] = excess < 0.0f ? 0.0f : excess;  // NaN stays
  }
}

void moments_kernel(int64_t rows, int64_t channels, const float* x, int64_t x_row, const float* shift, float* mean, float* m2) {
  float tile_mean[kMaxWidth], tile_m2[kMaxWidth];
  for (int64_t c0 = 0; c0 < channels; c0 += kMaxWidth) {
    const int64_t n = channels - c0 < kMaxWidth ? channels - c0 : kMaxWidth;
    const int64_t per_tile = 2 * kTile / n > 128 ? 2 * kTile / n : 128;
    for (int64_t begin = 0; begin < rows; begin += per_tile) {
      const int64_t m = rows - begin < per_tile ? rows - begin : per_tile;
      const float* p = x + c0 + begin * x_row;
      if (begin == 0) {
        tile_moments(m, n, p, x_row, shift + c0, mean + c0, m2 + c0);
      } else {
        tile_moments(m, n, p, x_row, shift + c0, tile_mean, tile_m2);
        merge_moments_kernel(n, (double)begin, mean + c0, m2 + c0, (double)m, tile_mean, tile_m2);
      }
    }
  }
}

// `kept`: y is read; else it is computed anew from x.
template <bool kept, class Grad>
WL_INLINE void bn_sums_rows(int64_t rows, int64_t c0, int64_t n, int64_t merge, const BnSums& p, Grad grad, float* sum_g, float* sum_gx) {
  float storage[3][kMaxWidth];
  const float* repeated[3] = {repeat(p.mean + c0, n, merge, storage[0])};
  if (!kept) repeated[1] = repeat(p.scale + c0, n, merge, storage[1]), repeated[2] = repeat(p.offset + c0, n, merge, storage[2]);
  const auto make = [&](int64_t merged_by, int64_t first) {
    const float *dy = p.dy + c0 + first * p.dy_row, *x = p.x + c0 + first * p.x_row, *y = p.y ? p.y + c0 + first * p.y_row : dy;
    const bool merged = merged_by > 1;
    const float *mean = merged ? repeated[0] : p.mean + c0,
                *scale = kept     ? mean
                         : merged ? repeated[1]
                                  : p.scale + c0,
                *offset = kept     ? mean
                          : merged ? repeated[2]
                                   : p.offset + c0;
    const int64_t dy_row = merged_by * p.dy_row, x_row = merged_by * p.x_row, y_row = p.y ? merged_by * p.y_row : dy_row;
    const int64_t x_next = ahead(merged_by * n, x_row), dy_next = ahead(merged_by * n, dy_row);
    return [=](int64_t r, int64_t i, auto at, f32v* s) {
      __builtin_prefetch(x + r * x_row + i + x_next);
      __builtin_prefetch(dy + r * dy_row + i + dy_next);
      const f32v d = at.get(x + r * x_row + i) - at.get(mean + i);
      const f32v saved = kept ? at.get(y + r * y_row + i) : fma(d, at.get(scale + i), at.get(offset + i));
      s[0] = grad(saved, at.get(dy + r * dy_row + i));
      s[1] = s[0] * d;
    };
  };
  if (merge == 1 && is_small(rows, n)) return add_small<ReduceKind::sum, 2>(rows, n, make(1, 0), {sum_g + c0, sum_gx + c0});
  add_rows<2>(rows, n, merge, make, {sum_g + c0, sum_gx + c0});
}

void bn_sums_kernel(int64_t rows, int64_t channels, const BnSums& p, float* sum_g, float* sum_gx) {
  for (int64_t c0 = 0; c0 < channels; c0 += kMaxWidth) {
    const int64_t n = channels - c0 < kMaxWidth ? channels - c0 : kMaxWidth;
    const bool gapless = n == channels && p.dy_row == n && p.x_row == n && (!p.y || p.y_row == n);
    const int64_t merge = merge_of(rows, n, gapless);
    if (p.y || p.activation == UnaryKind::none)
      with_activation_grad(p.activation, p.alpha, p.beta,
                           [&](auto grad) { bn_sums_rows<true>(rows, c0, n, merge, p, grad, sum_g, sum_gx); });
    else
      with_activation_grad_at(p.activation, p.alpha, p.beta,
                              [&](auto grad) { bn_sums_rows<false>(rows, c0, n, merge, p, grad, sum_g, sum_gx); });
  }
}

}  // namespace

extern const ReduceKernels reduce;
const ReduceKernels reduce = {rows_any, columns_any, sum_squares_kernel, moments_kernel, merge_moments_kernel, bn_sums_kernel};

}  // namespace WL_ISA
}  // namespace wl
