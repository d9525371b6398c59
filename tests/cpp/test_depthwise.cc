// Depthwise convolution in its three directions, every instruction set, against plain loops.
#include "ops/depthwise.h"
#include "pictures.h"

using namespace harness;
using wl::AttrKey;
using wl::ConvDirection;
using wl::ConvShape;
using wl::Kernels;

namespace {

struct Problem {
  Geometry g;
  int64_t m;
  ConvShape shape;
  explicit Problem(Case c) : g(c), m(c.get("m", 1)) {
    g.g = g.ic, g.oc = g.ic * m;
    shape.n = g.n, shape.ih = g.ih, shape.iw = g.iw, shape.ic = g.ic, shape.oh = g.oh, shape.ow = g.ow, shape.oc = g.oc;
    shape.kh = g.kh, shape.kw = g.kw, shape.sh = g.sh, shape.sw = g.sw, shape.g = g.g;
    shape.pad_top = g.pad_top, shape.pad_left = g.pad_left, shape.pad_bottom = g.pad_bottom, shape.pad_right = g.pad_right;
    shape.dilh = g.dilh, shape.dilw = g.dilw;
  }
};

// Calls body(tap, iy, ix) for the taps of an output that lie inside the picture.
template <class Body>
void for_each_tap(const Geometry& g, int64_t oy, int64_t ox, Body body) {
  for (int64_t ky = 0; ky < g.kh; ++ky)
    for (int64_t kx = 0; kx < g.kw; ++kx) {
      const int64_t iy = oy * g.sh - g.pad_top + ky * g.dilh, ix = ox * g.sw - g.pad_left + kx * g.dilw;
      if (iy >= 0 && iy < g.ih && ix >= 0 && ix < g.iw) body(ky * g.kw + kx, iy, ix);
    }
}

// A run with a guarded workspace of exactly the size that depthwise_choose() tells for `planned`.
struct Scratch {
  Guarded<char> workspace;
  wl::Run run;
  static int64_t bytes(const ConvShape& planned, ConvDirection direction, const Kernels& kernels, int threads) {
    wl::Choice choice;
    wl::depthwise_choose(planned, direction, false, kernels, threads, &choice);
    return choice.workspace;
  }
  Scratch(const ConvShape& planned, ConvDirection direction, const Kernels& kernels, int threads)
      : workspace(bytes(planned, direction, kernels, threads), wl::kCacheLine) {
    run.kernels = &kernels, run.threads = threads, run.workspace = workspace.data();
  }
};

void test(const Problem& p, const Kernels& kernels, bool gaps, int threads) {
  const Geometry& g = p.g;
  Random random(g.ih * 3 + g.ic);
  Pictures<> x(g.n, g.ih, g.iw, g.ic, gaps), y(g.n, g.oh, g.ow, g.oc, gaps), dx(g.n, g.ih, g.iw, g.ic, gaps),
      residual(g.n, g.oh, g.ow, g.oc, !gaps);
  Guarded<float> w(g.kh * g.kw * g.oc), dw(w.size()), bias(g.oc);
  x.fill_integers(random), residual.fill_integers(random);
  fill_integers(w, random), fill_integers(bias, random);

  std::vector<float> dx_expect(size_t(g.n * g.ih * g.iw * g.ic)), dw_expect((size_t)w.size());
  for (const bool epilogue : {false, true}) {
    Scratch scratch(p.shape, ConvDirection::fwd, kernels, threads);
    wl::ConvEpilogueOperands e;
    if (epilogue) e.bias = bias.data(), e.residual = &residual.tensor, e.activation = wl::UnaryKind::relu;
    wl::depthwise_fwd(scratch.run, kernels, p.shape, x.tensor, nullptr, w.data(), y.tensor, e);
    int wrong = 0;
    y.for_each([&](float v, int64_t i, int64_t oy, int64_t ox, int64_t o) {
      float sum = 0;
      for_each_tap(g, oy, ox, [&](int64_t tap, int64_t iy, int64_t ix) { sum += x.at(i, iy, ix, o / p.m) * w[tap * g.oc + o]; });
      if (epilogue) sum = fmaxf(0, sum + bias[o] + residual.at(i, oy, ox, o));
      wrong += v != sum;
    });
    CHECK(wrong == 0, "fwd %s (%s): %d wrong", g.text.c_str(), kernels.isa, wrong);
    CHECK(y.intact() && scratch.workspace.intact(), "fwd %s (%s)", g.text.c_str(), kernels.isa);
  }

  Pictures<>& dy = y;
  dy.fill_integers(random);
  dy.for_each([&](float v, int64_t i, int64_t oy, int64_t ox, int64_t o) {
    for_each_tap(g, oy, ox, [&](int64_t tap, int64_t iy, int64_t ix) {
      dx_expect[size_t(((i * g.ih + iy) * g.iw + ix) * g.ic + o / p.m)] += v * w[tap * g.oc + o];
      dw_expect[size_t(tap * g.oc + o)] += v * x.at(i, iy, ix, o / p.m);
    });
  });
  Scratch data(p.shape, ConvDirection::bwd_data, kernels, threads);
  wl::depthwise_bwd_data(data.run, kernels, p.shape, dy.tensor, w.data(), dx.tensor, nullptr);
  int wrong = 0;
  dx.for_each([&](float v, int64_t i, int64_t iy, int64_t ix, int64_t c) {
    wrong += v != dx_expect[size_t(((i * g.ih + iy) * g.iw + ix) * g.ic + c)];
  });
  CHECK(wrong == 0, "bwd_data %s (%s): %d wrong", g.text.c_str(), kernels.isa, wrong);
  CHECK(dx.intact() && data.workspace.intact(), "bwd_data %s (%s)", g.text.c_str(), kernels.isa);

  Scratch weights(p.shape, ConvDirection::bwd_weights, kernels, threads);
  for (float& v : dw) v = NAN;
  wl::depthwise_bwd_weights(weights.run, kernels, p.shape, x.tensor, nullptr, dy.tensor, dw.data());
  wrong = 0;
  for (int64_t i = 0; i < dw.size(); ++i) wrong += dw[i] != dw_expect[(size_t)i];
  CHECK(wrong == 0, "bwd_weights %s (%s): %d wrong", g.text.c_str(), kernels.isa, wrong);
  CHECK(dw.intact() && weights.workspace.intact(), "bwd_weights %s (%s)", g.text.c_str(), kernels.isa);
}

// Equal bits for any number of threads, and for n pictures alone or as the first of N.
void test_bits(const Problem& p, const Kernels& kernels) {
  const Geometry& g = p.g;
  Random random(5);
  Pictures<> x(g.n, g.ih, g.iw, g.ic, false), dy(g.n, g.oh, g.ow, g.oc, false);
  x.fill_reals(random), dy.fill_reals(random);
  const int64_t elements = g.kh * g.kw * g.oc;
  for (const int64_t n : {g.n, (g.n + 1) / 2}) {
    ConvShape shape = p.shape;
    shape.n = n;
    Guarded<float> one(elements), three(elements), alone(elements);
    Scratch a(p.shape, ConvDirection::bwd_weights, kernels, 1), b(p.shape, ConvDirection::bwd_weights, kernels, 3);
    Scratch c(shape, ConvDirection::bwd_weights, kernels, 2);
    wl::depthwise_bwd_weights(a.run, kernels, shape, x.first(n), nullptr, dy.first(n), one.data());
    wl::depthwise_bwd_weights(b.run, kernels, shape, x.first(n), nullptr, dy.first(n), three.data());
    wl::depthwise_bwd_weights(c.run, kernels, shape, x.first(n), nullptr, dy.first(n), alone.data());
    CHECK(memcmp(one.data(), three.data(), size_t(elements) * 4) == 0, "%s (%s): threads change bits", g.text.c_str(), kernels.isa);
    CHECK(memcmp(one.data(), alone.data(), size_t(elements) * 4) == 0, "%s (%s): the planned batch changes bits", g.text.c_str(),
          kernels.isa);
    CHECK(a.workspace.intact() && b.workspace.intact() && c.workspace.intact(), "%s (%s)", g.text.c_str(), kernels.isa);
  }
}

}  // namespace

int main() {
  for (const Case& c : read_cases("depthwise.txt")) {
    const Problem p(c);
    for_each_kernels([&](const Kernels& kernels) {
      test(p, kernels, false, 1);
      test(p, kernels, true, 3);
      test_bits(p, kernels);
    });
  }
  return finish();
}
