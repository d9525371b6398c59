// The product as dense.h defines it, one element at a time.
#include "kernels/dense/dense.h"
#include "simd/activation.h"

namespace wl {
namespace WL_ISA {
namespace {

template <class B>
void multiply(const DenseArgs& g, B b) {
  for (int64_t r = 0; r < g.m; ++r)
    for (int64_t j = 0; j < g.n; ++j) {
      float total = g.accumulate ? g.c[r][j] : 0.0f, part = 0;
      for (int64_t p = 0; p < g.k; ++p) {
        if (p > 0 && p % kBrgemmFlush == 0) total = total + part, part = 0;
        part = part + g.a[r * g.a_stride + p] * b(p, j);
      }
      g.c[r][j] = total + part;
    }
}
void run(const DenseArgs& g) {
  multiply(g, [&](int64_t p, int64_t j) { return g.b[p * g.b_stride + j]; });
}
void run_transposed(const DenseArgs& g) {
  multiply(g, [&](int64_t p, int64_t j) { return g.b[j * g.b_stride + p]; });
}

void finish(int64_t m, int64_t n, const BrgemmOutput& out) {
  for (int64_t r = 0; r < m; ++r)
    for (int64_t j = 0; j < n; ++j) {
      float* c = out.c[r] + out.c_offset + j;
      f32v x{};
      x[0] = out.bias ? *c + out.bias[j] : *c;
      *c = unary_apply(out.activation, x, set1(out.alpha), set1(out.beta))[0];
    }
}

}  // namespace

extern const DenseKernels dense;
const DenseKernels dense = {1, run, run_transposed, finish};

}  // namespace WL_ISA
}  // namespace wl
