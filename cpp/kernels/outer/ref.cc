#include "kernels/outer/outer.h"

namespace wl {
namespace ref {
namespace {

void tile(const OuterTile& t, const OuterRun* runs, int m, int n, float* c, bool add) {
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      float sum = 0;
      for (int64_t r = 0; r < t.runs; ++r)
        for (int64_t p = 0; p < t.count; ++p) sum += runs[r].a[t.a_offset + p * t.a_step + i] * runs[r].b[p * t.b_step + j];
      c[i * t.ldc + j] = add ? c[i * t.ldc + j] + sum : sum;
    }
}

void pack(int64_t pixels, int n, int width, const float* from, int64_t step, float* to, int64_t to_step) {
  for (int64_t p = 0; p < pixels; ++p)
    for (int j = 0; j < width; ++j) to[p * to_step + j] = j < n ? from[p * step + j] : 0;
}

void add(int64_t count, const float* x, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] += x[i];
}

}  // namespace

extern const OuterKernels outer;
const OuterKernels outer = {2, 4, 4, tile, pack, add};

}  // namespace ref
}  // namespace wl
