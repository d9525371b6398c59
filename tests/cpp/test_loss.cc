// Softmax and cross entropy on every ISA against double: huge logits, labels and soft targets, smoothing, weights, labels out of range.
#include "vectors.h"

using namespace harness;
using wl::AttrKey;
using wl::DType;
using wl::Opcode;

static std::vector<double> log_softmax(const float* x, int64_t n) {
  double top = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; ++i) top = fmax(top, x[i]);
  for (int64_t i = 0; i < n; ++i) sum += exp(x[i] - top);
  std::vector<double> y((size_t)n);
  for (int64_t i = 0; i < n; ++i) y[(size_t)i] = x[i] - top - log(sum);
  return y;
}

static void check_softmax(const wl::Kernels& k) {
  for (int64_t classes : {1, 2, 10, 16, 33, 1000})
    for (double range : {1.0, 1e4})
      for (int log_form : {0, 1}) {
        const int64_t rows = 37, gap = 3;
        Guarded<float> x(rows * (classes + gap)), y(rows * (classes + gap)), dy(rows * (classes + gap)), dx(rows * (classes + gap));
        Random random((uint64_t)classes);
        for (auto& v : x) v = (float)(random.real() * range);
        fill_reals(dy, random);
        auto view = [&](Guarded<float>& b) {
          auto t = tensor(b.data(), {rows, classes});
          t.strides[0] = classes + gap;
          return t;
        };
        const auto tx = view(x), ty = view(y), tdy = view(dy), tdx = view(dx);
        same_for_threads(y, [&](int threads) { OpRun(Opcode::softmax, {&tx}, {&ty}).attr(AttrKey::log, log_form).run(k, threads); });
        OpRun(Opcode::softmax_bwd, {&ty, &tdy}, {&tdx}).attr(AttrKey::log, log_form).run(k, 2);
        for (int64_t r = 0; r < rows; ++r) {
          const auto want = log_softmax(x.data() + r * (classes + gap), classes);
          const float *out = y.data() + r * (classes + gap), *d = dy.data() + r * (classes + gap), *din = dx.data() + r * (classes + gap);
          double sum = 0;
          for (int64_t c = 0; c < classes; ++c) {
            if (log_form)
              CHECK(near(out[c], want[(size_t)c], 2e-7, 1), "%s log classes %d: %g, not %g", k.isa, (int)classes, out[c], want[(size_t)c]);
            else
              CHECK(near(out[c], exp(want[(size_t)c]), 2e-6, 1e-30), "%s classes %d: %g, not %g", k.isa, (int)classes, out[c],
                    exp(want[(size_t)c]));
            sum += log_form ? d[c] : out[c] * (double)d[c];
          }
          for (int64_t c = 0; c < classes; ++c) {
            const double slope = log_form ? d[c] - exp(out[c]) * sum : out[c] * (d[c] - sum);
            CHECK(near(din[c], slope, 3e-6, log_form ? sqrt((double)classes) + fabs(sum) : 0.1), "%s classes %d: %g, not %g", k.isa,
                  (int)classes, din[c], slope);
          }
          for (int64_t c = classes; c < classes + gap && r + 1 < rows; ++c) CHECK(out[c] == 0, "%s: wrote between rows", k.isa);
        }
        CHECK(y.intact() && dx.intact(), "%s", k.isa);
        OpRun(Opcode::softmax, {&tx}, {&tx}).attr(AttrKey::log, log_form).run(k, 2);
        for (int64_t r = 0; r < rows; ++r)
          CHECK(!memcmp(x.data() + r * (classes + gap), y.data() + r * (classes + gap), (size_t)classes * 4), "%s: in place differs",
                k.isa);
      }
}

struct LossCase {
  bool soft, weighted, mean;
  double smoothing, range;
};

static void check_cross_entropy(const wl::Kernels& k) {
  const LossCase cases[] = {{false, false, true, 0, 1},   {false, true, true, 0, 3},      {false, false, false, 0.1, 3},
                            {true, false, true, 0, 3},    {true, true, false, 0.2, 3},    {false, true, true, 1, 1},
                            {false, false, true, 0, 1e4}, {false, false, true, 0.1, 1e4}, {true, false, true, 0.1, 1e4}};
  for (int64_t classes : {1, 2, 10, 17, 100})
    for (const LossCase& q : cases) {
      const int64_t n = 129;
      Guarded<float> logits(n * classes), targets(n * classes), weight(n), prob(n * classes), loss(1), dlogits(n * classes), dloss(1);
      Guarded<int32_t> labels(n);
      Random random((uint64_t)classes);
      for (auto& v : logits) v = (float)(random.real() * q.range);
      for (auto& v : targets) v = fabsf(random.real());
      for (auto& v : labels) v = (int32_t)random.integer(0, classes - 1);
      for (auto& v : weight) v = fabsf(random.real());
      dloss[0] = 0.5f;
      const auto tl = tensor(logits.data(), {n, classes}), tt = tensor(targets.data(), {n, classes}),
                 ti = tensor(labels.data(), {n}, DType::i32), tw = tensor(weight.data(), {n}), tp = tensor(prob.data(), {n, classes}),
                 tloss = tensor(loss.data(), {}), td = tensor(dlogits.data(), {n, classes}), tdloss = tensor(dloss.data(), {});
      const wl::Tensor *target = q.soft ? &tt : &ti, *w = q.weighted ? &tw : nullptr;
      const auto with = [&](OpRun run) { return run.attr(AttrKey::smoothing, q.smoothing).attr(AttrKey::mean, (int)q.mean); };
      same_for_threads(loss, [&](int threads) { with(OpRun(Opcode::cross_entropy, {&tl, target, w}, {&tloss, &tp})).run(k, threads); });
      same_for_threads(dlogits, [&](int threads) {
        with(OpRun(Opcode::cross_entropy_bwd, {&tp, target, w, &tdloss}, {&td})).run(k, threads);
      });
      double want = 0, magnitude = 0;
      for (int64_t r = 0; r < n; ++r) {
        const auto logp = log_softmax(logits.data() + r * classes, classes);
        const double wr = q.weighted ? weight[r] : 1;
        double total = 0;
        const auto share = [&](int64_t c) {
          return (1 - q.smoothing) * (q.soft ? targets[r * classes + c] : (labels[r] == c)) + q.smoothing / (double)classes;
        };
        for (int64_t c = 0; c < classes; ++c) total += share(c);
        for (int64_t c = 0; c < classes; ++c) {
          want -= wr * share(c) * logp[(size_t)c];
          magnitude += wr * share(c) * (fabs(logp[(size_t)c]) + q.range);
          const double p = exp(logp[(size_t)c]), slope = 0.5 * wr * (p * total - share(c)) / (q.mean ? (double)n : 1);
          CHECK(near(prob[r * classes + c], p, 2e-6, 1e-30), "%s classes %d: prob %g, not %g", k.isa, (int)classes, prob[r * classes + c],
                p);
          CHECK(near(dlogits[r * classes + c], slope, 2e-6, total * wr / (q.mean ? (double)n : 1)), "%s classes %d: %g, not %g", k.isa,
                (int)classes, dlogits[r * classes + c], slope);
        }
      }
      const double scale = q.mean ? 1 / (double)n : 1;
      CHECK(near(loss[0], want * scale, 1e-6, magnitude * scale), "%s classes %d soft %d: loss %.9g, not %.9g", k.isa, (int)classes, q.soft,
            loss[0], want * scale);
      CHECK(prob.intact() && dlogits.intact() && loss.intact() && labels.intact(), "%s", k.isa);
    }
}

// Pixels are samples too, and a weight per picture repeats over its pixels.
static void check_pixels(const wl::Kernels& k) {
  const int64_t n = 2, h = 3, w = 5, c = 7;
  Guarded<float> logits(n * h * w * c), weight(n), prob(n * h * w * c), flat(n * h * w * c), loss(1), other(1), spread(n * h * w);
  Guarded<int32_t> labels(n * h * w);
  Random random(8);
  fill_reals(logits, random);
  for (auto& v : labels) v = (int32_t)random.integer(0, c - 1);
  weight[0] = 0.25f, weight[1] = 2;
  for (int64_t i = 0; i < n * h * w; ++i) spread[i] = weight[i / (h * w)];
  auto tl = tensor(logits.data(), {n, h, w, c}), ti = tensor(labels.data(), {n, h, w}, DType::i32), tp = tensor(prob.data(), {n, h, w, c}),
       tw = tensor(weight.data(), {n, h, w}), tloss = tensor(loss.data(), {});
  tw.strides[0] = 1, tw.strides[1] = tw.strides[2] = 0;
  OpRun(Opcode::cross_entropy, {&tl, &ti, &tw}, {&tloss, &tp}).attr(AttrKey::mean, 1).run(k, 2);
  const auto fl = tensor(logits.data(), {n * h * w, c}), fi = tensor(labels.data(), {n * h * w}, DType::i32),
             fp = tensor(flat.data(), {n * h * w, c}), fw = tensor(spread.data(), {n * h * w}), floss = tensor(other.data(), {});
  OpRun(Opcode::cross_entropy, {&fl, &fi, &fw}, {&floss, &fp}).attr(AttrKey::mean, 1).run(k, 2);
  CHECK(loss[0] == other[0] && same_bytes(prob, flat), "%s: pixels differ from samples", k.isa);
}

// A label out of range makes its own row NaN, reads nothing outside, and leaves the other rows alone.
static void check_labels(const wl::Kernels& k) {
  Guarded<float> logits(30), prob(30), loss(1), dlogits(30), dloss(1);
  Guarded<int32_t> labels(3);
  dloss[0] = 1;
  labels[0] = 3, labels[1] = 10, labels[2] = -2147483647;
  const auto tl = tensor(logits.data(), {3, 10}), ti = tensor(labels.data(), {3}, DType::i32), tp = tensor(prob.data(), {3, 10}),
             tloss = tensor(loss.data(), {}), td = tensor(dlogits.data(), {3, 10}), tdloss = tensor(dloss.data(), {});
  OpRun(Opcode::cross_entropy, {&tl, &ti}, {&tloss, &tp}).run(k);
  OpRun(Opcode::cross_entropy_bwd, {&tp, &ti, nullptr, &tdloss}, {&td}).run(k);
  CHECK(isnan(loss[0]), "%s: the loss is %g", k.isa, loss[0]);
  for (int i = 0; i < 30; ++i) CHECK(isnan(dlogits[i]) == (i >= 10) && near(prob[i], 0.1, 1e-6), "%s at %d", k.isa, i);
}

int main() {
  for_each_kernels([](const wl::Kernels& k) {
    check_softmax(k);
    check_cross_entropy(k);
    check_pixels(k);
    check_labels(k);
  });
  return finish();
}
