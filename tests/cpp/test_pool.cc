// Pooling forward and backward, every instruction set, against plain loops. S-44 … S-48, S-50, S-53.
#include "pictures.h"

using namespace harness;
using wl::AttrKey;
using wl::DType;
using wl::Kernels;
using wl::Opcode;

namespace {

// Calls body(position, iy, ix) for the taps of an output that lie inside the picture, in row order.
template <class Body>
void for_each_tap(const Geometry& g, int64_t oy, int64_t ox, Body body) {
  for (int64_t ky = 0; ky < g.kh; ++ky)
    for (int64_t kx = 0; kx < g.kw; ++kx) {
      const int64_t iy = oy * g.sh - g.pad_top + ky * g.dilh, ix = ox * g.sw - g.pad_left + kx * g.dilw;
      if (iy >= 0 && iy < g.ih && ix >= 0 && ix < g.iw) body(ky * g.kw + kx, iy, ix);
    }
}

struct MaxWinner {
  float value = -INFINITY;
  int64_t position = -1, iy = 0, ix = 0;
};
MaxWinner max_of_window(const Geometry& g, const Pictures<>& x, int64_t i, int64_t oy, int64_t ox, int64_t k) {
  MaxWinner m;
  for_each_tap(g, oy, ox, [&](int64_t position, int64_t iy, int64_t ix) {
    const float v = x.at(i, iy, ix, k);
    if (m.position < 0 || v > m.value || (isnan(v) && !isnan(m.value))) m = {v, position, iy, ix};
  });
  return m;
}

template <class Index>
void test_max(const Geometry& g, const Kernels& kernels, bool gaps, int threads, DType dtype) {
  Random random(g.ih * 7 + g.ic);
  Pictures<> x(g.n, g.ih, g.iw, g.ic, gaps), y(g.n, g.oh, g.ow, g.ic, gaps), plain(g.n, g.oh, g.ow, g.ic, gaps);
  Pictures<Index> index(g.n, g.oh, g.ow, g.ic, gaps, dtype);
  x.fill_integers(random);
  for (int64_t i = 0; i < 5; ++i) {
    x.at(random.integer(0, g.n - 1), random.integer(0, g.ih - 1), random.integer(0, g.iw - 1), random.integer(0, g.ic - 1)) = NAN;
    x.at(random.integer(0, g.n - 1), random.integer(0, g.ih - 1), random.integer(0, g.iw - 1), random.integer(0, g.ic - 1)) = -INFINITY;
  }
  OpRun fwd(Opcode::pool_max, {&x.tensor}, {&y.tensor, &index.tensor}), inference(Opcode::pool_max, {&x.tensor}, {&plain.tensor});
  if (!g.set(fwd).run(kernels, threads) || !g.set(inference).run(kernels, threads)) return;
  int wrong = 0;
  y.for_each([&](float v, int64_t i, int64_t oy, int64_t ox, int64_t k) {
    const MaxWinner m = max_of_window(g, x, i, oy, ox, k);
    wrong += !same_bits(v, m.value) || !same_bits(plain.at(i, oy, ox, k), m.value) || (int64_t)index.at(i, oy, ox, k) != m.position;
  });
  CHECK(wrong == 0, "max %s (%s): %d wrong", g.text.c_str(), kernels.isa, wrong);
  CHECK(y.intact() && index.intact() && plain.intact(), "max %s (%s)", g.text.c_str(), kernels.isa);

  Pictures<> dy(g.n, g.oh, g.ow, g.ic, gaps), dx(g.n, g.ih, g.iw, g.ic, gaps), expect(g.n, g.ih, g.iw, g.ic, false);
  dy.fill_integers(random);
  expect.for_each([](float& v, int64_t, int64_t, int64_t, int64_t) { v = 0; });
  dy.for_each([&](float v, int64_t i, int64_t oy, int64_t ox, int64_t k) {
    const MaxWinner m = max_of_window(g, x, i, oy, ox, k);
    expect.at(i, m.iy, m.ix, k) += v;
  });
  OpRun bwd(Opcode::pool_max_bwd, {&dy.tensor, &index.tensor}, {&dx.tensor});
  if (!g.set(bwd).run(kernels, threads)) return;
  wrong = 0;
  expect.for_each([&](float v, int64_t i, int64_t iy, int64_t ix, int64_t k) { wrong += v != dx.at(i, iy, ix, k); });
  CHECK(wrong == 0, "max bwd %s (%s): %d wrong", g.text.c_str(), kernels.isa, wrong);
  CHECK(dx.intact(), "max bwd %s (%s)", g.text.c_str(), kernels.isa);
}

double divisor_of(const Geometry& g, int64_t oy, int64_t ox, wl::PoolKind kind, int count_padding) {
  if (kind == wl::PoolKind::sum) return 1;
  if (count_padding) return double(g.kh * g.kw);
  int64_t area = 0;
  for_each_tap(g, oy, ox, [&](int64_t, int64_t, int64_t) { ++area; });
  return double(area);
}

void test_average(const Geometry& g, const Kernels& kernels, bool gaps, int threads, wl::PoolKind kind, int count_padding) {
  Random random(g.ih * 5 + g.ic);
  Pictures<> x(g.n, g.ih, g.iw, g.ic, gaps), y(g.n, g.oh, g.ow, g.ic, gaps);
  x.fill_integers(random);
  OpRun fwd(Opcode::pool_avg, {&x.tensor}, {&y.tensor});
  g.set(fwd).attr(AttrKey::kind, (int)kind).attr(AttrKey::count_padding, count_padding);
  if (!fwd.run(kernels, threads)) return;
  int wrong = 0;
  y.for_each([&](float v, int64_t i, int64_t oy, int64_t ox, int64_t k) {
    double sum = 0;
    for_each_tap(g, oy, ox, [&](int64_t, int64_t iy, int64_t ix) { sum += x.at(i, iy, ix, k); });
    wrong += v != (float)sum / (float)divisor_of(g, oy, ox, kind, count_padding);  // sums of small integers are exact
  });
  CHECK(wrong == 0, "average %s (%s): %d wrong", g.text.c_str(), kernels.isa, wrong);
  CHECK(y.intact(), "average %s (%s)", g.text.c_str(), kernels.isa);

  Pictures<> dy(g.n, g.oh, g.ow, g.ic, gaps), dx(g.n, g.ih, g.iw, g.ic, gaps);
  std::vector<double> expect(size_t(g.n * g.ih * g.iw * g.ic)), bound(expect.size());
  dy.fill_integers(random);
  dy.for_each([&](float v, int64_t i, int64_t oy, int64_t ox, int64_t k) {
    for_each_tap(g, oy, ox, [&](int64_t, int64_t iy, int64_t ix) {
      const size_t at = size_t(((i * g.ih + iy) * g.iw + ix) * g.ic + k);
      expect[at] += v / divisor_of(g, oy, ox, kind, count_padding);
      bound[at] += fabs(v / divisor_of(g, oy, ox, kind, count_padding));
    });
  });
  OpRun bwd(Opcode::pool_avg_bwd, {&dy.tensor}, {&dx.tensor});
  g.set(bwd).attr(AttrKey::kind, (int)kind).attr(AttrKey::count_padding, count_padding);
  if (!bwd.run(kernels, threads)) return;
  wrong = 0;
  const double eps = kind == wl::PoolKind::sum ? 0 : 0x1p-23 * double(2 + g.kh * g.kw);
  dx.for_each([&](float v, int64_t i, int64_t iy, int64_t ix, int64_t k) {
    const size_t at = size_t(((i * g.ih + iy) * g.iw + ix) * g.ic + k);
    wrong += !(fabs(v - expect[at]) <= eps * bound[at]);
  });
  CHECK(wrong == 0, "average bwd %s (%s): %d wrong", g.text.c_str(), kernels.isa, wrong);
  CHECK(dx.intact(), "average bwd %s (%s)", g.text.c_str(), kernels.isa);
}

// What the verifier must refuse.
void test_refusals() {
  Pictures<> x(2, 8, 8, 4, false), y(2, 4, 4, 4, false), wide(2, 4, 4, 5, false);
  Pictures<uint8_t> index(2, 4, 4, 4, false, DType::u8);
  const auto refused = [](OpRun& op, const char* why) { CHECK(!op.verify(), "%s was accepted", why); };
  const Geometry good(parse_case("n2 ih8 ic4 k2 s2"));
  OpRun fine(Opcode::pool_max, {&x.tensor}, {&y.tensor, &index.tensor});
  CHECK(bool(good.set(fine).verify()), "%s", good.set(fine).verify().text);
  OpRun channels(Opcode::pool_max, {&x.tensor}, {&wide.tensor});
  refused(good.set(channels), "other channels out than in");
  OpRun extents(Opcode::pool_max, {&x.tensor}, {&y.tensor});
  refused(Geometry(parse_case("n2 ih8 ic4 k3 s1")).set(extents), "an output of the wrong size");
  OpRun padding(Opcode::pool_avg, {&x.tensor}, {&y.tensor});
  refused(Geometry(parse_case("n2 ih8 ic4 k2 s4 pad_top2 pad_left2 pad_bottom4 pad_right4")).set(padding),
          "a window of nothing but padding");
  Pictures<int32_t> small(2, 4, 4, 4, false, DType::i32);
  small.tensor.dims[3] = 3;
  OpRun shape(Opcode::pool_max, {&x.tensor}, {&y.tensor, &small.tensor});
  refused(good.set(shape), "an index of another shape");
  Pictures<> big(1, 17, 17, 1, false), one(1, 1, 1, 1, false);
  Pictures<uint8_t> narrow(1, 1, 1, 1, false, DType::u8);
  OpRun positions(Opcode::pool_max, {&big.tensor}, {&one.tensor, &narrow.tensor});
  refused(Geometry(parse_case("n1 ih17 ic1 k17")).set(positions), "289 positions in a byte");
  OpRun kind(Opcode::pool_avg, {&x.tensor}, {&y.tensor});
  refused(good.set(kind).attr(AttrKey::kind, 9), "an unknown kind");
  OpRun stride(Opcode::pool_max, {&x.tensor}, {&y.tensor});
  refused(Geometry(parse_case("n2 ih8 ic4 k2 s0")).set(stride), "stride 0");
}

}  // namespace

int main() {
  for (const Case& c : read_cases("pool.txt")) {
    const Geometry g(c);
    for_each_kernels([&](const Kernels& kernels) {
      for (const bool gaps : {false, true}) {
        const int threads = gaps ? 3 : 1;
        if (g.kh * g.kw <= 256) test_max<uint8_t>(g, kernels, gaps, threads, DType::u8);
        test_max<int32_t>(g, kernels, gaps, threads, DType::i32);
        test_average(g, kernels, gaps, threads, wl::PoolKind::average, 0);
        test_average(g, kernels, gaps, threads, wl::PoolKind::average, 1);
        test_average(g, kernels, gaps, threads, wl::PoolKind::sum, 1);
      }
    });
  }
  test_refusals();
  return finish();
}
