// Backward-weights, every instruction set, against plain loops.
#include "pictures.h"

using namespace harness;
using wl::AttrKey;
using wl::Kernels;
using wl::Opcode;
using wl::Tensor;

namespace {

// dw in double precision.
std::vector<double> plain_weights(const Geometry& g, const Pictures<>& x, const Pictures<>& dy, int64_t n) {
  const int64_t icg = g.ic / g.g, ocg = g.oc / g.g;
  std::vector<double> dw(size_t(g.kh * g.kw * icg * g.oc));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t oy = 0; oy < g.oh; ++oy)
      for (int64_t ox = 0; ox < g.ow; ++ox)
        for (int64_t ky = 0; ky < g.kh; ++ky)
          for (int64_t kx = 0; kx < g.kw; ++kx) {
            const int64_t iy = oy * g.sh - g.pad_top + ky * g.dilh, ix = ox * g.sw - g.pad_left + kx * g.dilw;
            if (!x.inside(iy, ix)) continue;
            for (int64_t c = 0; c < icg; ++c)
              for (int64_t o = 0; o < g.oc; ++o)
                dw[size_t(((ky * g.kw + kx) * icg + c) * g.oc + o)] += double(x.at(i, iy, ix, o / ocg * icg + c)) * dy.at(i, oy, ox, o);
          }
  return dw;
}

// A problem with its answers for all pictures and for the first half of them, in double precision; made once for all kernels.
struct Problem {
  const Geometry& g;
  Pictures<> x, dy;
  int64_t counts[2];
  std::vector<double> expect[2];
  Problem(const Geometry& geometry, bool gaps, bool integers)
      : g(geometry), x(g.n, g.ih, g.iw, g.ic, gaps), dy(g.n, g.oh, g.ow, g.oc, gaps), counts{g.n, (g.n + 1) / 2} {
    Random random(g.ih + 100 * g.ic);
    if (integers)
      x.fill_integers(random, 2), dy.fill_integers(random, 2);
    else
      x.fill_reals(random), dy.fill_reals(random);
    for (int i = 0; i < 2; ++i) expect[i] = plain_weights(g, x, dy, counts[i]);
  }
};

void test_exact(const Problem& p, const Kernels& kernels, int threads, wl::Algorithm algorithm) {
  const Geometry& g = p.g;
  const std::vector<double>& expect = p.expect[0];
  Guarded<float> dw((int64_t)expect.size());
  for (float& v : dw) v = NAN;
  const Tensor out = tensor(dw.data(), {g.kh, g.kw, g.ic / g.g, g.oc});
  OpRun op(Opcode::conv_bwd_weights, {&p.x.tensor, &p.dy.tensor}, {&out});
  if (!g.set(op).attr(AttrKey::algorithm, (int)algorithm).run(kernels, threads)) return;
  int wrong = 0;
  for (int64_t i = 0; i < dw.size(); ++i) wrong += dw[i] != (float)expect[(size_t)i];
  CHECK(wrong == 0, "%s (%s, %s, algorithm %d): %d of %zu wrong", g.text.c_str(), kernels.isa, op.choose(kernels, threads).blocking,
        (int)algorithm, wrong, expect.size());
  CHECK(dw.intact(), "%s (%s)", g.text.c_str(), kernels.isa);
}

// Equal bits for any number of threads, and for n pictures alone or as the first of N; and errors as small as chains of one chunk leave
// them.
void test_bits(const Problem& p, const Kernels& kernels, wl::Algorithm algorithm) {
  const Geometry& g = p.g;
  for (int which = 0; which < 2; ++which) {
    const int64_t n = p.counts[which];
    const std::vector<double>& expect = p.expect[which];
    const Tensor xn = p.x.first(n), dyn = p.dy.first(n);
    std::vector<float> first;
    for (const int threads : {1, 2, 3})
      for (const bool planned_larger : {false, true}) {
        Guarded<float> dw((int64_t)expect.size());
        const Tensor out = tensor(dw.data(), {g.kh, g.kw, g.ic / g.g, g.oc});
        OpRun op(Opcode::conv_bwd_weights, {&xn, &dyn}, {&out}), planned(Opcode::conv_bwd_weights, {&p.x.tensor, &p.dy.tensor}, {&out});
        g.set(op).attr(AttrKey::algorithm, (int)algorithm), g.set(planned).attr(AttrKey::algorithm, (int)algorithm);
        Guarded<char> workspace((planned_larger ? planned : op).choose(kernels, threads).workspace, wl::kCacheLine);
        wl::Run run;
        run.kernels = &kernels, run.threads = threads, run.workspace = workspace.data();
        op.op().run(op.step, run);
        CHECK(workspace.intact(), "%s (%s)", g.text.c_str(), kernels.isa);
        if (first.empty()) first.assign(dw.begin(), dw.end());
        CHECK(memcmp(first.data(), dw.data(), first.size() * sizeof(float)) == 0, "%s (%s, %d threads, n %d): other bits", g.text.c_str(),
              kernels.isa, threads, (int)n);
      }
    double error = 0, scale = 0;
    for (size_t i = 0; i < expect.size(); ++i) error += (first[i] - expect[i]) * (first[i] - expect[i]), scale += expect[i] * expect[i];
    CHECK(sqrt(error / scale) < 1e-6, "%s (%s): relative error %g", g.text.c_str(), kernels.isa, sqrt(error / scale));
  }
}

void test_refusals() {
  Pictures<> x(2, 8, 8, 6, false), dy(2, 8, 8, 4, false);
  Guarded<float> dw(3 * 3 * 6 * 4);
  const Tensor good = tensor(dw.data(), {3, 3, 6, 4}), wrong = tensor(dw.data(), {3, 3, 4, 6}), flat = tensor(dw.data(), {3 * 3 * 6 * 4});
  const auto accepts = [&](const Tensor& out, const char* geometry) {
    OpRun op(Opcode::conv_bwd_weights, {&x.tensor, &dy.tensor}, {&out});
    return bool(Geometry(parse_case(geometry)).set(op).verify());
  };
  CHECK(accepts(good, "n2 ih8 ic6 oc4 k3 pad1"));
  CHECK(!accepts(wrong, "n2 ih8 ic6 oc4 k3 pad1"), "a weight of another shape");
  CHECK(!accepts(flat, "n2 ih8 ic6 oc4 k3 pad1"), "a flat weight");
  CHECK(!accepts(good, "n2 ih8 ic6 oc4 k3"), "an output of the wrong size");
  CHECK(!accepts(good, "n2 ih8 ic6 oc4 k3 pad1 g3"), "groups that do not divide");
}

}  // namespace

int main() {
  for (const Case& c : read_cases("conv_bwd_weights.txt")) {
    const Geometry g(c);
    const Problem dense(g, false, true), gaps(g, true, true), reals(g, false, false);
    for_each_kernels([&](const Kernels& kernels) {
      test_exact(dense, kernels, 1, wl::Algorithm::direct);
      test_exact(gaps, kernels, 3, wl::Algorithm::direct);
      test_exact(dense, kernels, 1, wl::Algorithm::planar);
      test_exact(gaps, kernels, 3, wl::Algorithm::planar);
      for (const wl::Algorithm algorithm : {wl::Algorithm::automatic, wl::Algorithm::planar}) test_bits(reals, kernels, algorithm);
    });
    test_exact(dense, *wl::active_kernels(), 1, wl::Algorithm::ref);
  }
  test_refusals();
  return finish();
}
