// The brgemm family against plain loops: every tile shape, tail, epilogue and packing, on every ISA, inside guarded buffers.
#include "harness.h"
#include "kernels/brgemm/brgemm.h"

using namespace harness;
using wl::BrgemmKernels;
using wl::Kernels;

namespace {

struct Problem {
  int64_t m, n, taps, k;
  bool accumulate = false, bias = false, residual = false;
  wl::UnaryKind activation = wl::UnaryKind::none;
  bool exact = true;
};

double activate(wl::UnaryKind kind, double v, double alpha) {
  switch (kind) {
    case wl::UnaryKind::relu: return v > 0 ? v : 0;
    case wl::UnaryKind::leaky_relu: return v > 0 ? v : alpha * v;
    case wl::UnaryKind::sigmoid: return 1 / (1 + exp(-v));
    default: return v;
  }
}

template <class Buffer>
void fill(Buffer& b, Random& random, bool exact) {
  exact ? fill_integers(b, random) : fill_reals(b, random);
}

// B[t][p][j] in panels, every row exactly as wide as the contract demands: the last panel ends with the vector of the last column.
struct PackedB {
  std::vector<float> plain;
  int64_t width, panel;
  Guarded<float> data;
  PackedB(const BrgemmKernels& kernels, const Problem& g, Random& random)
      : plain(g.taps * g.k * g.n),
        width(kernels.panel_width(g.n)),
        panel(g.taps * g.k * width),
        data(wl::div_up(g.n, width) * panel, wl::kCacheLine) {
    fill(plain, random, g.exact);
    wl::BrgemmPackArgs pack;
    pack.src = plain.data(), pack.stride = g.n, pack.k = g.taps * g.k, pack.n = g.n, pack.dst = data.data(), pack.panel = panel,
    pack.width = width;
    kernels.pack(pack);
    CHECK(data.intact());
    data.read_only();
  }
};

struct Output {
  Guarded<float> c, residual, bias;
  std::vector<float> before;
  std::vector<float*> rows;
  std::vector<const float*> residual_rows;
  int64_t stride;
  Output(const Problem& g, Random& random)
      : c(g.m * (g.n + 3)), residual(g.m * (g.n + 3)), bias(g.n), rows(g.m), residual_rows(g.m), stride(g.n + 3) {
    fill(c, random, g.exact), fill(residual, random, g.exact), fill(bias, random, g.exact);
    before.assign(c.begin(), c.end());
    for (int64_t r = 0; r < g.m; ++r) rows[r] = c.data() + r * stride, residual_rows[r] = residual.data() + r * stride;
  }
  wl::BrgemmOutput args(const Problem& g) {
    wl::BrgemmOutput out;
    out.c = rows.data(), out.c_offset = 3, out.accumulate = g.accumulate, out.activation = g.activation, out.alpha = 0.25f;
    if (g.bias) out.bias = bias.data();
    if (g.residual) out.residual = residual_rows.data();
    return out;
  }
  void check(const Problem& g, const char* what, const std::vector<double>& sum, const std::vector<double>& magnitude) {
    CHECK(c.intact() && residual.intact());
    for (int64_t r = 0; r < g.m; ++r)
      for (int64_t j = -3; j < g.n; ++j) {
        const float got = c[r * stride + 3 + j], old = before[r * stride + 3 + j];
        if (j < 0) {
          CHECK(got == old, "%s wrote before row %ld", what, (long)r);
          continue;
        }
        double want =
            sum[r * g.n + j] + (g.accumulate ? old : 0) + (g.bias ? bias[j] : 0) + (g.residual ? residual[r * stride + 3 + j] : 0);
        want = activate(g.activation, want, 0.25);
        const bool rounds = !g.exact || g.activation == wl::UnaryKind::sigmoid;
        const double bound = rounds ? 2e-6 * (1 + magnitude[r * g.n + j]) : 0;
        CHECK(fabs(got - want) <= bound, "%s m%ld n%ld taps%ld k%ld [%ld][%ld]: %g, not %g", what, (long)g.m, (long)g.n, (long)g.taps,
              (long)g.k, (long)r, (long)j, got, want);
      }
  }
};

void test_run(const Kernels& kernels, const Problem& g) {
  const BrgemmKernels& brgemm = *kernels.brgemm;
  Random random((uint64_t)(g.m * 7919 + g.n * 104729 + g.k * 31 + g.taps));
  PackedB b(brgemm, g, random);
  Guarded<float> a(g.taps * g.m * g.k);  // rows in reverse order: nothing may assume a stride
  fill(a, random, g.exact);
  std::vector<const float*> rows(g.taps * g.m);
  for (int64_t i = 0; i < g.taps * g.m; ++i) rows[i] = a.data() + (g.taps * g.m - 1 - i) * g.k - 5;
  Output out(g, random);
  wl::BrgemmArgs args;
  args.m = g.m, args.n = g.n, args.taps = g.taps, args.k = g.k, args.a = rows.data(), args.a_rows = g.m, args.a_offset = 5;
  args.b = b.data.data(), args.b_stride = b.width, args.b_panel = b.panel, args.out = out.args(g);
  brgemm.run(args);
  std::vector<double> sum(g.m * g.n), magnitude(g.m * g.n);
  for (int64_t r = 0; r < g.m; ++r)
    for (int64_t t = 0; t < g.taps; ++t)
      for (int64_t p = 0; p < g.k; ++p)
        for (int64_t j = 0; j < g.n; ++j) {
          const double product = double(rows[t * g.m + r][5 + p]) * b.plain[(t * g.k + p) * g.n + j];
          sum[r * g.n + j] += product, magnitude[r * g.n + j] += fabs(product);
        }
  out.check(g, kernels.isa, sum, magnitude);
}

void test_transposed(const Kernels& kernels, const Problem& g) {
  const BrgemmKernels& brgemm = *kernels.brgemm;
  Random random((uint64_t)(g.m * 13 + g.n * 17 + g.k * 19 + g.taps * 23));
  PackedB b(brgemm, g, random);
  const int64_t stride = g.m + 2, terms = g.taps * g.k;
  Guarded<float> a(terms ? terms * stride - 2 : 0);
  fill(a, random, g.exact);
  std::vector<wl::BrgemmSegment> segments;  // of lengths 1, 2, 3 … k, in order, until all terms are used up
  for (int64_t p = 0, length = 1; p < terms; ++length) {
    const int64_t k = wl::min_of(wl::min_of(length, terms - p), g.k);
    segments.push_back({a.data() + p * stride, b.data.data() + p * b.width, k});
    p += k;
  }
  Output out(g, random);
  wl::BrgemmTransposedArgs args;
  args.m = g.m, args.n = g.n, args.count = (int64_t)segments.size(), args.segments = segments.data(), args.a_stride = stride;
  args.b_stride = b.width, args.b_panel = b.panel, args.out = out.args(g);
  brgemm.run_transposed(args);
  std::vector<double> sum(g.m * g.n), magnitude(g.m * g.n);
  for (int64_t p = 0; p < terms; ++p)
    for (int64_t r = 0; r < g.m; ++r)
      for (int64_t j = 0; j < g.n; ++j) {
        const double product = double(a[p * stride + r]) * b.plain[p * g.n + j];
        sum[r * g.n + j] += product, magnitude[r * g.n + j] += fabs(product);
      }
  out.check(g, kernels.isa, sum, magnitude);
}

void test_pack(const Kernels& kernels, int64_t k, int64_t n, bool transposed) {
  const BrgemmKernels& brgemm = *kernels.brgemm;
  const int64_t width = brgemm.panel_width(n), panels = wl::div_up(n, width), panel = k * width + 8;
  const int64_t outer = transposed ? n : k, inner = transposed ? k : n, stride = inner + 1;
  Random random(5);
  Guarded<float> src(outer * stride - 1), dst(panels * panel - 8);
  fill_reals(src, random);
  wl::BrgemmPackArgs pack;
  pack.src = src.data(), pack.stride = stride, pack.k = k, pack.n = n, pack.dst = dst.data(), pack.panel = panel, pack.width = width;
  (transposed ? brgemm.pack_transposed : brgemm.pack)(pack);
  CHECK(dst.intact());
  for (int64_t p = 0; p < k; ++p)
    for (int64_t j = 0; j < panels * width; ++j) {
      const float want = j >= n ? 0 : transposed ? src[j * stride + p] : src[p * stride + j];
      CHECK(dst[j / width * panel + p * width + j % width] == want, "%s pack k%ld n%ld transposed %d at [%ld][%ld]", kernels.isa, (long)k,
            (long)n, transposed, (long)p, (long)j);
    }
}

// The bits of a row do not depend on the rows around it, nor on how k is cut at multiples of kBrgemmFlush.
void test_same_bits(const Kernels& kernels) {
  const BrgemmKernels& brgemm = *kernels.brgemm;
  const Problem g{29, 70, 1, 700, false, true, false, wl::UnaryKind::relu, false};
  Random random(9);
  PackedB b(brgemm, g, random);
  Guarded<float> a(g.m * g.k);
  fill_reals(a, random);
  std::vector<const float*> rows(g.m);
  for (int64_t r = 0; r < g.m; ++r) rows[r] = a.data() + r * g.k;
  Output whole(g, random), alone(g, random), cut(g, random);
  for (int64_t j = 0; j < g.n; ++j) alone.bias[j] = cut.bias[j] = whole.bias[j];
  wl::BrgemmArgs args;
  args.m = g.m, args.n = g.n, args.k = g.k, args.a = rows.data(), args.a_rows = g.m;
  args.b = b.data.data(), args.b_stride = b.width, args.b_panel = b.panel, args.out = whole.args(g);
  wl::BrgemmArgs hinted = args;  // what is fetched ahead changes no bit
  hinted.ahead[0] = {rows[0], g.m * g.k * (int64_t)sizeof(float)}, hinted.ahead[1] = {whole.rows[0], g.n * (int64_t)sizeof(float)};
  brgemm.run(hinted);
  for (int64_t r = 0; r < g.m; ++r) {
    wl::BrgemmArgs one = args;
    one.m = 1, one.a = rows.data() + r, one.out = alone.args(g), one.out.c = alone.rows.data() + r;
    brgemm.run(one);
  }
  for (int64_t p = 0; p < g.k; p += 2 * wl::kBrgemmFlush) {
    wl::BrgemmArgs part = args;
    part.a_offset = p, part.b = args.b + p * b.width, part.k = wl::min_of(2 * wl::kBrgemmFlush, g.k - p), part.out = cut.args(g);
    part.out.accumulate = p > 0;
    if (p + part.k < g.k) part.out.bias = nullptr, part.out.activation = wl::UnaryKind::none;
    brgemm.run(part);
  }
  for (int64_t r = 0; r < g.m; ++r) {
    CHECK(memcmp(whole.rows[r] + 3, alone.rows[r] + 3, g.n * sizeof(float)) == 0, "%s row %ld alone", kernels.isa, (long)r);
    CHECK(memcmp(whole.rows[r] + 3, cut.rows[r] + 3, g.n * sizeof(float)) == 0, "%s row %ld in pieces of k", kernels.isa, (long)r);
  }
}

}  // namespace

int main() {
  for_each_kernels([](const Kernels& kernels) {
    for (int64_t m : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 17, 25})
      for (int64_t n : {1, 3, 7, 8, 10, 16, 17, 31, 32, 40, 49, 64, 70}) {
        test_run(kernels, {m, n, 2, 5});
        test_transposed(kernels, {m, n, 2, 5});
      }
    for (int64_t k : {0, 1, 2, 27, 64, 127, 128, 129, 300})
      for (int64_t taps : {0, 1, 3, 9}) {
        test_run(kernels, {13, 33, taps, k});
        test_transposed(kernels, {13, 33, taps, k});
        test_run(kernels, {7, 65, taps, k, true, true, true, wl::UnaryKind::relu});
        test_run(kernels, {12, 32, taps, k, false, true, false, wl::UnaryKind::relu, false});
        test_transposed(kernels, {12, 70, taps, k, true, true, true, wl::UnaryKind::none, false});
      }
    for (int mask = 0; mask < 8; ++mask)
      for (auto kind : {wl::UnaryKind::none, wl::UnaryKind::relu, wl::UnaryKind::leaky_relu, wl::UnaryKind::sigmoid})
        for (int64_t n : {5, 32, 64, 79}) test_run(kernels, {14, n, 1, 20, (mask & 1) != 0, (mask & 2) != 0, (mask & 4) != 0, kind});
    for (int64_t k : {1, 3, 4, 15, 16, 17, 40})
      for (int64_t n : {1, 4, 5, 8, 16, 17, 32, 33, 75})
        for (bool transposed : {false, true}) test_pack(kernels, k, n, transposed);
    test_same_bits(kernels);
  });
  return finish();
}
