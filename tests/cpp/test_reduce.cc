// Sum, mean and maximum over every set of axes of dense and permuted tensors, against double; accuracy of long sums; NaN; bits that depend
// neither on threads nor on the batch.
#include "vectors.h"

using namespace harness;
using wl::AttrKey;
using wl::Opcode;
using wl::ReduceKind;

static void check_case(const wl::Kernels& k, std::initializer_list<int64_t> dims, std::initializer_list<int> order, bool integers) {
  auto tx = tensor(nullptr, dims);
  if (order.size()) {  // memory order of the axes, outermost first; rows keep a gap of 3
    int64_t stride = 1;
    for (int i = tx.rank - 1; i >= 0; --i) {
      const int axis = *(order.begin() + i);
      tx.strides[axis] = stride;
      stride *= tx.dims[axis];
      if (i == tx.rank - 1) stride += 3;
    }
  }
  Guarded<float> x(reach(tx));
  Random random(11);
  integers ? fill_integers(x, random) : fill_reals(x, random);
  tx.data = (char*)x.data();
  for (int mask = 0; mask < 1 << tx.rank; ++mask) {
    auto ty = tx;
    int64_t stride = 1, count = 1;
    for (int a = tx.rank - 1; a >= 0; --a) {
      if (mask >> a & 1) ty.dims[a] = 1, count *= tx.dims[a];
      ty.strides[a] = stride, stride *= ty.dims[a];
    }
    Guarded<float> y(stride);
    ty.data = (char*)y.data();
    std::vector<double> sum((size_t)stride, 0.0), top((size_t)stride, -INFINITY), magnitude((size_t)stride, 0.0);
    each_element(tx, [&](int64_t i, int64_t offset) {
      int64_t rest = i, o = 0;
      for (int a = tx.rank - 1; a >= 0; --a) {
        if (!(mask >> a & 1)) o += rest % tx.dims[a] * ty.strides[a];
        rest /= tx.dims[a];
      }
      const double v = x[offset];
      sum[(size_t)o] += v, magnitude[(size_t)o] += fabs(v);
      if (v > top[(size_t)o]) top[(size_t)o] = v;
    });
    for (ReduceKind kind : {ReduceKind::sum, ReduceKind::mean, ReduceKind::max}) {
      OpRun run(Opcode::reduce, {&tx}, {&ty});
      run.attr(AttrKey::kind, (int)kind).attr(AttrKey::axes, mask);
      if (tx.elements() > 20000)
        same_for_threads(y, [&](int threads) { run.run(k, threads); });
      else
        run.run(k);
      for (int64_t o = 0; o < stride; ++o) {
        const double want = kind == ReduceKind::max    ? top[(size_t)o]
                            : kind == ReduceKind::mean ? sum[(size_t)o] / (double)count
                                                       : sum[(size_t)o];
        const double scale = kind == ReduceKind::mean ? magnitude[(size_t)o] / (double)count : magnitude[(size_t)o];
        if (integers || kind == ReduceKind::max)
          CHECK(y[o] == (float)want, "%s kind %d axes %x at %d: %g, not %g", k.isa, (int)kind, mask, (int)o, y[o], want);
        else
          CHECK(near(y[o], want, 1e-6, scale), "%s kind %d axes %x at %d: %g, not %g", k.isa, (int)kind, mask, (int)o, y[o], want);
      }
    }
    CHECK(y.intact() && x.intact(), "%s axes %x", k.isa, mask);
  }
}

// A long sum keeps its digits: naive float32 would lose four of them.
static void check_accuracy(const wl::Kernels& k) {
  if (!strcmp(k.isa, "ref")) return;
  for (int64_t c : {1, 6, 32}) {
    const int64_t rows = 600000 / c;
    Guarded<float> x(rows * c), y(c);
    Random random(2);
    std::vector<double> want((size_t)c, 0.0);
    for (int64_t i = 0; i < rows * c; ++i) want[(size_t)(i % c)] += x[i] = 1000 + random.real();
    const auto tx = tensor(x.data(), {rows, c}), ty = tensor(y.data(), {1, c});
    OpRun(Opcode::reduce, {&tx}, {&ty}).attr(AttrKey::kind, 0).attr(AttrKey::axes, 1).run(k, 2);
    for (int64_t i = 0; i < c; ++i)
      CHECK(near(y[i], want[(size_t)i], 3e-7), "%s c %d: %.9g, not %.9g", k.isa, (int)c, y[i], want[(size_t)i]);
  }
}

// A sample's result does not depend on the batch that it travels in, nor on whether the batch is 1.
static void check_batch(const wl::Kernels& k) {
  const int64_t n = 3, h = 77, w = 61, c = 19;
  Guarded<float> x(n * h * w * c), y(n * c), one(c), all(n), alone(1);
  Random random(4);
  fill_reals(x, random);
  auto tx = tensor(x.data(), {n, h, w, c}), ty = tensor(y.data(), {n, 1, 1, c}), t1 = tx, ty1 = tensor(one.data(), {1, 1, 1, c});
  auto tall = tensor(all.data(), {n, 1, 1, 1}), talone = tensor(alone.data(), {1, 1, 1, 1});
  t1.dims[0] = 1, t1.data = (char*)(x.data() + h * w * c);
  for (wl::Tensor* t : {&tx, &ty, &t1, &ty1, &tall, &talone}) t->batch = true;
  const auto with = [](OpRun run, int axes) { return run.attr(AttrKey::kind, (int)ReduceKind::mean).attr(AttrKey::axes, axes); };
  with(OpRun(Opcode::reduce, {&tx}, {&ty}), 6).run(k, 2);
  with(OpRun(Opcode::reduce, {&t1}, {&ty1}), 6).run(k, 1);
  CHECK(memcmp(one.data(), y.data() + c, (size_t)c * 4) == 0, "%s: a sample's means depend on its batch", k.isa);
  with(OpRun(Opcode::reduce, {&tx}, {&tall}), 14).run(k, 2);
  with(OpRun(Opcode::reduce, {&t1}, {&talone}), 14).run(k, 1);
  CHECK(all[1] == alone[0], "%s: a sample's mean depends on its batch", k.isa);
}

static void check_nan(const wl::Kernels& k) {
  for (int64_t at : {0, 5, 16, 40, 99})
    for (int axes : {1, 2, 3}) {
      Guarded<float> x(100), y(100);
      for (int64_t i = 0; i < 100; ++i) x[i] = (float)i;
      x[at] = NAN;
      const auto tx = tensor(x.data(), {4, 25});
      auto ty = tensor(y.data(), {axes & 1 ? 1 : 4, axes & 2 ? 1 : 25});
      for (int kind : {0, 1, 2}) {
        OpRun(Opcode::reduce, {&tx}, {&ty}).attr(AttrKey::kind, kind).attr(AttrKey::axes, axes).run(k);
        const int64_t o = axes == 1 ? at % 25 : axes == 2 ? at / 25 : 0;
        for (int64_t i = 0; i < ty.elements(); ++i) CHECK(isnan(y[i]) == (i == o), "%s kind %d axes %d", k.isa, kind, axes);
      }
    }
}

int main() {
  for_each_kernels([](const wl::Kernels& k) {
    for (bool integers : {true, false}) {
      check_case(k, {3, 5, 7, 6}, {}, integers);
      check_case(k, {3, 5, 7, 6}, {0, 3, 1, 2}, integers);
      check_case(k, {3, 5, 7, 6}, {3, 2, 1, 0}, integers);
      check_case(k, {1, 17, 1, 33}, {}, integers);
      check_case(k, {2, 9, 5, 3, 4, 2}, {1, 0, 5, 4, 2, 3}, integers);
      check_case(k, {100000}, {}, integers);
      check_case(k, {4, 300, 67}, {}, integers);
      check_case(k, {7, 5000}, {}, integers);
      check_case(k, {5000, 7}, {}, integers);
      check_case(k, {9, 4100}, {1, 0}, integers);
    }
    check_case(k, {}, {}, true);
    check_accuracy(k);
    check_batch(k);
    check_nan(k);
  });
  return finish();
}
