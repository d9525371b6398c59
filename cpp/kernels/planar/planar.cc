// Convolution on planes, see planar.h. One source for every ISA: the tile follows the number of registers.
//
// A tile holds rows x vectors accumulators. Per term it broadcasts a weight per row and reads one vector of the planes per vector of
// pixels, at any address. Rows are output channels, so a layer of 6 channels uses all lanes; the pixels of a vector are transposed into
// NHWC in registers on the way in and out.
#include "kernels/planar/planar.h"

#include "simd/activation.h"
#include "simd/transpose.h"

namespace wl {
namespace WL_ISA {
namespace {

constexpr int kMost = kRegisters == 32 ? 8 : 6;  // rows, and vectors, of any tile
constexpr int kRows = kMost < kLanes ? kMost : kLanes;

// The widest tile of `rows` rows: accumulators, one operand per row or per vector (of the fewer), and one more.
constexpr int vectors_of(int rows) {
  int n = 1;
  while (n < kMost && rows * (n + 1) + (rows < n + 1 ? rows : n + 1) + 1 <= kRegisters) ++n;
  return n;
}

// acc[r][v] += a_r * b_v. The fewer operands stay in registers while the others pass.
template <int R, int V, class A, class B>
WL_INLINE void outer_product(f32v (&acc)[R][V], A a, B b) {
  if constexpr (R <= V) {
    f32v av[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) av[r] = a(r);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const f32v bv = b(v);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) accumulate(acc[r][v], av[r], bv);
    }
  } else {
    f32v bv[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) bv[v] = b(v);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const f32v av = a(r);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) accumulate(acc[r][v], av, bv[v]);
    }
  }
}

// Calls of<R, V>(…) for the runtime numbers of rows and vectors; V is at most vectors_of(R).
#define WL_TILE_ROW(R)          \
  case R:                       \
    if constexpr (R <= kRows) { \
      switch (vectors) {        \
        WL_TILE_OF(R, 1)        \
        WL_TILE_OF(R, 2)        \
        WL_TILE_OF(R, 3)        \
        WL_TILE_OF(R, 4)        \
        WL_TILE_OF(R, 5)        \
        WL_TILE_OF(R, 6)        \
        WL_TILE_OF(R, 7)        \
        WL_TILE_OF(R, 8)        \
      }                         \
    }                           \
    break;
#define WL_TILE_OF(R, V)                                                     \
  case V:                                                                    \
    if constexpr (V <= vectors_of(R)) Tile::template of<R, V>(arguments...); \
    break;
template <class Tile, class... Arguments>
WL_INLINE void call_tile(int rows, int vectors, Arguments... arguments) {
  switch (rows) { WL_TILE_ROW(1) WL_TILE_ROW(2) WL_TILE_ROW(3) WL_TILE_ROW(4) WL_TILE_ROW(5) WL_TILE_ROW(6) WL_TILE_ROW(7) WL_TILE_ROW(8) }
}
#undef WL_TILE_OF
#undef WL_TILE_ROW

// --- into planes ------------------------------------------------------------------------------------------------------------------------
// A block of kLanes pixels (fewer where the row is shorter than a vector) and at most n channels.
template <int n>
WL_INLINE void block_to_planes(int channels, int pixels, const float* from, int64_t step, float* planes, int64_t plane) {
  f32v v[kLanes];
#pragma GCC unroll 16
  for (int p = 0; p < kLanes; ++p) {
    const float* pixel = from + (p < pixels ? p : pixels - 1) * step;
    v[p] = channels == kLanes ? load(pixel) : load_partial(pixel, channels);
  }
  transpose(v);
#pragma GCC unroll 16
  for (int c = 0; c < n; ++c) {
    if (c == channels) break;
    if (pixels == kLanes)
      store(planes + c * plane, v[c]);
    else
      store_partial(planes + c * plane, v[c], pixels);
  }
}

template <int n>
__attribute__((noinline)) void channels_to_planes(int channels, int64_t pixels, const float* from, int64_t step, float* planes,
                                                  int64_t plane) {
  if (pixels < kLanes) return block_to_planes<n>(channels, (int)pixels, from, step, planes, plane);
  for (int64_t p = 0; p < pixels; p += kLanes) {
    const int64_t at = p + kLanes <= pixels ? p : pixels - kLanes;  // the last block overlaps the one before
    block_to_planes<n>(channels, kLanes, from + at * step, step, planes + at, plane);
  }
}

void to_planes(int64_t channels, int64_t pixels, const float* from, int64_t step, float* planes, int64_t plane) {
  if (channels == 1 && step == 1) {
    memcpy(planes, from, (size_t)pixels * sizeof(float));
    return;
  }
  if (channels == 1) {
    for (int64_t p = 0; p < pixels; ++p) planes[p] = from[p * step];
    return;
  }
  for (int64_t c = 0; c < channels; c += kLanes) {
    const int n = channels - c < kLanes ? (int)(channels - c) : kLanes;
    if (n <= 4 && kLanes > 4)
      channels_to_planes<4>(n, pixels, from + c, step, planes + c * plane, plane);
    else if (n <= 8 && kLanes > 8)
      channels_to_planes<8>(n, pixels, from + c, step, planes + c * plane, plane);
    else
      channels_to_planes<kLanes>(n, pixels, from + c, step, planes + c * plane, plane);
  }
}

// --- the sums ---------------------------------------------------------------------------------------------------------------------------
// sum[r*V + v] for the terms [begin, end).
struct SumTile {
  template <int R, int V>
  static __attribute__((noinline)) void of(const PlanarArgs* g, const PlanarVector* vectors, int64_t begin, int64_t end, f32v* sum) {
    const float* x[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) x[v] = g->x + vectors[v].row * g->pitch + vectors[v].column;
    const int32_t* offsets = g->offsets;
    for (int64_t t = begin; t < end || t == begin;) {
      const int64_t next = t - t % kPlanarFlush + kPlanarFlush, last = next < end ? next : end;
      const bool first = t == begin;
      f32v acc[R][V] = {};
      for (const float* w = g->w + t * R; t < last; ++t, w += R) {
        const int64_t offset = offsets[t];
        outer_product<R, V>(
            acc, [&](int r) __attribute__((always_inline)) { return set1(w[r]); },
            [&](int v) __attribute__((always_inline)) { return load(x[v] + offset); });
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sum[r * V + v] = first ? acc[r][v] : sum[r * V + v] + acc[r][v];
      if (begin >= end) break;
    }
  }
};

// --- out of planes ----------------------------------------------------------------------------------------------------------------------
// The general way out: any activation, on n vectors.
__attribute__((noinline)) void activate(f32v* u, int n, const PlanarOutput& o) {
  for (int r = 0; r < n; ++r) u[r] = unary_slow(o.activation, u[r], set1(o.alpha), set1(o.beta));
}

// The address of each lane's pixel in a picture; `nowhere` for lanes that nobody wants.
template <class T>
WL_INLINE void point_at_lanes(const PlanarVector& at, const PlanarArgs& g, T* base, int64_t row_step, int64_t step, T* nowhere, T** to) {
  for (int p = 0; p < kLanes; ++p) to[p] = nowhere;
  int64_t row = at.row, column = at.column;
  for (int p = 0; p < at.lanes; ++row, column = 0) {
    T* pixel = base + row * row_step + column * step;
    for (; p < at.lanes && column < g.columns; ++p, ++column, pixel += step) to[p] = pixel;
    p += (int)(g.pitch - column);
  }
}

// With a residual, which is read in NHWC: the sums of lane p begin at lanes[p * each].
__attribute__((noinline)) void put_with_residual(const float* lanes, int each, float* const* to, const PlanarVector& at,
                                                 const PlanarArgs& g) {
  const PlanarOutput& o = g.out;
  const float none[kLanes] = {};
  const float* from[kLanes];
  point_at_lanes(at, g, o.residual, o.residual_row, o.residual_col, none, from);
  for (int p = 0; p < kLanes; ++p) {
    const bool whole = g.rows == kLanes;
    const f32v v = whole ? load(lanes + p * each) + load(from[p]) : load_partial(lanes + p * each, g.rows) + load_partial(from[p], g.rows);
    const f32v y = unary_apply(o.activation, v, set1(o.alpha), set1(o.beta));
    whole ? store(to[p], y) : store_partial(to[p], y, g.rows);
  }
}

// Bias, residual and activation, and the way into NHWC: s holds a vector per row, `stride` apart; at most n rows.
template <int n>
WL_INLINE void put(const f32v* s, int stride, const PlanarVector& at, const PlanarArgs& g) {
  const PlanarOutput& o = g.out;
  const int rows = g.rows;
  f32v u[n];
#pragma GCC unroll 16
  for (int r = 0; r < n; ++r) u[r] = r < rows ? s[r * stride] : zero();
  if (o.bias) {
#pragma GCC unroll 16
    for (int r = 0; r < n; ++r) u[r] = u[r] + (r < rows ? set1(o.bias[r]) : zero());
  }
  if (!o.residual && is_clip(o.activation)) {
    const Clip bounds = clip_of(o.activation);
#pragma GCC unroll 16
    for (int r = 0; r < n; ++r) u[r] = clip(u[r], bounds);
  } else if (!o.residual && o.activation != UnaryKind::none) {
    f32v memory[n];
    for (int r = 0; r < n; ++r) memory[r] = u[r];
    activate(memory, rows, o);
    for (int r = 0; r < n; ++r) u[r] = memory[r];
  }
  interleave(u);

  constexpr int kEach = kLanes / n;  // pixels of a vector now, n lanes each
  if (!o.residual && at.lanes == kLanes && at.column + kLanes <= g.columns) {
    float* y = o.y + at.row * o.y_row + at.column * o.y_col;
    const int64_t step = o.y_col;
    const bool dense = rows == n && step == n;
#pragma GCC unroll 16
    for (int j = 0; j < n; ++j) {
      if (dense) {
        store(y + j * kLanes, u[j]);
        continue;
      }
#pragma GCC unroll 16
      for (int e = 0; e < kEach; ++e) store_between(y + (j * kEach + e) * step, u[j], e * n, rows);
    }
    return;
  }
  float nowhere[kLanes];
  float* to[kLanes];
  point_at_lanes(at, g, o.y, o.y_row, o.y_col, nowhere, to);
  if (o.residual) {
    f32v memory[n];
    for (int r = 0; r < n; ++r) memory[r] = u[r];
    return put_with_residual(reinterpret_cast<const float*>(memory), n, to, at, g);
  }
#pragma GCC unroll 16
  for (int j = 0; j < n; ++j)
#pragma GCC unroll 16
    for (int e = 0; e < kEach; ++e) store_between(to[j * kEach + e], u[j], e * n, rows);
}

void run(const PlanarArgs& g) {
  const int most = vectors_of(g.rows);
  const int64_t tiles = (g.count + most - 1) / most;
  const PlanarVector* vectors = g.vectors;
  for (int64_t i = 0; i < tiles; ++i) {
    const int count = (int)(g.count / tiles + (i < g.count % tiles));
    int64_t begin = vectors[0].begin, end = vectors[0].end;
    for (int v = 1; v < count; ++v) {
      if (vectors[v].begin < begin) begin = vectors[v].begin;
      if (vectors[v].end > end) end = vectors[v].end;
    }
    f32v sum[kMost * kMost];
    call_tile<SumTile>(g.rows, count, &g, vectors, begin, end, sum);
    for (int v = 0; v < count; ++v) {
      if (g.rows == 1)
        put<1>(sum + v, count, vectors[v], g);
      else if (g.rows == 2)
        put<2>(sum + v, count, vectors[v], g);
      else if (g.rows <= 4)
        put<4>(sum + v, count, vectors[v], g);
      else
        put<(kLanes < 8 ? kLanes : 8)>(sum + v, count, vectors[v], g);
    }
    vectors += count;
  }
}

// --- weights ----------------------------------------------------------------------------------------------------------------------------
struct WeightsTile {
  template <int R, int V>
  static __attribute__((noinline)) void of(const PlanarWeightsArgs* g, const int32_t* offsets, float* sums) {
    const float *x[V], *dy[R];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) x[v] = g->x + offsets[v];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) dy[r] = g->dy + r * g->dy_plane;
    f32v acc[R][V] = {};
    for (int64_t p = 0, end = g->pixels; p < end; p += kLanes)
      outer_product<R, V>(
          acc, [&](int r) __attribute__((always_inline)) { return load(dy[r] + p); },
          [&](int v) __attribute__((always_inline)) { return load(x[v] + p); });
    const bool add = g->add;
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        float* to = sums + (v * R + r) * kLanes;
        store(to, add ? load(to) + acc[r][v] : acc[r][v]);
      }
  }
};

void weights(const PlanarWeightsArgs& g) {
  const int most = vectors_of(g.rows);
  const int64_t tiles = (g.terms + most - 1) / most;
  int64_t t = 0;
  for (int64_t i = 0; i < tiles; ++i) {
    const int count = (int)(g.terms / tiles + (i < g.terms % tiles));
    call_tile<WeightsTile>(g.rows, count, &g, g.offsets + t, g.sums + t * g.rows * kLanes);
    t += count;
  }
}

void add_lanes(int64_t count, const float* sums, float* to) {
  for (int64_t i = 0; i < count; i += kLanes, sums += kLanes * kLanes) {
    const int n = count - i < kLanes ? (int)(count - i) : kLanes;
    f32v v[kLanes];
    for (int j = 0; j < kLanes; ++j) v[j] = j < n ? load(sums + j * kLanes) : zero();
    transpose(v);
#pragma GCC unroll 4
    for (int half = kLanes / 2; half > 0; half /= 2)
#pragma GCC unroll 8
      for (int j = 0; j < half; ++j) v[j] = v[j] + v[j + half];
    n == kLanes ? store(to + i, v[0]) : store_partial(to + i, v[0], n);
  }
}

#if WL_VECTOR_BYTES == 64
#define WL_TILE_NAME "pixels x16"
#elif WL_VECTOR_BYTES == 32
#define WL_TILE_NAME "pixels x8"
#else
#define WL_TILE_NAME "pixels x4"
#endif

}  // namespace

extern const PlanarKernels planar;
const PlanarKernels planar = {kLanes, kRows, WL_TILE_NAME, to_planes, run, weights, add_lanes};

}  // namespace WL_ISA
}  // namespace wl
