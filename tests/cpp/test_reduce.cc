// Sum, mean and maximum over every set of axes of dense and permuted tensors, against double; accuracy of long sums; NaN; bits that depend
// neither on threads nor on the batch.
#include "kernels/reduce/reduce.h"
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

// The bits of every output are the same for 1…4 threads and for any part of the batch, however many outputs a kernel call takes together.
static void check_parts(const wl::Kernels& k) {
  const int64_t shapes[][3] = {{37, 5, 3},   {67, 10, 4},  {70, 33, 9},    {21, 7, 13},   {19, 38, 14},
                               {9, 20, 100}, {3, 300, 31}, {5, 16400, 10}, {11, 3, 2050}, {6, 4100, 17}};
  for (const auto& d : shapes)
    for (int axes : {2, 4, 6})
      for (ReduceKind kind : {ReduceKind::sum, ReduceKind::mean, ReduceKind::max}) {
        const int64_t n = d[0], of_one = (axes & 2 ? 1 : d[1]) * (axes & 4 ? 1 : d[2]);
        Guarded<float> x(n * d[1] * d[2]), all(n * of_one);
        Random random(6);
        fill_reals(x, random);
        const auto run = [&](int64_t first, int64_t count, float* to, int threads) {
          auto tx = tensor(x.data() + first * d[1] * d[2], {count, d[1], d[2]});
          auto ty = tensor(to, {count, axes & 2 ? 1 : d[1], axes & 4 ? 1 : d[2]});
          tx.batch = ty.batch = true;
          OpRun(Opcode::reduce, {&tx}, {&ty}).attr(AttrKey::kind, (int)kind).attr(AttrKey::axes, axes).run(k, threads);
        };
        same_for_threads(all, [&](int threads) { run(0, n, all.data(), threads); });
        for (int64_t count : {(int64_t)1, (int64_t)2, n - 1}) {
          Guarded<float> part(count * of_one);
          run(n - count, count, part.data(), 1);
          CHECK(memcmp(part.data(), all.data() + (n - count) * of_one, (size_t)(count * of_one) * 4) == 0,
                "%s kind %d axes %d of %d x %d x %d: %d samples give other bits", k.isa, (int)kind, axes, (int)n, (int)d[1], (int)d[2],
                (int)count);
        }
      }
}

// Rows and groups of rows of every short length, with and without gaps, and what lies between and behind them.
static void check_kernels(const wl::Kernels& k) {
  for (int64_t cols : {1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 33, 64, 70, 130, 260, 1030})
    for (int64_t gap : {0, 1})
      for (int64_t rows : {1, 3, 8, 21, 37})
        for (ReduceKind kind : {ReduceKind::sum, ReduceKind::max})
          for (bool with_nan : {false, true}) {
            const int64_t row = cols + gap, groups = 3, group = rows * row + gap, reach = (groups - 1) * group + (rows - 1) * row + cols;
            Guarded<float> x(reach), sums(rows), columns(groups * cols);
            for (int64_t i = 0; i < reach; ++i) x[i] = NAN;  // gaps too
            Random random((uint64_t)cols);
            std::vector<double> want_row((size_t)rows, kind == ReduceKind::max ? -INFINITY : 0.0);
            std::vector<double> want_column((size_t)(groups * cols), kind == ReduceKind::max ? -INFINITY : 1.0);
            const auto add = [&](double& to, float v) { to = kind == ReduceKind::sum ? to + v : to != to || v != v ? NAN : fmax(to, v); };
            for (int64_t g = 0; g < groups; ++g)
              for (int64_t r = 0; r < rows; ++r)
                for (int64_t c = 0; c < cols; ++c) {
                  const bool is_nan = with_nan && g == 0 && r == rows / 2 && c == cols / 2;
                  const float v = x[g * group + r * row + c] = is_nan ? NAN : floorf(100 * random.real());
                  if (g == 0) add(want_row[(size_t)r], v);
                  add(want_column[(size_t)(g * cols + c)], v);
                }
            k.reduce->rows(kind, rows, cols, x.data(), row, sums.data());
            for (float& v : columns) v = kind == ReduceKind::max ? -INFINITY : 1;
            k.reduce->columns(kind, groups, rows, cols, x.data(), group, row, columns.data());
            for (int64_t r = 0; r < rows; ++r)
              CHECK(near(sums[r], want_row[(size_t)r], 0), "%s kind %d: row %d of %d, %d columns, gap %d: %g, not %g", k.isa, (int)kind,
                    (int)r, (int)rows, (int)cols, (int)gap, sums[r], want_row[(size_t)r]);
            for (int64_t c = 0; c < groups * cols; ++c)
              CHECK(near(columns[c], want_column[(size_t)c], 0), "%s kind %d: column %d, %d rows of %d, gap %d: %g, not %g", k.isa,
                    (int)kind, (int)c, (int)rows, (int)cols, (int)gap, columns[c], want_column[(size_t)c]);
            CHECK(x.intact() && sums.intact() && columns.intact(), "%s cols %d", k.isa, (int)cols);
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
    check_case(k, {7300, 33, 9}, {}, false);  // short rows in pieces
    check_case(k, {}, {}, true);
    check_accuracy(k);
    check_batch(k);
    check_parts(k);
    check_kernels(k);
    check_nan(k);
  });
  return finish();
}
