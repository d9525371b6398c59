// Batch normalisation on every ISA against double: statistics (also where the mean is 1000 times the spread), normalise with activation and
// residual, gradient with mask, residual and frozen statistics, running statistics. Channels that fill vectors and that do not, views with
// gaps.
#include "vectors.h"

using namespace harness;
using wl::AttrKey;
using wl::Opcode;
using wl::UnaryKind;

constexpr double kEps = 1e-5;

// A picture tensor (n, h, w, c) inside a larger one with a border, so that rows of different pictures do not merge.
struct Picture {
  Guarded<float> storage;
  wl::Tensor t;
  Picture(int64_t n, int64_t h, int64_t w, int64_t c, int64_t border)
      : storage(n * (h + border) * (w + border) * (c + border)), t(tensor(storage.data(), {n, h, w, c})) {
    t.strides[3] = 1, t.strides[2] = c + border, t.strides[1] = t.strides[2] * (w + border), t.strides[0] = t.strides[1] * (h + border);
    t.batch = true;
  }
  std::vector<float> values() const {
    std::vector<float> v;
    each_element(t, [&](int64_t, int64_t o) { v.push_back(storage[o]); });
    return v;
  }
  template <class F>
  void fill(F f) {
    each_element(t, [&](int64_t i, int64_t o) { storage[o] = (float)f(i); });
  }
};

struct Shape {
  int64_t n, h, w, c, border;
};
static const Shape kShapes[] = {{1, 1, 1, 1, 0},    {3, 1, 1, 7, 0},    {2, 5, 3, 6, 0},    {4, 9, 7, 16, 0},   {2, 6, 5, 32, 0},
                                {3, 4, 4, 67, 0},   {2, 3, 3, 512, 0},  {2, 2, 2, 1500, 0}, {5, 31, 29, 3, 0},  {2, 5, 3, 6, 1},
                                {3, 4, 7, 33, 2},   {2, 24, 20, 64, 0}, {16, 14, 14, 6, 0}, {1, 90, 120, 1, 0}, {1, 1, 1, 1037, 0},
                                {3, 1, 1, 1300, 1}, {5, 1, 1, 1027, 0}};

static void check_stats(const wl::Kernels& k) {
  for (const Shape& s : kShapes)
    for (double mean : {0.0, 1000.0}) {
      Picture x(s.n, s.h, s.w, s.c, s.border);
      Random random((uint64_t)s.c);
      x.fill([&](int64_t i) { return mean * (1 + (double)(i % s.c) / (double)s.c) + random.real(); });
      Guarded<float> out(2 * s.c);
      const auto tm = tensor(out.data(), {s.c}), tv = tensor(out.data() + s.c, {s.c});
      same_for_threads(out, [&](int threads) { OpRun(Opcode::bn_stats, {&x.t}, {&tm, &tv}).run(k, threads); });
      const auto v = x.values();
      const int64_t rows = (int64_t)v.size() / s.c;
      for (int64_t c = 0; c < s.c; ++c) {
        double sum = 0, m2 = 0;
        for (int64_t r = 0; r < rows; ++r) sum += v[(size_t)(r * s.c + c)];
        for (int64_t r = 0; r < rows; ++r) m2 += pow(v[(size_t)(r * s.c + c)] - sum / (double)rows, 2);
        CHECK(near(out[c], sum / (double)rows, 2.5e-7, 1), "%s c %d mean %.9g, not %.9g", k.isa, (int)s.c, out[c], sum / (double)rows);
        CHECK(near(out[s.c + c], m2 / (double)rows, 1e-5, 1e-6), "%s c %d mean %g: var %.9g, not %.9g", k.isa, (int)s.c, mean, out[s.c + c],
              m2 / (double)rows);
      }
      CHECK(out.intact() && x.storage.intact(), "%s", k.isa);
    }
}

static double activated(int kind, double v) {
  if (kind == (int)UnaryKind::relu) return fmax(v, 0);
  if (kind == (int)UnaryKind::leaky_relu) return v > 0 ? v : 0.1 * v;
  return v;
}
static double slope(int kind, double y) {
  if (kind == (int)UnaryKind::relu) return y > 0;
  if (kind == (int)UnaryKind::leaky_relu) return y > 0 ? 1 : 0.1;
  return 1;
}

struct Parameters {
  Guarded<float> mean, var, gamma, beta;
  wl::Tensor tmean, tvar, tgamma, tbeta;
  explicit Parameters(int64_t c, Random& random) : mean(c), var(c), gamma(c), beta(c) {
    fill_reals(mean, random), fill_reals(gamma, random), fill_reals(beta, random);
    for (auto& v : var) v = 0.1f + fabsf(random.real());
    tmean = tensor(mean.data(), {c}), tvar = tensor(var.data(), {c}), tgamma = tensor(gamma.data(), {c}), tbeta = tensor(beta.data(), {c});
  }
};

static void check_apply(const wl::Kernels& k) {
  for (const Shape& s : kShapes)
    for (int kind : {(int)UnaryKind::none, (int)UnaryKind::relu, (int)UnaryKind::leaky_relu})
      for (int with : {0, 1, 2, 3}) {  // bit 0: gamma and beta, bit 1: residual
        Random random(9);
        Picture x(s.n, s.h, s.w, s.c, s.border), y(s.n, s.h, s.w, s.c, s.border), residual(s.n, s.h, s.w, s.c, s.border);
        Parameters p(s.c, random);
        x.fill([&](int64_t) { return random.real(); }), residual.fill([&](int64_t) { return random.real(); });
        const OpRun run = OpRun(Opcode::bn_apply,
                                {&x.t, &p.tmean, &p.tvar, with & 1 ? &p.tgamma : nullptr, with & 1 ? &p.tbeta : nullptr,
                                 with & 2 ? &residual.t : nullptr},
                                {&y.t})
                              .attr(AttrKey::activation, kind)
                              .attr(AttrKey::alpha, 0.1)
                              .attr(AttrKey::eps, kEps);
        same_for_threads(y.storage, [&](int threads) { run.run(k, threads); });
        const auto vx = x.values(), vy = y.values(), vr = residual.values();
        for (size_t i = 0; i < vx.size(); ++i) {
          const int64_t c = (int64_t)i % s.c;
          double want = (vx[i] - p.mean[c]) * (with & 1 ? p.gamma[c] : 1) / sqrt(p.var[c] + kEps) + (with & 1 ? p.beta[c] : 0);
          if (with & 2) want += vr[i];
          CHECK(near(vy[i], activated(kind, want), 1e-6, 3), "%s c %d: %g, not %g", k.isa, (int)s.c, vy[i], want);
        }
        CHECK(y.storage.intact() && x.storage.intact() && p.gamma.intact(), "%s", k.isa);
        // Nothing between the rows is written.
        double inside = 0, all = 0;
        for (float v : vy) inside += fabs(v);
        for (float v : y.storage) all += fabs(v);
        CHECK(fabs(inside - all) <= 1e-9 * all, "%s c %d: wrote between rows", k.isa, (int)s.c);
      }
}

static void check_grad(const wl::Kernels& k) {
  for (const Shape& s : kShapes)
    for (int kind : {(int)UnaryKind::none, (int)UnaryKind::relu, (int)UnaryKind::leaky_relu})
      for (int frozen : {0, 1})
        for (int with : {0, 1}) {  // gamma, dgamma, dbeta and dresidual, or dx alone
          Random random(13);
          Picture x(s.n, s.h, s.w, s.c, s.border), y(s.n, s.h, s.w, s.c, s.border), dy(s.n, s.h, s.w, s.c, s.border),
              dx(s.n, s.h, s.w, s.c, s.border), dr(s.n, s.h, s.w, s.c, s.border);
          Parameters p(s.c, random);
          Guarded<float> dgamma(s.c), dbeta(s.c);
          const auto tdgamma = tensor(dgamma.data(), {s.c}), tdbeta = tensor(dbeta.data(), {s.c});
          for (Picture* q : {&x, &y, &dy}) q->fill([&](int64_t) { return random.real(); });
          const OpRun run =
              OpRun(Opcode::bn_bwd, {&x.t, &dy.t, &p.tmean, &p.tvar, with ? &p.tgamma : nullptr, nullptr, kind ? &y.t : nullptr},
                    {&dx.t, with ? &tdgamma : nullptr, with ? &tdbeta : nullptr, with ? &dr.t : nullptr})
                  .attr(AttrKey::activation, kind)
                  .attr(AttrKey::alpha, 0.1)
                  .attr(AttrKey::eps, kEps)
                  .attr(AttrKey::frozen, frozen);
          same_for_threads(dx.storage, [&](int threads) { run.run(k, threads); });
          const auto vx = x.values(), vy = y.values(), vdy = dy.values(), vdx = dx.values(), vdr = dr.values();
          const double rows = (double)vx.size() / (double)s.c;
          std::vector<double> g(vx.size()), sum_g((size_t)s.c, 0.0), sum_gx((size_t)s.c, 0.0);
          for (size_t i = 0; i < vx.size(); ++i) {
            const size_t c = i % (size_t)s.c;
            g[i] = vdy[i] * slope(kind, vy[i]);
            sum_g[c] += g[i], sum_gx[c] += g[i] * ((double)vx[i] - p.mean[(int64_t)c]) / sqrt(p.var[(int64_t)c] + kEps);
          }
          for (size_t i = 0; i < vx.size(); ++i) {
            const size_t c = i % (size_t)s.c;
            const double invstd = 1 / sqrt(p.var[(int64_t)c] + kEps), hat = ((double)vx[i] - p.mean[(int64_t)c]) * invstd;
            double want = g[i];
            if (!frozen) want -= sum_g[c] / rows + hat * sum_gx[c] / rows;
            want *= invstd * (with ? p.gamma[(int64_t)c] : 1);
            CHECK(near(vdx[i], want, 3e-6, 5), "%s c %d kind %d frozen %d: dx %g, not %g", k.isa, (int)s.c, kind, frozen, vdx[i], want);
            if (with) CHECK(near(vdr[i], g[i], 1e-7), "%s dresidual %g, not %g", k.isa, vdr[i], g[i]);
          }
          for (int64_t c = 0; with && c < s.c; ++c) {
            CHECK(near(dgamma[c], sum_gx[(size_t)c], 2e-6, sqrt(rows) + 3), "%s c %d: dgamma %g, not %g", k.isa, (int)s.c, dgamma[c],
                  sum_gx[(size_t)c]);
            CHECK(near(dbeta[c], sum_g[(size_t)c], 1e-6, sqrt(rows) + 3), "%s c %d: dbeta %g, not %g", k.isa, (int)s.c, dbeta[c],
                  sum_g[(size_t)c]);
          }
          CHECK(dx.storage.intact() && dr.storage.intact() && dgamma.intact() && dbeta.intact(), "%s", k.isa);
        }
}

// Without y its mask is that of bn_apply on the same operands, to the bit.
static void check_mask_from_x(const wl::Kernels& k) {
  for (const Shape& s : kShapes)
    for (int kind : {(int)UnaryKind::relu, (int)UnaryKind::relu6, (int)UnaryKind::leaky_relu})
      for (int with : {0, 1}) {
        Random random(17);
        Picture x(s.n, s.h, s.w, s.c, s.border), y(s.n, s.h, s.w, s.c, s.border), dy(s.n, s.h, s.w, s.c, s.border),
            dx(s.n, s.h, s.w, s.c, s.border), again(s.n, s.h, s.w, s.c, s.border);
        Parameters p(s.c, random);
        for (Picture* q : {&x, &dy}) q->fill([&](int64_t) { return random.real(); });
        const wl::Tensor *gamma = with ? &p.tgamma : nullptr, *beta = with ? &p.tbeta : nullptr;
        const auto attrs = [&](OpRun op) { return op.attr(AttrKey::activation, kind).attr(AttrKey::alpha, 0.1).attr(AttrKey::eps, kEps); };
        attrs(OpRun(Opcode::bn_apply, {&x.t, &p.tmean, &p.tvar, gamma, beta}, {&y.t})).run(k);
        attrs(OpRun(Opcode::bn_bwd, {&x.t, &dy.t, &p.tmean, &p.tvar, gamma, beta, &y.t}, {&dx.t})).run(k);
        attrs(OpRun(Opcode::bn_bwd, {&x.t, &dy.t, &p.tmean, &p.tvar, gamma, beta}, {&again.t})).run(k, 2);
        CHECK(dx.values() == again.values(), "%s c %d kind %d", k.isa, (int)s.c, kind);
        CHECK(again.storage.intact(), "%s", k.isa);
      }
}

// unary_bwd with sums: dx as without, and its sums over the rows.
static void check_grad_and_sums(const wl::Kernels& k) {
  for (const Shape& s : kShapes) {
    Random random(19);
    Picture y(s.n, s.h, s.w, s.c, s.border), dy(s.n, s.h, s.w, s.c, s.border), dx(s.n, s.h, s.w, s.c, s.border),
        alone(s.n, s.h, s.w, s.c, s.border);
    for (Picture* q : {&y, &dy}) q->fill([&](int64_t) { return random.real(); });
    Guarded<float> sums(s.c);
    const auto tsums = tensor(sums.data(), {s.c});
    const auto with_sums = OpRun(Opcode::unary_bwd, {&y.t, &dy.t}, {&dx.t, &tsums}).attr(AttrKey::kind, (int)UnaryKind::relu);
    same_for_threads(dx.storage, [&](int threads) { with_sums.run(k, threads); });
    same_for_threads(sums, [&](int threads) { with_sums.run(k, threads); });
    OpRun(Opcode::unary_bwd, {&y.t, &dy.t}, {&alone.t}).attr(AttrKey::kind, (int)UnaryKind::relu).run(k);
    CHECK(dx.values() == alone.values() && dx.storage.intact() && sums.intact(), "%s c %d", k.isa, (int)s.c);
    const auto g = dx.values();
    std::vector<double> want((size_t)s.c, 0.0);
    for (size_t i = 0; i < g.size(); ++i) want[i % (size_t)s.c] += g[i];
    for (int64_t c = 0; c < s.c; ++c)
      CHECK(near(sums[c], want[(size_t)c], 1e-6, sqrt((double)g.size() / (double)s.c) + 3), "%s c %d: %g, not %g", k.isa, (int)s.c, sums[c],
            want[(size_t)c]);
  }
}

static void check_running(const wl::Kernels& k) {
  Guarded<float> mean(5), var(5), old_mean(5), old_var(5), x(35);
  Random random;
  fill_reals(mean, random), fill_reals(var, random), fill_reals(old_mean, random), fill_reals(old_var, random);
  std::vector<float> was_mean(old_mean.begin(), old_mean.end()), was_var(old_var.begin(), old_var.end());
  const auto tm = tensor(mean.data(), {5}), tv = tensor(var.data(), {5}), tx = tensor(x.data(), {7, 5}), to = tensor(old_mean.data(), {5}),
             tov = tensor(old_var.data(), {5});
  OpRun(Opcode::bn_running, {&tm, &tv, &tx, &to, &tov}, {&to, &tov}).attr(AttrKey::momentum, 0.25).run(k);
  for (int i = 0; i < 5; ++i) {
    CHECK(near(old_mean[i], 0.75 * was_mean[(size_t)i] + 0.25 * mean[i], 2e-7, 1), "%s", k.isa);
    CHECK(near(old_var[i], 0.75 * was_var[(size_t)i] + 0.25 * 7 / 6 * var[i], 2e-7, 1), "%s", k.isa);
  }
}

static void check_refusals() {
  float storage[64] = {};
  const auto x = tensor(storage, {2, 4}), c = tensor(storage, {4}), wrong = tensor(storage, {3});
  auto wide = x;
  wide.strides[1] = 2, wide.strides[0] = 8;
  const auto refused = [](const OpRun& run, const char* what) { CHECK(!run.verify(), "%s was accepted", what); };
  refused(OpRun(Opcode::bn_stats, {&x}, {&c, &wrong}), "a variance of other extent");
  refused(OpRun(Opcode::bn_stats, {&wide}, {&c, &c}), "channels with a stride");
  refused(OpRun(Opcode::bn_apply, {&x, &c, &wrong}, {&x}), "a variance of other extent");
  refused(OpRun(Opcode::bn_apply, {&x, &c, &c}, {&x}).attr(AttrKey::eps, -1.0), "a negative eps");
  refused(OpRun(Opcode::bn_bwd, {&x, &x, &c, &c}, {&x}).attr(AttrKey::activation, (int)UnaryKind::relu).attr(AttrKey::frozen, 1),
          "relu without y");
  refused(OpRun(Opcode::bn_bwd, {&x, &x, &c, &c, nullptr, nullptr, &x}, {&x}).attr(AttrKey::activation, (int)UnaryKind::gelu), "gelu");
  refused(OpRun(Opcode::bn_running, {&c, &c, &x, &c, &c}, {&c, &c}).attr(AttrKey::momentum, 2.0), "momentum 2");
}

int main() {
  for_each_kernels([](const wl::Kernels& k) {
    check_stats(k);
    check_apply(k);
    check_grad(k);
    check_mask_from_x(k);
    check_grad_and_sums(k);
    check_running(k);
  });
  check_refusals();
  return finish();
}
