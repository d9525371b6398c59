#include "kernels/outer/outer.h"

#include "simd/simd.h"

namespace wl {
namespace WL_ISA {
namespace {

// Accumulators, the vectors of b and one broadcast fit the registers: 32 of them, or 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 14, kRowsThin = 14;
#else
constexpr int kRows = 6, kRowsThin = 12;
#endif

// Rows whose numbers are operands of the multiply-adds themselves: see brgemm.cc.
template <int mr, int nv>
constexpr int kOperands = !kBroadcastOperands ? 0
                          : nv == 1           ? mr
                                              : mr / 3;

constexpr int64_t kPixelsAhead = 12;

template <int mr, int nv>
void tile_of(const OuterTile& t, const OuterRun* runs, int n, float* __restrict c, bool add) {
  f32v sum[mr][nv] = {};
  const char* ahead = t.ahead.step ? t.ahead.at : reinterpret_cast<const char*>(c);  // no branch inside: c is near anyway
  // Rows of `a` lie far apart: no hardware prefetcher follows them. Runs shorter than what is asked for ahead ask for a later run. The very
  // last ask for nothing: past the end there may be pages that nobody has touched, and processors look for such a page anew each time, for
  // hundreds of cycles.
  const int64_t runs_ahead = t.runs > 1 && t.count < kPixelsAhead ? kPixelsAhead / t.count : 0;
  for (int64_t r = 0; r < t.runs; ++r) {
    const float* a = runs[r].a + t.a_offset;
    const float* b = runs[r].b;
    const int64_t ahead_of_a = runs_ahead == 0 ? kPixelsAhead * t.a_step : r + runs_ahead < t.runs ? runs[r + runs_ahead].a - runs[r].a : 0;
    const int64_t asking = runs_ahead > 0 || r + 1 < t.runs ? t.count : t.count - kPixelsAhead;
    int64_t p = 0;
    for (int last = 0; last < 2; ++last) {
      const int64_t far = last ? 0 : ahead_of_a, end = last ? t.count : asking;
#pragma GCC unroll 2
      for (; p < end; ++p) {
        __builtin_prefetch(a + far);
        __builtin_prefetch(a + far + mr - 1);
        __builtin_prefetch(ahead, 0, 2);
        f32v row[nv];
#pragma GCC unroll 2
        for (int v = 0; v < nv; ++v) row[v] = load(b + v * kLanes);
#pragma GCC unroll 16
        for (int i = 0; i < kOperands<mr, nv>; ++i)
#pragma GCC unroll 2
          for (int v = 0; v < nv; ++v) accumulate_at(sum[i][v], a + i, row[v]);
#pragma GCC unroll 16
        for (int i = kOperands<mr, nv>; i < mr; ++i) {
          const f32v value = set1(a[i]);
#pragma GCC unroll 2
          for (int v = 0; v < nv; ++v) accumulate(sum[i][v], value, row[v]);
        }
        a += t.a_step;
        b += t.b_step;
        ahead += t.ahead.step;
      }
    }
  }
  const int tail = n - (nv - 1) * kLanes;  // columns of the last vector
#pragma GCC unroll 16
  for (int i = 0; i < mr; ++i) {
    float* row = c + i * t.ldc;
    if (nv == 2) store(row, add ? load(row) + sum[i][0] : sum[i][0]);
    float* last = row + (nv - 1) * kLanes;
    if (tail == kLanes)
      store(last, add ? load(last) + sum[i][nv - 1] : sum[i][nv - 1]);
    else
      store_partial(last, add ? load_partial(last, tail) + sum[i][nv - 1] : sum[i][nv - 1], tail);
  }
}

using TileOf = void (*)(const OuterTile&, const OuterRun*, int, float*, bool);

constexpr TileOf kWide[] = {
    tile_of<1, 2>, tile_of<2, 2>, tile_of<3, 2>, tile_of<4, 2>,  tile_of<5, 2>,  tile_of<6, 2>,
#if defined(__AVX512F__) || defined(__aarch64__)
    tile_of<7, 2>, tile_of<8, 2>, tile_of<9, 2>, tile_of<10, 2>, tile_of<11, 2>, tile_of<12, 2>, tile_of<13, 2>, tile_of<14, 2>,
#endif
};
constexpr TileOf kThin[] = {
    tile_of<1, 1>,  tile_of<2, 1>,  tile_of<3, 1>, tile_of<4, 1>,  tile_of<5, 1>,  tile_of<6, 1>,
    tile_of<7, 1>,  tile_of<8, 1>,  tile_of<9, 1>, tile_of<10, 1>, tile_of<11, 1>, tile_of<12, 1>,
#if defined(__AVX512F__) || defined(__aarch64__)
    tile_of<13, 1>, tile_of<14, 1>,
#endif
};
static_assert(sizeof kWide / sizeof kWide[0] == kRows && sizeof kThin / sizeof kThin[0] == kRowsThin, "a function for every height");

void tile(const OuterTile& t, const OuterRun* runs, int m, int n, float* c, bool add) {
  (n > kLanes ? kWide : kThin)[m - 1](t, runs, n, c, add);
}

void pack(int64_t pixels, int n, int width, const float* from, int64_t step, float* to, int64_t to_step) {
  for (int64_t p = 0; p < pixels; ++p, from += step, to += to_step) {
    int j = 0;
    for (; j + kLanes <= n; j += kLanes) store(to + j, load(from + j));
    if (j < n) {
      const f32v last = load_partial(from + j, n - j);
      if (j + kLanes <= width)
        store(to + j, last);
      else
        store_partial(to + j, last, width - j);
      j += kLanes;
    }
    for (; j < width; ++j) to[j] = 0;
  }
}

void add(int64_t count, const float* x, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(y + i, load(y + i) + load(x + i));
  if (i < count) store_partial(y + i, load_partial(y + i, (int)(count - i)) + load_partial(x + i, (int)(count - i)), (int)(count - i));
}

}  // namespace

extern const OuterKernels outer;
const OuterKernels outer = {2 * kLanes, kRows, kRowsThin, tile, pack, add};

}  // namespace WL_ISA
}  // namespace wl
