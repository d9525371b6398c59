// Optimizer updates over several steps against torch's formulas in double, clipping, the sum of gradients.
#include <string.h>

#include <array>

#include "vectors.h"

using namespace harness;
using wl::AttrKey;
using wl::Opcode;

struct Sgd {
  double momentum, dampening, decay;
  bool nesterov, decoupled, clip;
};

static void check_sgd(const wl::Kernels& k, int64_t n, const Sgd& q) {
  Guarded<float> grad(n), param(n), velocity(n), clip(1);
  Random random((uint64_t)n);
  fill_reals(param, random);
  clip[0] = 0.5f;
  std::vector<double> p(param.begin(), param.end()), v((size_t)n, 0.0);
  const auto tg = tensor(grad.data(), {n}), tp = tensor(param.data(), {n}), tv = tensor(velocity.data(), {n}), tc = tensor(clip.data(), {});
  const bool keeps = q.momentum != 0;
  wl::Scalar scalars[wl::kScalarSlots] = {};
  for (int step = 0; step < 5; ++step) {
    fill_reals(grad, random);
    const double lr = 0.1 / (step + 1);
    scalars[wl::kSlotStep].i = step, scalars[wl::kSlotFirstGroup].f = lr;
    OpRun(Opcode::sgd_update, {&tg, &tp, keeps ? &tv : nullptr, q.clip ? &tc : nullptr}, {&tp, keeps ? &tv : nullptr})
        .attr(AttrKey::momentum, q.momentum)
        .attr(AttrKey::dampening, q.dampening)
        .attr(AttrKey::weight_decay, q.decay)
        .attr(AttrKey::nesterov, (int)q.nesterov)
        .attr(AttrKey::decoupled, (int)q.decoupled)
        .attr(AttrKey::maximum, q.clip ? 0.3 : (double)INFINITY)
        .attr(AttrKey::slot, (int)wl::kSlotFirstGroup)
        .run(k, 2, scalars);
    for (int64_t i = 0; i < n; ++i) {
      double &pi = p[(size_t)i], &vi = v[(size_t)i], g = grad[i];
      if (q.clip) g = fmin(fmax(g * 0.5, -0.3), 0.3);
      if (!q.decoupled) g += q.decay * pi;
      if (q.decoupled) pi -= lr * q.decay * pi;
      if (keeps) {
        vi = step == 0 ? g : q.momentum * vi + (1 - q.dampening) * g;
        g = q.nesterov ? g + q.momentum * vi : vi;
      }
      pi -= lr * g;
      CHECK(near(param[i], pi, 1e-6, 1), "%s n %d step %d: %g, not %g", k.isa, (int)n, step, param[i], pi);
    }
  }
  CHECK(param.intact() && velocity.intact() && grad.intact(), "%s", k.isa);
}

// With the gradient xᵀ dy made on the way: the bits of matmul followed by the update, for any number of threads. `moments` are the
// optimizer's vectors: none or one for SGD, two for Adam.
static void check_matmul_update(const wl::Kernels& k, int64_t m, int64_t rows, int64_t columns, int moments) {
  const int64_t n = rows * columns;
  Guarded<float> x(m * rows), dy(m * columns), grad(n);
  Random random((uint64_t)n);
  fill_reals(x, random);
  fill_reals(dy, random);
  const auto tx = tensor(x.data(), {m, rows}), ty = tensor(dy.data(), {m, columns}), tg = tensor(grad.data(), {rows, columns}),
             tf = tensor(grad.data(), {n});
  const auto more_x = tensor(x.data(), {2 * m, rows}), more_dy = tensor(dy.data(), {2 * m, columns});  // a larger batch that was planned
  OpRun(Opcode::matmul, {&tx, &ty}, {&tg}).attr(AttrKey::trans_a, 1).run(k, 1);
  wl::Scalar scalars[wl::kScalarSlots] = {};
  scalars[wl::kSlotStep].i = 3;
  for (int slot = 0; slot < 3; ++slot) scalars[wl::kSlotFirstGroup + slot].f = 0.1;
  for (int threads = 1; threads <= 2; ++threads) {
    Guarded<float> found(3 * n), expected(3 * n);  // the parameters, then the vectors
    for (int64_t i = 0; i < 3 * n; ++i) expected[i] = found[i] = random.real() * random.real();
    for (int64_t i = 2 * n; i < 3 * n; ++i) expected[i] = found[i] = found[i] * found[i];  // the second moment
    const auto of = [n](Guarded<float>& memory, int i) { return tensor(memory.data() + i * n, {n}); };
    const auto p = of(expected, 0), v = of(expected, 1), v2 = of(expected, 2), fp = of(found, 0), fv = of(found, 1), fv2 = of(found, 2);
    const wl::Tensor *one = moments ? &v : nullptr, *found_one = moments ? &fv : nullptr;
    const auto with_attrs = [&](OpRun op) {
      op.attr(AttrKey::weight_decay, 1e-2).attr(AttrKey::maximum, 2.0).attr(AttrKey::slot, (int)wl::kSlotFirstGroup);
      if (moments == 2) return op.attr(AttrKey::beta1, 0.8).attr(AttrKey::beta2, 0.9).attr(AttrKey::eps, 1e-3);
      return op.attr(AttrKey::momentum, 0.9 * moments).attr(AttrKey::nesterov, moments);
    };
    with_attrs(moments == 2 ? OpRun(Opcode::adam_update, {&tf, &p, one, &v2}, {&p, one, &v2})
                            : OpRun(Opcode::sgd_update, {&tf, &p, one}, {&p, one}))
        .run(k, 1, scalars);
    const auto product = [&](const wl::Tensor* a, const wl::Tensor* b) {
      return with_attrs(moments == 2 ? OpRun(Opcode::adam_matmul, {a, b, &fp, found_one, &fv2}, {&fp, found_one, &fv2})
                                     : OpRun(Opcode::sgd_matmul, {a, b, &fp, found_one}, {&fp, found_one}));
    };
    product(&tx, &ty).run(k, threads, scalars, product(&more_x, &more_dy).choose(k, threads).workspace);
    CHECK(!memcmp(found.data(), expected.data(), (size_t)(3 * n) * 4), "%s: %d x %d from %d rows, %d vectors, %d threads", k.isa, (int)rows,
          (int)columns, (int)m, moments, threads);
    CHECK(found.intact() && x.intact() && dy.intact(), "%s", k.isa);
  }
}

static void check_adam(const wl::Kernels& k, int64_t n, double decay, bool decoupled) {
  Guarded<float> grad(n), param(n), m(n), v(n);
  Random random((uint64_t)n);
  fill_reals(param, random);
  std::vector<double> p(param.begin(), param.end()), pm((size_t)n, 0.0), pv((size_t)n, 0.0);
  const auto tg = tensor(grad.data(), {n}), tp = tensor(param.data(), {n}), tm = tensor(m.data(), {n}), tv = tensor(v.data(), {n});
  wl::Scalar scalars[wl::kScalarSlots] = {};
  const double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  for (int step = 1; step <= 6; ++step) {
    fill_reals(grad, random);
    const double lr = 0.01, c1 = 1 - pow(beta1, step), c2 = 1 - pow(beta2, step);
    scalars[12].f = lr, scalars[13].f = c1, scalars[14].f = c2;
    OpRun(Opcode::adam_update, {&tg, &tp, &tm, &tv}, {&tp, &tm, &tv})
        .attr(AttrKey::beta1, beta1)
        .attr(AttrKey::beta2, beta2)
        .attr(AttrKey::eps, eps)
        .attr(AttrKey::weight_decay, decay)
        .attr(AttrKey::decoupled, (int)decoupled)
        .attr(AttrKey::slot, 12)
        .run(k, 2, scalars);
    for (int64_t i = 0; i < n; ++i) {
      double &pi = p[(size_t)i], &mi = pm[(size_t)i], &vi = pv[(size_t)i], g = grad[i];
      if (decoupled)
        pi -= lr * decay * pi;
      else
        g += decay * pi;
      mi = beta1 * mi + (1 - beta1) * g, vi = beta2 * vi + (1 - beta2) * g * g;
      pi -= lr / c1 * mi / (sqrt(vi) / sqrt(c2) + eps);
      CHECK(near(param[i], pi, 3e-6, 1), "%s n %d step %d: %g, not %g", k.isa, (int)n, step, param[i], pi);
    }
  }
  CHECK(param.intact() && m.intact() && v.intact(), "%s", k.isa);
}

static void check_clip_factor(const wl::Kernels& k) {
  for (int64_t n : {1, 17, 5000, 40000}) {
    Guarded<float> a(n), b(33), factor(1);
    Random random((uint64_t)n);
    fill_reals(a, random), fill_reals(b, random);
    double sum = 0;
    for (float v : a) sum += (double)v * v;
    for (float v : b) sum += (double)v * v;
    const auto ta = tensor(a.data(), {n}), tb = tensor(b.data(), {33}), tf = tensor(factor.data(), {});
    for (double max_norm : {0.5, 1e6}) {
      same_for_threads(factor, [&](int threads) {
        OpRun(Opcode::clip_factor, {&ta, &tb}, {&tf}).attr(AttrKey::max_norm, max_norm).run(k, threads);
      });
      CHECK(near(factor[0], fmin(1, max_norm / (sqrt(sum) + 1e-6)), 5e-7), "%s n %d: %g", k.isa, (int)n, factor[0]);
    }
    a[0] = NAN;
    OpRun(Opcode::clip_factor, {&ta}, {&tf}).attr(AttrKey::max_norm, 1.0).run(k);
    CHECK(isnan(factor[0]), "%s", k.isa);
  }
}

static void check_accumulate(const wl::Kernels& k) {
  Guarded<float> x(1003), sum(1003);
  wl::Scalar scalars[wl::kScalarSlots] = {};
  const auto tx = tensor(x.data(), {17, 59}), ts = tensor(sum.data(), {17, 59});
  for (int64_t i = 0; i < 1003; ++i) x[i] = (float)i, sum[i] = NAN;
  const auto run = [&](double factor) {
    scalars[wl::kSlotAccumulate].f = factor;
    OpRun(Opcode::accumulate, {&tx, &ts}, {&ts}).run(k, 2, scalars);
  };
  run(0), run(1), run(1);
  for (int64_t i = 0; i < 1003; ++i) CHECK(sum[i] == 3 * (float)i, "%s", k.isa);
  CHECK(sum.intact(), "%s", k.isa);
}

static void check_refusals() {
  float storage[64] = {};
  const auto p = tensor(storage, {8}), other = tensor(storage, {4});
  auto elsewhere = p;
  elsewhere.offset = 64;
  const auto refused = [](OpRun run, const char* what) { CHECK(!run.attr(AttrKey::slot, 8).verify(), "%s was accepted", what); };
  refused(OpRun(Opcode::sgd_update, {&p, &p}, {&elsewhere}), "a parameter that is not in place");
  refused(OpRun(Opcode::sgd_update, {&other, &p}, {&p}), "a gradient of other extents");
  refused(OpRun(Opcode::sgd_update, {&p, &p}, {&p}).attr(AttrKey::momentum, 0.9), "momentum without velocity");
  refused(OpRun(Opcode::adam_update, {&p, &p, &p, &p}, {&p, &p, &p}).attr(AttrKey::beta1, 2.0), "beta1 2");
  const auto matrix = tensor(storage, {2, 3});
  refused(OpRun(Opcode::sgd_matmul, {&matrix, &matrix, &p}, {&p}), "8 parameters for 3 x 3");
  refused(OpRun(Opcode::sgd_matmul, {&matrix, &p, &p}, {&p}), "a dy that is no matrix");
  refused(OpRun(Opcode::adam_matmul, {&matrix, &matrix, &p, &p, &p}, {&p, &p, &p}), "8 parameters for 3 x 3");
  CHECK(!OpRun(Opcode::sgd_update, {&p, &p}, {&p}).verify(), "no slot was accepted");
  CHECK(!OpRun(Opcode::adam_update, {&p, &p, &p, &p}, {&p, &p, &p}).attr(AttrKey::slot, (int)wl::kScalarSlots - 1).verify(),
        "a slot at the end");
}

int main() {
  for_each_kernels([](const wl::Kernels& k) {
    for (const auto& [m, rows, columns] : {std::array<int64_t, 3>{1, 1, 1}, {5, 33, 17}, {16, 100, 300}, {64, 70, 2100}, {150, 40, 48}})
      for (int moments = 0; moments < 3; ++moments) check_matmul_update(k, m, rows, columns, moments);
    for (int64_t n : {1, 15, 1000, 33000}) {
      for (const Sgd& q : {Sgd{0, 0, 0, false, false, false}, Sgd{0.9, 0, 1e-2, false, false, false}, Sgd{0.9, 0, 1e-2, true, false, true},
                           Sgd{0.8, 0.3, 0.1, false, true, false}})
        check_sgd(k, n, q);
      check_adam(k, n, 0, false);
      check_adam(k, n, 0.1, false);
      check_adam(k, n, 0.1, true);
    }
    check_clip_factor(k);
    check_accumulate(k);
  });
  check_refusals();
  return finish();
}
