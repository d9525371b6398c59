// The product as brgemm.h defines it, one element at a time.
#include "kernels/brgemm/brgemm.h"
#include "simd/activation.h"

namespace wl {
namespace WL_ISA {
namespace {

constexpr int kWidth = 8;

// One chain of multiply-adds, cut every kBrgemmFlush terms.
struct Chain {
  float total, part = 0;
  int64_t terms = 0;
  explicit Chain(float start) : total(start) {}
  void room_for(int64_t more) {
    if (terms + more <= kBrgemmFlush) return;
    total = total + part;
    part = 0, terms = 0;
  }
  template <class Term>  // Term(p) adds term p to `part`
  void add(int64_t k, Term term) {
    for (int64_t p = 0; p < k; ++p) {
      if (p % kBrgemmFlush == 0) room_for(k - p < kBrgemmFlush ? k - p : kBrgemmFlush);
      part = term(p, part);
      ++terms;
    }
  }
};

float finish(const BrgemmOutput& out, int64_t r, int64_t j, const Chain& chain) {
  float v = chain.total + chain.part;
  if (out.bias) v = v + out.bias[j];
  if (out.residual) v = v + out.residual[r][out.c_offset + j];
  f32v x{};
  x[0] = v;
  return unary_apply(out.activation, x, set1(out.alpha), set1(out.beta))[0];
}

void run(const BrgemmArgs& g) {
  for (int64_t r = 0; r < g.m; ++r)
    for (int64_t j = 0; j < g.n; ++j) {
      float* c = g.out.c[r] + g.out.c_offset + j;
      Chain chain(g.out.accumulate ? *c : 0.0f);
      const float* b = g.b + j / kWidth * g.b_panel + j % kWidth;
      for (int64_t t = 0; t < g.taps; ++t) {
        const float* a = g.a[t * g.a_rows + r] + g.a_offset;
        chain.add(g.k, [&](int64_t p, float part) { return part + a[p] * b[(t * g.k + p) * g.b_stride]; });
      }
      *c = finish(g.out, r, j, chain);
    }
}

void run_transposed(const BrgemmTransposedArgs& g) {
  for (int64_t r = 0; r < g.m; ++r)
    for (int64_t j = 0; j < g.n; ++j) {
      float* c = g.out.c[r] + g.out.c_offset + j;
      Chain chain(g.out.accumulate ? *c : 0.0f);
      for (int64_t s = 0; s < g.count; ++s) {
        const float* a = g.segments[s].a + r;
        const float* b = g.segments[s].b + j / kWidth * g.b_panel + j % kWidth;
        chain.add(g.segments[s].k, [&](int64_t p, float part) { return part + a[p * g.a_stride] * b[p * g.b_stride]; });
      }
      *c = finish(g.out, r, j, chain);
    }
}

template <class Element>
void pack_elements(const BrgemmPackArgs& g, Element element) {
  const int64_t columns = (g.n + g.width - 1) / g.width * g.width;
  for (int64_t j = 0; j < columns; ++j)
    for (int64_t p = 0; p < g.k; ++p) g.dst[j / g.width * g.panel + p * g.width + j % g.width] = j < g.n ? element(p, j) : 0.0f;
}
void pack(const BrgemmPackArgs& g) {
  pack_elements(g, [&](int64_t p, int64_t j) { return g.src[p * g.stride + j]; });
}
void pack_transposed(const BrgemmPackArgs& g) {
  pack_elements(g, [&](int64_t p, int64_t j) { return g.src[j * g.stride + p]; });
}

}  // namespace

extern const BrgemmKernels brgemm;
const BrgemmKernels brgemm = {kWidth, kWidth, 1, "ref", run, run_transposed, pack, pack_transposed};

}  // namespace WL_ISA
}  // namespace wl
