// Element-wise ops as steps, on every ISA: unary and its gradient, binary with broadcasting, normalisation of pictures, one-hot, dropout,
// local response normalisation. Odd sizes, gaps between rows, in place, guard zones, equal bytes for 1 to 4 threads.
#include "base/random.h"
#include "vectors.h"

using namespace harness;
using wl::AttrKey;
using wl::BinaryKind;
using wl::DType;
using wl::Opcode;
using wl::UnaryKind;

// The ref kernels round a * b + c twice and sum in another order: agreement within a few units in the last place.
static const wl::Kernels& ref() {
  return *wl::find_kernels("ref");
}

static void check_unary(const wl::Kernels& k) {
  for (int number = 0; number <= (int)UnaryKind::affine; ++number)
    for (int64_t n : {1, 15, 33, 1000}) {
      Guarded<float> x(n), y(n), want(n), dx(n), dwant(n);
      Random random((uint64_t)n);
      for (auto& v : x) v = random.real() * 4;
      const auto tx = tensor(x.data(), {n}), ty = tensor(y.data(), {n}), twant = tensor(want.data(), {n}), tdx = tensor(dx.data(), {n}),
                 tdwant = tensor(dwant.data(), {n});
      const auto with = [&](OpRun run) { return run.attr(AttrKey::kind, number).attr(AttrKey::alpha, 0.3).attr(AttrKey::beta, 1.5); };
      with(OpRun(Opcode::unary, {&tx}, {&ty})).run(k);
      with(OpRun(Opcode::unary, {&tx}, {&twant})).run(ref());
      with(OpRun(Opcode::unary_bwd, {&ty, &tx}, {&tdx})).run(k);  // x stands in for dy; any tensor may be s
      with(OpRun(Opcode::unary_bwd, {&ty, &tx}, {&tdwant})).run(ref());
      for (int64_t i = 0; i < n; ++i) {
        CHECK(near(y[i], want[i], 1e-6, 1e-3), "%s kind %d n %d: %g, ref %g", k.isa, number, (int)n, y[i], want[i]);
        CHECK(near(dx[i], dwant[i], 1e-5, 0.05), "%s kind %d n %d: slope %g, ref %g", k.isa, number, (int)n, dx[i], dwant[i]);
      }
      with(OpRun(Opcode::unary, {&tx}, {&tx})).run(k);
      CHECK(same_bytes(x, y), "%s kind %d: in place differs", k.isa, number);
      CHECK(x.intact() && y.intact() && dx.intact(), "%s kind %d: out of bounds", k.isa, number);
    }
  // Rows with gaps: only the described elements change.
  Guarded<float> x(7 * 24), y(7 * 24);
  Random random;
  fill_reals(x, random);
  for (auto& v : y) v = 9;
  auto tx = tensor(x.data(), {7, 19}), ty = tx;
  ty.data = (char*)y.data();
  tx.strides[0] = ty.strides[0] = 24;
  OpRun(Opcode::unary, {&tx}, {&ty}).attr(AttrKey::kind, (int)UnaryKind::relu).run(k);
  for (int r = 0; r < 7; ++r)
    for (int c = 0; c < 24; ++c) CHECK(y[r * 24 + c] == (c < 19 ? fmaxf(0, x[r * 24 + c]) : 9), "%s", k.isa);
  Guarded<float> big(70001), out(70001);
  fill_reals(big, random);
  const auto tbig = tensor(big.data(), {70001}), tout = tensor(out.data(), {70001});
  same_for_threads(out,
                   [&](int threads) { OpRun(Opcode::unary, {&tbig}, {&tout}).attr(AttrKey::kind, (int)UnaryKind::gelu).run(k, threads); });
}

static float binary_of(int kind, float a, float b) {
  switch ((BinaryKind)kind) {
    case BinaryKind::add: return a + b;
    case BinaryKind::sub: return a - b;
    case BinaryKind::mul: return a * b;
    case BinaryKind::div: return a / b;
    case BinaryKind::maximum: return isnan(a) || a > b ? a : b;
    case BinaryKind::minimum: return isnan(a) || a < b ? a : b;
    case BinaryKind::greater_equal: return a >= b;
    case BinaryKind::greater: return a > b;
    default: return a == b;
  }
}

static void check_binary(const wl::Kernels& k) {
  struct Layout {
    std::initializer_list<int64_t> dims;
    int64_t a[4], b[4];  // strides; -1: dense
  };
  const Layout layouts[] = {
      {{3, 5, 7, 6}, {-1}, {-1}},                         // equal
      {{3, 5, 7, 6}, {-1}, {0, 0, 0, 1}},                 // per channel
      {{3, 5, 7, 1}, {-1}, {0, 0, 0, 1}},                 // one channel
      {{9, 11, 1, 67}, {0, 0, 0, 1}, {-1}},               // odd channels, other side
      {{2, 9, 5, 64}, {-1}, {64, 0, 0, 1}},               // per sample and channel
      {{2, 9, 5, 33}, {-1}, {0, 0, 0, 0}},                // scalar
      {{2, 3, 5, 17}, {0, 0, 0, 0}, {0, 0, 0, 0}},        // two scalars
      {{2, 9, 5, 16}, {-1}, {45, 5, 1, 0}},               // a weight per pixel
      {{4, 6, 10, 5}, {-1}, {300, 5, 30, 1}},             // transposed
      {{4, 6, 10, 5}, {1, 4, 24, 240}, {300, 50, 5, 1}},  // no unit stride inside
      {{1, 1, 1, 40000}, {-1}, {-1}},                     // long
  };
  for (const Layout& layout : layouts)
    for (int kind = 0; kind <= (int)BinaryKind::equal; ++kind) {
      auto ta = tensor(nullptr, layout.dims), tb = ta, ty = ta;
      for (int i = 0; i < 4; ++i) {
        if (layout.a[0] != -1) ta.strides[i] = layout.a[i];
        if (layout.b[0] != -1) tb.strides[i] = layout.b[i];
      }
      Guarded<float> a(reach(ta)), b(reach(tb)), y(reach(ty));
      Random random(3);
      fill_integers(a, random), fill_integers(b, random);
      if (a.size() > 5) a[4] = NAN;
      if (b.size() > 9) b[8] = NAN;
      ta.data = (char*)a.data(), tb.data = (char*)b.data(), ty.data = (char*)y.data();
      OpRun run(Opcode::binary, {&ta, &tb}, {&ty});
      run.attr(AttrKey::kind, kind);
      if (ty.elements() < 5000)
        run.run(k);
      else
        same_for_threads(y, [&](int threads) { run.run(k, threads); });
      std::vector<int64_t> at_a, at_b;
      each_element(ta, [&](int64_t, int64_t o) { at_a.push_back(o); });
      each_element(tb, [&](int64_t, int64_t o) { at_b.push_back(o); });
      for (int64_t i = 0; i < ty.elements(); ++i) {
        const float va = a[at_a[(size_t)i]], vb = b[at_b[(size_t)i]], want = binary_of(kind, va, vb);
        CHECK(y[i] == want || (isnan(y[i]) && isnan(want)), "%s kind %d at %d: %g and %g give %g, not %g", k.isa, kind, (int)i, va, vb,
              y[i], want);
      }
      CHECK(a.intact() && b.intact() && y.intact(), "%s", k.isa);
    }
  // In place, and into a view whose last axis has gaps.
  Guarded<float> a(200), b(200), wide(600);
  Random random(5);
  fill_reals(a, random), fill_reals(b, random);
  auto ta = tensor(a.data(), {200}), tb = tensor(b.data(), {200}), tw = tensor(wide.data(), {200});
  tw.strides[0] = 3;
  OpRun(Opcode::binary, {&ta, &tb}, {&tw}).attr(AttrKey::kind, 0).run(k);
  OpRun(Opcode::binary, {&ta, &tb}, {&ta}).attr(AttrKey::kind, 0).run(k);
  for (int i = 0; i < 200; ++i) CHECK(wide[3 * i] == a[i] && wide[3 * i + 1] == 0, "%s", k.isa);
}

static void check_normalize(const wl::Kernels& k) {
  for (int64_t c : {1, 3, 4, 6, 16, 31, 64, 100})
    for (int64_t rows : {1, 5, 301}) {
      Guarded<uint8_t> bytes(rows * c);
      Guarded<float> mean(c), scale(c), y(rows * c), floats(rows * c), z(rows * c);
      Random random((uint64_t)c);
      for (auto& v : bytes) v = (uint8_t)random.integer(0, 255);
      for (int64_t i = 0; i < rows * c; ++i) floats[i] = bytes[i];
      for (int64_t i = 0; i < c; ++i) mean[i] = (float)random.integer(0, 200), scale[i] = 1.0f / (float)(1 << (i % 5));
      const auto tb = tensor(bytes.data(), {1, rows, c}, DType::u8), tf = tensor(floats.data(), {1, rows, c}),
                 tm = tensor(mean.data(), {c}), ts = tensor(scale.data(), {c}), ty = tensor(y.data(), {1, rows, c}),
                 tz = tensor(z.data(), {1, rows, c});
      same_for_threads(y, [&](int threads) { OpRun(Opcode::normalize, {&tb, &tm, &ts}, {&ty}).run(k, threads); });
      OpRun(Opcode::normalize, {&tf, &tm, &ts}, {&tz}).run(k);
      for (int64_t i = 0; i < rows * c; ++i) {
        const float want = (bytes[i] - mean[i % c]) * scale[i % c];
        CHECK(y[i] == want && z[i] == want, "%s c %d", k.isa, (int)c);
      }
      CHECK(bytes.intact() && y.intact() && mean.intact() && z.intact(), "%s c %d", k.isa, (int)c);
    }
}

static void check_one_hot(const wl::Kernels& k) {
  int32_t index[] = {2, 0, 4, 5, -1};
  Guarded<float> y(25);
  const auto ti = tensor(index, {5}, DType::i32), ty = tensor(y.data(), {5, 5});
  OpRun(Opcode::one_hot, {&ti}, {&ty}).run(k);
  for (int r = 0; r < 5; ++r)
    for (int c = 0; c < 5; ++c) CHECK(r < 3 ? y[5 * r + c] == (c == index[r]) : isnan(y[5 * r + c]), "row %d", r);
}

static void check_dropout(const wl::Kernels& k) {
  const int64_t n = 5, m = 777;
  Guarded<float> x(n * m), y(n * m), one(m);
  for (auto& v : x) v = 2;
  wl::Scalar scalars[wl::kScalarSlots] = {};
  scalars[wl::kSlotSeed].i = 42, scalars[wl::kSlotStep].i = 9, scalars[wl::kSlotMicroStep].i = 1, scalars[wl::kSlotSample].i = 100;
  auto tx = tensor(x.data(), {n, m}), ty = tensor(y.data(), {n, m});
  tx.batch = ty.batch = true;
  const auto with = [](OpRun run) { return run.attr(AttrKey::rate, 0.25).attr(AttrKey::stream, (int64_t)0x1234567890abcdef); };
  same_for_threads(y, [&](int threads) { with(OpRun(Opcode::dropout, {&tx}, {&ty})).run(k, threads, scalars); });
  const uint64_t key = wl::random_key(42, 2, 0x1234567890abcdef, 9, 1);
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < m; ++j) {
      uint32_t numbers[wl::kRandomGroup];
      wl::random_group(key, (uint64_t)(100 + i), (uint64_t)(j / wl::kRandomGroup), numbers);
      const float want = numbers[j % wl::kRandomGroup] >= 1u << 30 ? 2.0f * (float)(1 / 0.75) : 0.0f;
      CHECK(y[i * m + j] == want, "%s at %d, %d", k.isa, (int)i, (int)j);
      kept += want != 0;
    }
  CHECK(fabs((double)kept / (double)(n * m) - 0.75) < 0.03, "%s keeps %d", k.isa, (int)kept);
  // A sample's mask is its own, whatever batch it travels in.
  auto tx1 = tensor(x.data() + 3 * m, {1, m}), ty1 = tensor(one.data(), {1, m});
  tx1.batch = ty1.batch = true;
  scalars[wl::kSlotSample].i = 103;
  with(OpRun(Opcode::dropout, {&tx1}, {&ty1})).run(k, 1, scalars);
  CHECK(memcmp(one.data(), y.data() + 3 * m, (size_t)m * 4) == 0, "%s", k.isa);
  x[0] = NAN, x[1] = INFINITY;
  with(OpRun(Opcode::dropout, {&tx}, {&tx})).run(k, 2, scalars);
  CHECK(x.intact() && y.intact() && one.intact(), "%s", k.isa);
}

static void check_lrn(const wl::Kernels& k) {
  for (int64_t c : {1, 5, 16, 35, 64})
    for (int64_t size : {1, 2, 5, 9, 200}) {
      const int64_t rows = 6;
      const double alpha = 0.3, beta = 0.75, bias = 2;
      Guarded<float> x(rows * c), y(rows * c), dy(rows * c), dx(rows * c);
      Random random((uint64_t)(c + size));
      fill_reals(x, random), fill_reals(dy, random);
      const auto tx = tensor(x.data(), {rows, c}), ty = tensor(y.data(), {rows, c}), tdy = tensor(dy.data(), {rows, c}),
                 tdx = tensor(dx.data(), {rows, c});
      const auto with = [&](OpRun run) {
        return run.attr(AttrKey::size, size).attr(AttrKey::alpha, alpha).attr(AttrKey::beta, beta).attr(AttrKey::k, bias);
      };
      with(OpRun(Opcode::lrn, {&tx}, {&ty})).run(k, 2);
      same_for_threads(dx, [&](int threads) { with(OpRun(Opcode::lrn_bwd, {&tx, &ty, &tdy}, {&tdx})).run(k, threads); });
      for (int64_t r = 0; r < rows; ++r) {
        std::vector<double> d((size_t)c), out((size_t)c);
        const auto in = [&](int64_t i) { return (double)x[r * c + i]; };
        for (int64_t i = 0; i < c; ++i) {
          double sum = 0;
          for (int64_t j = i - size / 2; j <= i + (size - 1) / 2; ++j)
            if (j >= 0 && j < c) sum += in(j)*in(j);
          d[(size_t)i] = bias + alpha / (double)size * sum;
          out[(size_t)i] = in(i)*pow(d[(size_t)i], -beta);
          CHECK(near(y[r * c + i], out[(size_t)i], 1e-6, 1e-3), "%s c %d size %d", k.isa, (int)c, (int)size);
        }
        for (int64_t i = 0; i < c; ++i) {
          double slope = (double)dy[r * c + i] * pow(d[(size_t)i], -beta);
          for (int64_t j = 0; j < c; ++j)
            if (i >= j - size / 2 && i <= j + (size - 1) / 2)
              slope -= 2 * alpha / (double)size * beta * in(i) * (double)dy[r * c + j] * out[(size_t)j] / d[(size_t)j];
          CHECK(near(dx[r * c + i], slope, 3e-6, 1e-2), "%s c %d size %d: %g, not %g", k.isa, (int)c, (int)size, dx[r * c + i], slope);
        }
      }
      CHECK(y.intact() && dx.intact(), "%s", k.isa);
    }
}

// What the verifier refuses.
static void check_refusals() {
  float storage[64] = {};
  auto x = tensor(storage, {4, 4}), y = tensor(storage, {4, 4}), small = tensor(storage, {4, 3}),
       bytes = tensor(storage, {4, 4}, DType::u8);
  const auto refused = [](const OpRun& run, const char* what) { CHECK(!run.verify(), "%s was accepted", what); };
  refused(OpRun(Opcode::unary, {&x}, {&y}).attr(AttrKey::kind, 99), "an unknown kind");
  refused(OpRun(Opcode::unary, {&x}, {&small}).attr(AttrKey::kind, 1), "other extents");
  refused(OpRun(Opcode::unary, {&bytes}, {&y}).attr(AttrKey::kind, 1), "bytes");
  refused(OpRun(Opcode::unary, {nullptr}, {&y}).attr(AttrKey::kind, 1), "an absent input");
  refused(OpRun(Opcode::unary_bwd, {nullptr, &x}, {&y}).attr(AttrKey::kind, 1), "relu without y");
  refused(OpRun(Opcode::binary, {&x, &small}, {&y}).attr(AttrKey::kind, 0), "operands that do not broadcast");
  auto repeated = y, crossed = y, batched = x;
  repeated.strides[0] = 0, crossed.strides[0] = 2, batched.batch = true;
  refused(OpRun(Opcode::binary, {&x, &x}, {&repeated}).attr(AttrKey::kind, 0), "an output that repeats");
  refused(OpRun(Opcode::binary, {&x, &x}, {&crossed}).attr(AttrKey::kind, 0), "an output that overlaps itself");
  refused(OpRun(Opcode::unary, {&batched}, {&y}).attr(AttrKey::kind, 1), "a batch that is not one behind");
  refused(OpRun(Opcode::dropout, {&x}, {&y}).attr(AttrKey::rate, 1.0), "rate 1");
  refused(OpRun(Opcode::dropout, {&x}, {&y}).attr(AttrKey::rate, (double)NAN), "rate NaN");
  refused(OpRun(Opcode::lrn, {&x}, {&y}).attr(AttrKey::size, 0), "size 0");
  refused(OpRun(Opcode::normalize, {&x, &small, &small}, {&y}), "means of rank 2");
}

int main() {
  for_each_kernels([](const wl::Kernels& k) {
    check_unary(k);
    check_binary(k);
    check_normalize(k);
    check_one_hot(k);
    check_dropout(k);
    check_lrn(k);
  });
  check_refusals();
  return finish();
}
