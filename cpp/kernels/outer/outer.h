// Sums of outer products: the product under backward-weights. Where brgemm adds over channels with a pointer per output row, here the sum
// runs over pixels, and a tile's rows lie side by side at each pixel.
#pragma once
#include <stdint.h>

#include "kernels/ahead.h"

namespace wl {

// A run of `count` pixels: `a` and `b` point at the first of them.
struct OuterRun {
  const float* a;
  const float* b;
};

struct OuterTile {
  int64_t runs, count;     // pixels are those of all runs, each of `count`
  int64_t a_step, b_step;  // elements between the pixels of a run
  int64_t a_offset;        // added to every run's `a`
  int64_t ldc;
  Stream ahead;  // brought nearer meanwhile: a step per pixel
};

struct OuterKernels {
  int columns;          // of the widest tile: two vectors
  int rows, rows_thin;  // of the highest tile, when it is more than one vector wide, and when it is one

  // c[i*ldc + j] = (add ? c[i*ldc + j] : 0) + Σ_pixels a[i] * b[j] for i in [0, m), j in [0, n): 0 < m <= rows (rows_thin where n is at
  // most one vector), 0 < n <= columns. The products are added in one chain in the order of the runs, then to c. `b` is read in whole
  // vectors.
  void (*tile)(const OuterTile& tile, const OuterRun* runs, int m, int n, float* c, bool add);

  // to[p*to_step + j] = from[p*step + j] for j in [0, n), zero for j in [n, width).
  void (*pack)(int64_t pixels, int n, int width, const float* from, int64_t step, float* to, int64_t to_step);

  // y[i] += x[i]
  void (*add)(int64_t count, const float* x, float* y);
};

}  // namespace wl
