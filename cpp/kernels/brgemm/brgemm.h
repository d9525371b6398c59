// The batch-reduce matrix product under convolution, dense layers and Winograd's products.
//
//   sum[r][j] = Σ_{t < taps} Σ_{p < k} A_t[r][p] * B_t[p][j]              r < m, j < n
//   c[r][j]   = activation(c_old[r][j] (if accumulate) + sum[r][j] + bias[j] + residual[r][j])
//
// Every sum[r][j] is one chain of multiply-adds over (t, p) in order, cut every kBrgemmFlush terms (never inside the chain of a tap of at
// most that length): the partial sums are added in order. So the bits of an element depend on its row of A, its column of B, taps and k
// alone, not on m, n, the tile it falls into, or (for pieces of k that are multiples of kBrgemmFlush and `accumulate`) on how k was cut.
//
// A caller must see to it that
//   - rows of A hold k readable floats; nothing else of A is touched;
//   - B comes in panels of `width` columns (pack() and pack_transposed() make them), whose rows are readable up to the end of the last
//   vector
//     that holds one of the n columns, i.e. up to round_up(n, lanes); what stands past column n is ignored but must be initialised;
//   - only the m x n rectangle of C is read (if accumulate) and written; bias and residual are read for n columns;
//   - C does not overlap A or B.
// Any of m, n, taps and k may be zero; without terms the sum is +0.
#pragma once
#include <stdint.h>

#include "kernels/ahead.h"
#include "ops/kinds.h"

namespace wl {

constexpr int64_t kBrgemmFlush = 128;

// Where the sums go.
struct BrgemmOutput {
  float* const* c = nullptr;               // m row pointers
  int64_t c_offset = 0;                    // elements added to every row pointer of c and residual
  bool accumulate = false;                 // start from what c holds
  const float* bias = nullptr;             // n values, or null
  const float* const* residual = nullptr;  // m row pointers, or null; may be c: then loaded at the end, where accumulate loads first
  UnaryKind activation = UnaryKind::none;
  float alpha = 0, beta = 0;
};

// A by row pointers, so that rows may lie anywhere: any stride, padding by pointing at zeros, tiles that span rows and pictures.
struct BrgemmArgs {
  int64_t m = 0, n = 0, taps = 1, k = 0;
  const float* const* a = nullptr;  // row r of tap t: a[t * a_rows + r] + a_offset
  int64_t a_rows = 0, a_offset = 0;
  const float* b = nullptr;           // column j of row p of tap t: b[(j / width) * b_panel + (t * k + p) * b_stride + j % width]
  int64_t b_stride = 0, b_panel = 0;  // b_stride is the width of the panels: kernels.width, or where n <= lanes also kernels.lanes
  BrgemmOutput out;
  Ahead ahead[2];  // brought nearer, evenly, while the product is computed
};

// A transposed, the sum in segments: A_s[r][p] = segments[s].a[p * a_stride + r], B_s[p][j] = segments[s].b[(j / width) * b_panel + p *
// b_stride + j % width]. The terms run over the segments in order (they take the place of taps, each with its own k).
struct BrgemmSegment {
  const float *a, *b;
  int64_t k;
};
struct BrgemmTransposedArgs {
  int64_t m = 0, n = 0, count = 0;
  const BrgemmSegment* segments = nullptr;
  int64_t a_stride = 0, b_stride = 0, b_panel = 0;
  BrgemmOutput out;
};

// Brings a k x n matrix into panels: dst[(j / width) * panel + p * width + j % width] = element (p, j), zeros for the columns from n to the
// end of the last panel.
struct BrgemmPackArgs {
  const float* src = nullptr;  // pack: element (p, j) is src[p * stride + j]; pack_transposed: src[j * stride + p]
  int64_t stride = 0, k = 0, n = 0;
  float* dst = nullptr;
  int64_t panel = 0, width = 0;  // width: kernels.width or kernels.lanes
};

struct BrgemmKernels {
  int lanes;         // columns of a vector, the width of narrow panels
  int width;         // columns of a panel; divides 32
  int rows;          // rows of a full tile
  const char* tile;  // for explain(): "12x32"
  void (*run)(const BrgemmArgs&);
  void (*run_transposed)(const BrgemmTransposedArgs&);
  void (*pack)(const BrgemmPackArgs&);
  void (*pack_transposed)(const BrgemmPackArgs&);

  // The width of the panels for n columns: narrow where one vector holds them all.
  int64_t panel_width(int64_t n) const { return n <= lanes ? lanes : width; }
};

}  // namespace wl
