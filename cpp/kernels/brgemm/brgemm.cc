// The register-tiled product on vectors, see brgemm.h. One source for every ISA: the tile shape follows the number of registers.
//
// A tile holds MR x NV accumulators; per step of k it loads NV vectors of B and broadcasts MR values of A. 12x2 (32 registers) and 6x2 (16
// registers) reach 91-100 % of the multiply-add peak while B comes from the first two cache levels. Where the sum is short, or there are
// few rows, 6x4 is better with 32 registers: fewer passes over A and enough independent chains. Three vectors of columns have a tile of
// their own, since what is left of 12x2 and 6x2, one vector, broadcasts as often as it multiplies.
//
// Around a short sum everything else takes as long as the sum does: see tile_row() and docs/decisions/0013-around-a-short-sum.md.
#include "kernels/brgemm/brgemm.h"

#include "base/align.h"
#include "simd/activation.h"
#include "simd/transpose.h"

namespace wl {
namespace WL_ISA {
namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 12, kThreeRows = 8, kWideRows = 6;  // 32 registers
#define WL_TILE_ROWS "12x"
#else
constexpr int kRows = 6, kThreeRows = 4, kWideRows = 0;  // 16 registers: no wide tile
#define WL_TILE_ROWS "6x"
#endif
constexpr int kNarrowRows = 12;        // one vector of columns
constexpr int kWideTerms = 192;        // up to so many terms the wide tile is faster
constexpr int kPrefetch = 32;          // rows of B ahead, where it is fetched
constexpr int kNearBytes = 512 << 10;  // of B, that stay in the second cache level between rows of tiles
constexpr int kWidth = 2 * kLanes;     // columns of a panel

// One tile of the output: rows [row, row + MR), columns [column, column + columns) with columns <= NV * kLanes.
struct Place {
  int64_t row, column, columns;
};

// --- the sum -------------------------------------------------------------------------------------------------------------------------

// Rows of a tile whose numbers are operands of the multiply-adds themselves. Where two threads share a core's decoders, instructions bind
// and not multiply-adds; but each such operand is a load for every vector of B, and loads bind next.
template <int MR, int NV>
constexpr int kOperands = !kBroadcastOperands  ? 0
                          : NV == 1            ? MR
                          : NV == 2 && MR >= 8 ? 4
                                               : 0;

// What a tile asks for while it computes: B's rows `ahead` of it, where they may lie in no cache of the core; a stream, which steps once
// for every two terms; nothing. General registers are short (12 row pointers, b and the index are nearly all), so it is one of them.
enum class Fetch { b, stream, nothing };

// acc[r][v] += a_r * b[v], where a_r is operand[r][i] in the first rows and a[r][p] in the others. Vectors v >= 2 lie in the next panel.
template <int MR, int NV, Fetch kFetch>
WL_INLINE void add_term(f32v (&acc)[MR][NV], const float* const (&a)[MR], int64_t p, const float* const (&operand)[MR], int64_t i,
                        const float* b, int64_t b_panel, int64_t ahead) {
  f32v bv[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) bv[v] = load(v < 2 ? b + v * kLanes : b + b_panel + (v - 2) * kLanes);
  if constexpr (kFetch == Fetch::b) {
#pragma GCC unroll 4
    for (int byte = 0; byte < (NV < 2 ? NV : 2) * WL_VECTOR_BYTES; byte += kCacheLine)
      __builtin_prefetch(reinterpret_cast<const char*>(b + ahead) + byte);
  }
#pragma GCC unroll 12
  for (int r = 0; r < kOperands<MR, NV>; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) accumulate_at(acc[r][v], operand[r] + i, bv[v]);
#pragma GCC unroll 12
  for (int r = kOperands<MR, NV>; r < MR; ++r) {
    const f32v av = set1(a[r][p]);
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) accumulate(acc[r][v], av, bv[v]);
  }
}

// acc[r][v] += Σ_{begin <= p < end} a_r[p] * b[p - begin][v].
template <int MR, int NV, Fetch kFetch>
WL_INLINE void add_rows(f32v (&acc)[MR][NV], const float* const (&a)[MR], int64_t begin, int64_t end, const float* b, int64_t b_stride,
                        int64_t b_panel, int64_t ahead, Stream& stream) {
  const int64_t stride = NV == 1 ? b_stride : kWidth;
  const char* at = stream.at;
  const float* operand[MR];
#pragma GCC unroll 12
  for (int r = 0; r < kOperands<MR, NV>; ++r) operand[r] = a[r] + begin;
  int64_t p = begin;
  for (const int64_t last = end - 3; p < last; p += 4, b += 4 * stride) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      add_term<MR, NV, kFetch>(acc, a, p + i, operand, i, b + i * stride, b_panel, ahead);
      if (kFetch == Fetch::stream && i % 2) {
        __builtin_prefetch(at, 0, 2);
        at += stream.step;
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < kOperands<MR, NV>; ++r) {
      operand[r] += 4;
      asm("" : "+r"(operand[r]));  // else the compiler makes an index of it
    }
  }
  stream.at = at;
#pragma GCC unroll 1  // else the compiler unrolls it, and moves the accumulators about for that
  for (; p < end; ++p, b += stride) add_term<MR, NV, kFetch>(acc, a, p, a, p, b, b_panel, ahead);
}

// The same with a_r[p] = a[p * a_stride + r].
template <int MR, int NV, Fetch kFetch>
WL_INLINE void add_columns(f32v (&acc)[MR][NV], const float* a, int64_t a_stride, int64_t k, const float* b, int64_t b_stride,
                           int64_t b_panel, int64_t ahead) {
  const int64_t stride = NV == 1 ? b_stride : kWidth;
  const auto add = [&]() __attribute__((always_inline)) {
    const float* at[MR];
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) at[r] = a + r;
    add_term<MR, NV, kFetch>(acc, at, 0, at, 0, b, b_panel, ahead);
    a += a_stride, b += stride;
  };
  for (; k >= 2; k -= 2) add(), add();
  if (k) add();
}

// The same address, of which the compiler knows nothing, nor of what else lies in memory: else it takes the array apart into registers that
// the loops need, and loads before them what is used after them.
WL_INLINE f32v* in_memory(f32v* p) {
  asm volatile("" : "+r"(p) : : "memory");
  return p;
}

// The pointers of a tile's rows, from the first on. Opaque too, so that a tile's r-th is at a constant from one register.
template <class T>
WL_INLINE T* const* rows_at(T* const* rows, int64_t row) {
  rows += row;
  asm("" : "+r"(rows));
  return rows;
}

template <int MR, int NV>
WL_INLINE void add_total(f32v (&acc)[MR][NV], const f32v* total) {
#pragma GCC unroll 12
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = total[r * NV + v] + acc[r][v];
}

// Adds one tap or segment of k terms to the sums, moving them out of the registers every kBrgemmFlush terms: `add` takes terms [begin, end)
// and how many rows of B may be asked for ahead. After the k rows, `follow` more may.
template <int MR, int NV, class Add>
WL_INLINE void add_terms(f32v (&acc)[MR][NV], f32v* total, bool& flushed, int64_t& terms, int64_t k, int64_t follow, Add add) {
  for (int64_t p = 0; p < k;) {
    const int64_t piece = k - p < kBrgemmFlush ? k - p : kBrgemmFlush;
    if (terms + piece > kBrgemmFlush) {
      if (flushed) add_total<MR, NV>(acc, total);
#pragma GCC unroll 12
      for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
          total[r * NV + v] = acc[r][v];
          acc[r][v] = zero();
        }
      flushed = true;
      terms = 0;
    }
    const int64_t left = k - p - piece + follow;
    add(p, p + piece, left < kPrefetch ? left : kPrefetch);
    terms += piece;
    p += piece;
  }
}

// --- the way in and out --------------------------------------------------------------------------------------------------------------

WL_INLINE f32v load_columns(const float* p, int64_t n) {
  return n >= kLanes ? load(p) : load_partial(p, (int)n);
}
WL_INLINE void store_columns(float* p, f32v v, int64_t n) {
  if (n >= kLanes)
    store(p, v);
  else
    store_partial(p, v, (int)n);
}

// total[r * vectors + v] = what c holds. Columns past the last are zero.
__attribute__((noinline)) void load_output(f32v* total, const BrgemmOutput& out, const Place& at, int rows, int vectors) {
  for (int r = 0; r < rows; ++r) {
    const float* c = out.c[at.row + r] + out.c_offset + at.column;
    for (int v = 0; v < vectors; ++v) {
      const int64_t n = at.columns - v * kLanes;
      total[r * vectors + v] = n > 0 ? load_columns(c + v * kLanes, n) : zero();
    }
  }
}

// The general way out: any columns and activation.
__attribute__((noinline)) void store_output(const f32v* sum, const BrgemmOutput& out, const Place& at, int rows, int vectors) {
  const f32v alpha = set1(out.alpha), beta = set1(out.beta);
  for (int v = 0; v < vectors; ++v) {
    const int64_t n = at.columns - v * kLanes, column = at.column + v * kLanes;
    if (n <= 0) break;
    const f32v bias = out.bias ? load_columns(out.bias + column, n) : zero();
    for (int r = 0; r < rows; ++r) {
      f32v y = sum[r * vectors + v];
      if (out.bias) y = y + bias;
      if (out.residual) y = y + load_columns(out.residual[at.row + r] + out.c_offset + column, n);
      store_columns(out.c[at.row + r] + out.c_offset + column, unary_apply(out.activation, y, alpha, beta), n);
    }
  }
}

// Whether finish() can take a tile of whole vectors straight from the registers.
WL_INLINE bool is_plain(const BrgemmOutput& out) {
  return out.activation == UnaryKind::none || is_clip(out.activation);
}

// The frequent way out of whole vectors.
template <int MR, int NV>
WL_INLINE void finish(f32v (&acc)[MR][NV], const BrgemmOutput& out, int64_t row, int64_t column) {
  if (out.bias) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const f32v bias = load(out.bias + column + v * kLanes);
#pragma GCC unroll 12
      for (int r = 0; r < MR; ++r) acc[r][v] = acc[r][v] + bias;
    }
  }
  const int64_t offset = out.c_offset + column;
  if (out.residual) {
    const float* const* residual = rows_at(out.residual, row);
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = acc[r][v] + load(residual[r] + offset + v * kLanes);
  }
  if (out.activation != UnaryKind::none) {
    const Clip bounds = clip_of(out.activation);
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = clip(acc[r][v], bounds);
  }
  float* const* rows = rows_at(out.c, row);
#pragma GCC unroll 12
  for (int r = 0; r < MR; ++r) {
    float* c = rows[r] + offset;
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) store(c + v * kLanes, acc[r][v]);
  }
}

// The way out that a tile needs; `memory` has room for it.
template <int MR, int NV, bool kPlain>
WL_INLINE void leave(f32v (&acc)[MR][NV], f32v* memory, const BrgemmOutput& out, int64_t row, int64_t column, int64_t columns) {
  if (kPlain || (columns == NV * kLanes && is_plain(out))) return finish<MR, NV>(acc, out, row, column);
#pragma GCC unroll 12
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) memory[r * NV + v] = acc[r][v];
  store_output(memory, out, {row, column, columns}, MR, NV);
}

// The lines that a tile will write are on their way while its sums are made.
template <int MR, int NV>
WL_INLINE void fetch_output(const BrgemmOutput& out, int64_t row, int64_t column) {
  float* const* rows = rows_at(out.c, row);
  const int64_t offset = out.c_offset + column;
#pragma GCC unroll 12
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int byte = 0; byte < NV * WL_VECTOR_BYTES; byte += kCacheLine)
      __builtin_prefetch(reinterpret_cast<const char*>(rows[r] + offset) + byte, 1);
}

// --- tiles ---------------------------------------------------------------------------------------------------------------------------

// A row of tiles, from `column` to `end`: its functions take all tiles of a width, so that those of short sums share what they need before
// and after them. kPlain: one tap, nothing to add to, and a way out that is_plain(); then pointers to rows stay in registers as well.
template <int MR, int NV, Fetch kFetch, bool kPlain>
__attribute__((noinline)) void tile_row(const BrgemmArgs& g, int64_t row, int64_t column, int64_t end, Streams& streams, int64_t steps) {
  const float* a[MR];
  if (kPlain) {
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) a[r] = g.a[row + r] + g.a_offset;
  }
  f32v memory[MR * NV];
  const int64_t k = g.k, b_stride = NV == 1 ? g.b_stride : kWidth, b_panel = g.b_panel;
  const float* panel = g.b + column / kWidth * b_panel;
  for (; column < end; column += NV * kLanes, panel += NV / 2 * b_panel) {
    const int64_t columns = kPlain || end - column > NV * kLanes ? NV * kLanes : end - column;
    fetch_output<MR, NV>(g.out, row, column);
    Stream stream = kFetch == Fetch::stream ? streams.next(steps) : Stream{};
    f32v acc[MR][NV] = {};
    f32v* total = in_memory(memory);
    bool flushed = !kPlain && g.out.accumulate;
    if (flushed) load_output(total, g.out, {row, column, columns}, MR, NV);
    int64_t terms = 0;
    const float* const* rows = g.a + row;
    const float* b = panel;
    for (int64_t t = 0; t < (kPlain ? 1 : g.taps); ++t, rows += g.a_rows, b += k * b_stride) {
      if (!kPlain) {
#pragma GCC unroll 12
        for (int r = 0; r < MR; ++r) a[r] = rows[r] + g.a_offset;
      }
      const int64_t follow = column + columns < g.n ? kPrefetch : (g.taps - 1 - t) * k;
      add_terms<MR, NV>(
          acc, total, flushed, terms, k, follow, [&](int64_t begin, int64_t end, int64_t ahead) __attribute__((always_inline)) {
            add_rows<MR, NV, kFetch>(acc, a, begin, end, b + begin * b_stride, b_stride, b_panel, ahead * b_stride, stream);
          });
    }
    if (flushed) add_total<MR, NV>(acc, total);
    leave<MR, NV, kPlain>(acc, total, g.out, row, column, columns);
  }
}

// Never plain: its sums have several segments, and mostly something to add to.
template <int MR, int NV, Fetch kFetch, bool>
__attribute__((noinline)) void tile_row(const BrgemmTransposedArgs& g, int64_t row, int64_t column, int64_t end, Streams&, int64_t) {
  f32v memory[MR * NV];
  for (; column < end; column += NV * kLanes) {
    const int64_t columns = end - column > NV * kLanes ? NV * kLanes : end - column;
    fetch_output<MR, NV>(g.out, row, column);
    f32v acc[MR][NV] = {};
    f32v* total = in_memory(memory);
    bool flushed = g.out.accumulate;
    if (flushed) load_output(total, g.out, {row, column, columns}, MR, NV);
    int64_t terms = 0;
    for (int64_t s = 0; s < g.count; ++s) {
      const BrgemmSegment& segment = g.segments[s];
      const float *a = segment.a + row, *b = segment.b + column / kWidth * g.b_panel;
      add_terms<MR, NV>(
          acc, total, flushed, terms, segment.k, 0, [&](int64_t begin, int64_t end, int64_t ahead) __attribute__((always_inline)) {
            add_columns<MR, NV, kFetch>(acc, a + begin * g.a_stride, g.a_stride, end - begin, b + begin * g.b_stride, g.b_stride, g.b_panel,
                                        ahead * g.b_stride);
          });
    }
    if (flushed) add_total<MR, NV>(acc, total);
    leave<MR, NV, false>(acc, total, g.out, row, column, columns);
  }
}

// The most rows of a tile that is NV vectors wide.
constexpr int rows_of(int vectors) {
  return vectors == 1 ? kNarrowRows : vectors == 2 ? kRows : vectors == 3 ? kThreeRows : kWideRows;
}

WL_INLINE bool one_sum(const BrgemmArgs& g) {
  return g.taps == 1 && !g.out.accumulate;
}
WL_INLINE bool one_sum(const BrgemmTransposedArgs&) {
  return false;
}

// The functions of one width, by rows: full ones have one for a stream, large ones one for a B that is near, and of all these plain ones.
template <int NV, class Args>
WL_INLINE void run_row(const Args& g, int64_t row, int64_t column, int64_t end, int64_t rows, bool near, Streams& streams, int64_t steps) {
  constexpr int kMost = rows_of(NV);
  const bool plain = one_sum(g) && end - column >= NV * kLanes && is_plain(g.out);
  switch (rows) {
#define WL_ROWS(MR, FETCH)                                                                       \
  if constexpr (__is_same(Args, BrgemmArgs) && 3 * MR >= 2 * kMost)                              \
    if (plain) return tile_row<MR, NV, Fetch::FETCH, true>(g, row, column, end, streams, steps); \
  return tile_row<MR, NV, Fetch::FETCH, false>(g, row, column, end, streams, steps)
#define WL_TILES(MR)                                            \
  case MR:                                                      \
    if constexpr (MR == kMost && __is_same(Args, BrgemmArgs))   \
      if (near && streams.any()) {                              \
        WL_ROWS(MR, stream);                                    \
      }                                                         \
    if constexpr (NV > 1 && MR <= kMost && 3 * MR >= 2 * kMost) \
      if (near) {                                               \
        WL_ROWS(MR, nothing);                                   \
      }                                                         \
    if constexpr (MR <= kMost) {                                \
      WL_ROWS(MR, b);                                           \
    }                                                           \
    return;
    WL_TILES(1)
    WL_TILES(2) WL_TILES(3) WL_TILES(4) WL_TILES(5) WL_TILES(6) WL_TILES(7) WL_TILES(8) WL_TILES(9) WL_TILES(10) WL_TILES(11) WL_TILES(12)
#undef WL_TILES
#undef WL_ROWS
  }
}

// All tiles: rows in nearly equal tiles outside, panels inside.
template <class Args>
WL_INLINE void run_tiles(const Args& g, const Ahead (&ahead)[2], int64_t terms) {
  if (g.m <= 0 || g.n <= 0) return;
  const bool wide = kWideRows > 0 && g.n > 3 * kLanes && (terms <= kWideTerms || g.m <= kWideRows);
  const int64_t widest = wide ? 4 : g.n <= kLanes ? 1 : g.n > kWidth && g.n <= 3 * kLanes ? 3 : 2;
  const int64_t most = rows_of((int)widest);
  const int64_t tiles = (g.m + most - 1) / most, base = g.m / tiles, more = g.m % tiles;
  const int64_t steps = terms / 2;  // of a tile
  // B is near after the first row of tiles, and from the start for callers that have something else streamed: they use it over and over.
  const bool stays = terms * g.n * 4 <= kNearBytes, streamed = ahead[0].bytes + ahead[1].bytes > 0;
  Streams streams(ahead, tiles * div_up(g.n, widest * kLanes) * steps);
  int64_t row = 0;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t rows = base + (i < more);
    const bool near = stays && (i > 0 || streamed);
    for (int64_t column = 0, end; column < g.n; column = end) {
      const int64_t left = g.n - column, vectors = left < widest * kLanes ? div_up(left, kLanes) : widest;
      end = left < vectors * kLanes ? g.n : g.n - left % (vectors * kLanes);
      switch (vectors) {
        case 1: run_row<1>(g, row, column, end, rows, near, streams, steps); break;
        case 2: run_row<2>(g, row, column, end, rows, near, streams, steps); break;
        case 3: run_row<3>(g, row, column, end, rows, near, streams, steps); break;
        case 4: run_row<4>(g, row, column, end, rows, near, streams, steps); break;
      }
    }
    row += rows;
  }
}

void run(const BrgemmArgs& g) {
  run_tiles(g, g.ahead, g.taps * g.k);
}

void run_transposed(const BrgemmTransposedArgs& g) {
  int64_t terms = 0;
  for (int64_t s = 0; s < g.count; ++s) terms += g.segments[s].k;
  const Ahead none[2];
  run_tiles(g, none, terms);
}

// --- packing -------------------------------------------------------------------------------------------------------------------------

// A few rows at a time through all panels, so that long rows are read in long pieces; the rows after next are on their way meanwhile.
void pack(const BrgemmPackArgs& g) {
  constexpr int kTogether = 4;
  for (int64_t p = 0; p < g.k; p += kTogether) {
    const int rows = g.k - p < kTogether ? (int)(g.k - p) : kTogether;
    const int64_t ahead = p + 3 * kTogether <= g.k ? 2 * kTogether * g.stride : 0;
    for (int64_t column = 0; column < g.n; column += g.width) {
      const float* src = g.src + p * g.stride + column;
      float* dst = g.dst + column / g.width * g.panel + p * g.width;
      for (int r = 0; r < rows; ++r, src += g.stride)
        for (int64_t j = 0; j < g.width; j += kLanes, dst += kLanes) {
          const int64_t left = g.n - column - j;
          __builtin_prefetch(src + j + ahead);
          store(dst, left > 0 ? load_columns(src + j, left) : zero());
        }
    }
  }
}

void pack_transposed(const BrgemmPackArgs& g) {
  for (int64_t column = 0; column < round_up(g.n, g.width); column += kLanes) {
    const int64_t n = g.n - column < kLanes ? g.n - column : kLanes;  // rows of src that exist
    float* dst = g.dst + column / g.width * g.panel + column % g.width;
    for (int64_t p = 0; p < g.k; p += kLanes) {
      const int64_t k = g.k - p < kLanes ? g.k - p : kLanes;
      const float* src = g.src + column * g.stride + p;
      f32v v[kLanes];
      if (n == kLanes && k == kLanes) {
#pragma GCC unroll 16
        for (int j = 0; j < kLanes; ++j) v[j] = load(src + j * g.stride);
      } else {
        for (int j = 0; j < kLanes; ++j) v[j] = j < n ? load_columns(src + j * g.stride, k) : zero();
      }
      transpose(v);
      if (k == kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) store(dst + (p + i) * g.width, v[i]);
      } else {
        for (int i = 0; i < k; ++i) store(dst + (p + i) * g.width, v[i]);
      }
    }
  }
}

#if WL_VECTOR_BYTES == 64
#define WL_TILE_NAME WL_TILE_ROWS "32"
#elif WL_VECTOR_BYTES == 32
#define WL_TILE_NAME WL_TILE_ROWS "16"
#else
#define WL_TILE_NAME WL_TILE_ROWS "8"
#endif

}  // namespace

extern const BrgemmKernels brgemm;
const BrgemmKernels brgemm = {kLanes, kWidth, kRows, WL_TILE_NAME, run, run_transposed, pack, pack_transposed};

}  // namespace WL_ISA
}  // namespace wl
