// See dense.h. A block of B, some rows by one or two vectors of columns, is held in registers while all rows of A pass by: each loads its
// part of the sum, adds the block's products and stores it. The parts lie in the first cache levels; B streams.
#include "kernels/dense/dense.h"

#include "simd/activation.h"
#include "simd/transpose.h"

namespace wl {
namespace WL_ISA {
namespace {

constexpr int kDepth = kRegisters == 32 ? 8 : 4;   // two registers of B each
constexpr int kChains = kRegisters == 32 ? 8 : 6;  // registers of sums
constexpr int kWidth = 2 * kLanes;

// Rows of A lie in scratch in pieces of kDepth terms: term p of row r is at packed_at(g, p)[r * kDepth].
float* packed_at(const DenseArgs& g, int64_t p) {
  return g.scratch + dense_part(g.m, g.n, kWidth) + p / kDepth * kDepth * g.m + p % kDepth;
}
void pack_rows(const DenseArgs& g) {
  for (int64_t p = 0; p < g.k; p += kDepth) {
    float* to = packed_at(g, p);
    const int64_t terms = g.k - p < kDepth ? g.k - p : kDepth;
    for (int64_t r = 0; r < g.m; ++r, to += kDepth)
      for (int64_t q = 0; q < terms; ++q) to[q] = g.a[r * g.a_stride + p + q];
  }
}

// part[r][v] += Σ_{q < depth} a_r[q] * w[q][v] for `rows` rows: as many chains
// as keep the multiply-adders busy.
template <int rows, int depth, int vectors>
WL_INLINE void add_products(const f32v (&w)[depth][vectors], const float* __restrict a, float* __restrict part, bool first) {
  f32v acc[rows][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) acc[r][v] = first ? zero() : load(part + r * kWidth + v * kLanes);
#pragma GCC unroll 8
  for (int q = 0; q < depth; ++q)
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const f32v value = set1(a[r * kDepth + q]);
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) acc[r][v] = fma(value, w[q][v], acc[r][v]);
    }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) store(part + r * kWidth + v * kLanes, acc[r][v]);
}

// The same for all m rows of A, whose terms begin at `a`.
template <int depth, int vectors>
WL_INLINE void add_rows(const f32v (&w)[depth][vectors], int64_t m, const float* a, float* part, bool first) {
  constexpr int rows = kChains / vectors;
  int64_t r = 0;
  for (; r + rows <= m; r += rows, a += rows * kDepth, part += rows * kWidth) add_products<rows>(w, a, part, first);
  for (; r < m; ++r, a += kDepth, part += kWidth) add_products<1>(w, a, part, first);
}

// A block of B as it lies: two vectors of columns or, at the end of a row of B, as many lanes as there are. Rows of B `more` elements on
// are fetched meanwhile.
template <int depth, int vectors, bool tail>
WL_INLINE void add_block(const DenseArgs& g, const float* a, const float* b, int lanes, int64_t more, float* part, bool first) {
  f32v w[depth][vectors];
#pragma GCC unroll 8
  for (int q = 0; q < depth; ++q, b += g.b_stride)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      w[q][v] = tail && v == vectors - 1 ? load_partial(b + v * kLanes, lanes) : load(b + v * kLanes);
      if (v * kLanes % 16 == 0) __builtin_prefetch(b + v * kLanes + more, 0, 2);
    }
  add_rows(w, g.m, a, part, first);
}

// All columns for `depth` rows of B.
template <int depth>
__attribute__((noinline)) void add_strip(const DenseArgs& g, int64_t p, bool first, int64_t more) {
  const float* a = packed_at(g, p);
  const float* b = g.b + p * g.b_stride;
  float* part = g.scratch;
  int64_t column = 0;
  for (; column + kWidth <= g.n; column += kWidth, part += g.m * kWidth) add_block<depth, 2, false>(g, a, b + column, 0, more, part, first);
  const int64_t left = g.n - column;
  if (left > kLanes)
    add_block<depth, 2, true>(g, a, b + column, (int)(left - kLanes), more, part, first);
  else if (left == kLanes)
    add_block<depth, 1, false>(g, a, b + column, 0, more, part, first);
  else if (left > 0)
    add_block<depth, 1, true>(g, a, b + column, (int)left, more, part, first);
}

// c = (add ? c : 0) + part, columns [column, end)
void move_parts(const DenseArgs& g, int64_t column, int64_t end, bool add) {
  const float* part = g.scratch;
  for (; column < end; column += kWidth)
    for (int64_t r = 0; r < g.m; ++r, part += kWidth) {
      float* c = g.c[r] + column;
      const int64_t n = end - column < kWidth ? end - column : kWidth;
      int64_t j = 0;
      for (; j + kLanes <= n; j += kLanes) store(c + j, add ? load(c + j) + load(part + j) : load(part + j));
      if (j < n) {
        const int left = (int)(n - j);
        store_partial(c + j, add ? load_partial(c + j, left) + load(part + j) : load(part + j), left);
      }
    }
}

void run(const DenseArgs& g) {
  pack_rows(g);
  for (int64_t begin = 0; begin < g.k || begin == 0; begin += kBrgemmFlush) {
    const int64_t end = g.k - begin < kBrgemmFlush ? g.k : begin + kBrgemmFlush;
    int64_t p = begin;
    for (; p + kDepth <= end; p += kDepth) add_strip<kDepth>(g, p, p == begin, p + 2 * kDepth <= g.k ? kDepth * g.b_stride : 0);
    for (; p < end; ++p) add_strip<1>(g, p, p == begin, 0);
    move_parts(g, 0, g.n, g.accumulate || begin > 0);
  }
}

// Squares of Bᵀ are turned in registers, one row of squares after the other.
void run_transposed(const DenseArgs& g) {
  constexpr int64_t kAhead = 64;
  constexpr int depth = kLanes < kDepth ? kLanes : kDepth;
  pack_rows(g);
  for (int64_t column = 0; column < g.n; column += kLanes) {
    const int64_t columns = g.n - column < kLanes ? g.n - column : kLanes;
    const float* b = g.b + column * g.b_stride;
    for (int64_t p = 0; p < g.k || p == 0; p += kLanes) {
      const int64_t terms = g.k - p < kLanes ? g.k - p : kLanes;
      bool first = p % kBrgemmFlush == 0;
      f32v w[kLanes];
      if (columns == kLanes && terms == kLanes) {
        const float* row = b + p;
        const int64_t ahead = p + kAhead < g.k ? kAhead : 0;
#pragma GCC unroll 16
        for (int j = 0; j < kLanes; ++j, row += g.b_stride) {
          w[j] = load(row);
          __builtin_prefetch(row + ahead, 0, 2);
        }
      } else {
        for (int j = 0; j < kLanes; ++j) {
          const float* row = b + j * g.b_stride + p;
          w[j] = j >= columns || terms == 0 ? zero() : terms == kLanes ? load(row) : load_partial(row, (int)terms);
        }
      }
      transpose(w);
      int q = 0;
#pragma GCC unroll 4
      for (; q + depth <= terms; q += depth, first = false) {
        f32v block[depth][1];
#pragma GCC unroll 8
        for (int i = 0; i < depth; ++i) block[i][0] = w[q + i];
        add_rows(block, g.m, packed_at(g, p + q), g.scratch, first);
      }
      for (; q < terms; ++q, first = false) {
        const f32v block[1][1] = {{w[q]}};
        add_rows(block, g.m, packed_at(g, p + q), g.scratch, first);
      }
      const int64_t end = p + terms;
      if (end == g.k || end % kBrgemmFlush == 0) move_parts(g, column, column + columns, g.accumulate || end > kBrgemmFlush);
    }
  }
}

void finish(int64_t m, int64_t n, const BrgemmOutput& out) {
  const f32v alpha = set1(out.alpha), beta = set1(out.beta);
  for (int64_t r = 0; r < m; ++r) {
    float* c = out.c[r] + out.c_offset;
    int64_t j = 0;
    for (; j + kLanes <= n; j += kLanes)
      store(c + j, unary_apply(out.activation, out.bias ? load(c + j) + load(out.bias + j) : load(c + j), alpha, beta));
    if (j < n) {
      const int left = (int)(n - j);
      f32v v = load_partial(c + j, left);
      if (out.bias) v = v + load_partial(out.bias + j, left);
      store_partial(c + j, unary_apply(out.activation, v, alpha, beta), left);
    }
  }
}

}  // namespace

extern const DenseKernels dense;
const DenseKernels dense = {kWidth, run, run_transposed, finish};

}  // namespace WL_ISA
}  // namespace wl
