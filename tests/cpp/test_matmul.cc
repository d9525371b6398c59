// matmul against plain loops in double: all cases of tests/cases/matmul.txt on
// every ISA, with strided rows, bias and activation, threads, inside guarded
// buffers.
#include "harness.h"

using namespace harness;
using wl::AttrKey;
using wl::Kernels;
using wl::Opcode;
using wl::Tensor;

namespace {

struct Problem {
  int64_t m, n, k, batch;
  bool trans_a, trans_b, broadcast_a, broadcast_b;
  explicit Problem(const Case& c)
      : m(c["m"]),
        n(c["n"]),
        k(c["k"]),
        batch(c.get("batch", 1)),
        trans_a(c.get("ta", 0) != 0),
        trans_b(c.get("tb", 0) != 0),
        broadcast_a(c.get("ba", 1) == 0),
        broadcast_b(c.get("bb", 1) == 0) {}
};

// `batch` matrices of rows x columns, rows and matrices `gap` floats apart.
struct Matrices {
  Guarded<float> data;
  Tensor t;
  Matrices(int64_t batch, int64_t rows, int64_t columns, int64_t gap, bool broadcast)
      : data((broadcast ? 0 : batch - 1) * (rows * (columns + gap) + gap) + (rows - 1) * (columns + gap) + columns),
        t(tensor(data.data(), {batch, rows, columns})) {
    t.strides[1] = columns + gap, t.strides[0] = broadcast ? 0 : rows * t.strides[1] + gap;
  }
  float at(int64_t b, int64_t r, int64_t c) const { return data[b * t.strides[0] + r * t.strides[1] + c]; }
};

void test_case(const Kernels& kernels, const std::string& text, const Problem& p, int64_t gap, bool exact, bool epilogue, int threads) {
  Matrices a(p.batch, p.trans_a ? p.k : p.m, p.trans_a ? p.m : p.k, gap, p.broadcast_a);
  Matrices b(p.batch, p.trans_b ? p.n : p.k, p.trans_b ? p.k : p.n, gap, p.broadcast_b);
  Matrices y(p.batch, p.m, p.n, gap, false);
  Guarded<float> bias(p.n);
  Random random((uint64_t)(p.m * 3 + p.n * 5 + p.k * 7));
  for (auto* m : {&a.data, &b.data, &y.data, &bias}) exact ? fill_integers(*m, random) : fill_reals(*m, random);
  const std::vector<float> before(y.data.begin(), y.data.end());
  const Tensor bias_tensor = tensor(bias.data(), {p.n});
  OpRun op(Opcode::matmul, {&a.t, &b.t, epilogue ? &bias_tensor : nullptr}, {&y.t});
  op.attr(AttrKey::trans_a, (int64_t)p.trans_a).attr(AttrKey::trans_b, (int64_t)p.trans_b);
  if (epilogue) op.attr(AttrKey::activation, (int64_t)wl::UnaryKind::relu);
  if (!op.run(kernels, threads)) return;
  CHECK(y.data.intact());
  std::vector<float> left = before;
  for (int64_t batch = 0; batch < p.batch; ++batch)
    for (int64_t r = 0; r < p.m; ++r)
      for (int64_t c = 0; c < p.n; ++c) {
        double want = epilogue ? bias[c] : 0, size = 1;
        for (int64_t q = 0; q < p.k; ++q) {
          const double product =
              double(p.trans_a ? a.at(batch, q, r) : a.at(batch, r, q)) * (p.trans_b ? b.at(batch, c, q) : b.at(batch, q, c));
          want += product, size += fabs(product);
        }
        if (epilogue && want < 0) want = 0;
        const float got = y.at(batch, r, c);
        CHECK(fabs(got - want) <= (exact ? 0 : 1e-6 * size), "%s %s [%ld][%ld][%ld]: %g, not %g", kernels.isa, text.c_str(), (long)batch,
              (long)r, (long)c, got, want);
        left[batch * y.t.strides[0] + r * y.t.strides[1] + c] = got;
      }
  CHECK(memcmp(left.data(), y.data.data(), left.size() * sizeof(float)) == 0, "%s %s wrote between the rows", kernels.isa, text.c_str());
}

// A row's bits are the same whatever rows come with it, and for any number of
// threads.
void test_same_bits(const Kernels& kernels, int64_t n, int64_t k) {
  const int64_t m = 300;
  Guarded<float> a(m * k), b(k * n), bt(n * k), y(m * n);
  Random random(3);
  fill_reals(a, random), fill_reals(b, random);
  for (int64_t q = 0; q < k; ++q)
    for (int64_t c = 0; c < n; ++c) bt[c * k + q] = b[q * n + c];
  std::vector<float> first;
  const auto run = [&](int64_t rows, int threads, bool trans_b) {
    const Tensor ta = tensor(a.data(), {rows, k}), tb = trans_b ? tensor(bt.data(), {n, k}) : tensor(b.data(), {k, n}),
                 ty = tensor(y.data(), {rows, n});
    OpRun op(Opcode::matmul, {&ta, &tb}, {&ty});
    op.attr(AttrKey::trans_b, (int64_t)trans_b);
    op.run(kernels, threads);
    if (first.empty()) first.assign(y.begin(), y.end());
    CHECK(memcmp(y.data(), first.data(), rows * n * sizeof(float)) == 0, "%s %ldx%ldx%ld: bits differ", kernels.isa, (long)rows, (long)n,
          (long)k);
  };
  for (bool trans_b : {false, true})
    for (int64_t rows : {m, int64_t(1), int64_t(2), int64_t(7), int64_t(16), int64_t(17), int64_t(64)})
      for (int threads : {1, 3}) run(rows, threads, trans_b);
}

// Scratch asked for at the planned number of rows is enough for fewer.
void test_fewer_rows(const Kernels& kernels, int64_t planned_rows, int64_t n, int64_t k, bool trans_b) {
  Guarded<float> a(planned_rows * k), b(k * n), y(planned_rows * n);
  Tensor ta = tensor(a.data(), {planned_rows, k}), tb = trans_b ? tensor(b.data(), {n, k}) : tensor(b.data(), {k, n}),
         ty = tensor(y.data(), {planned_rows, n});
  OpRun op(Opcode::matmul, {&ta, &tb}, {&ty});
  op.attr(AttrKey::trans_b, (int64_t)trans_b);
  const int64_t planned = op.choose(kernels, 2).workspace;
  for (int64_t rows : {planned_rows, planned_rows / 2, int64_t(65), int64_t(64), int64_t(3), int64_t(1)}) {
    ta.dims[0] = ty.dims[0] = wl::min_of(rows, planned_rows);
    op.run(kernels, 2, nullptr, planned);
  }
}

void test_refusals() {
  Guarded<float> data(100);
  const auto refuses = [&](const char* what, auto change) {
    Tensor a = tensor(data.data(), {4, 5}), b = tensor(data.data(), {5, 6}), bias = tensor(data.data(), {6}),
           y = tensor(data.data(), {4, 6});
    OpRun op(Opcode::matmul, {&a, &b, &bias}, {&y});
    CHECK(bool(op.verify()));
    change(a, b, bias, y);
    const wl::Status status = op.verify();
    CHECK(!status && status.text[0], "accepted %s", what);
  };
  refuses("k that differs", [](Tensor& a, auto&...) { a.dims[1] = 4; });
  refuses("m that differs", [](Tensor& a, auto&...) { a.dims[0] = 3; });
  refuses("n that differs", [](Tensor&, Tensor& b, auto&...) { b.dims[1] = 5; });
  refuses("a column stride", [](Tensor&, Tensor& b, auto&...) { b.strides[1] = 2; });
  refuses("a vector", [](Tensor& a, auto&...) { a.rank = 1; });
  refuses("integers", [](Tensor& a, auto&...) { a.dtype = wl::DType::i32; });
  refuses("a short bias", [](Tensor&, Tensor&, Tensor& bias, Tensor&) { bias.dims[0] = 5; });
}

}  // namespace

int main() {
  const std::vector<Case> cases = read_cases("matmul.txt");
  for_each_kernels([&](const Kernels& kernels) {
    for (const Case& c : cases) {
      const Problem p(c);
      test_case(kernels, c.text, p, 0, true, false, 1);
      test_case(kernels, c.text, p, 5, true, true, 3);
      test_case(kernels, c.text, p, 0, false, true, 2);
    }
    test_same_bits(kernels, 130, 900);
    if (strcmp(kernels.isa, "ref") != 0) {
      test_same_bits(kernels, 40, 2500);   // terms are split
      test_same_bits(kernels, 530, 1100);  // more than one strip
    }
    if (strcmp(kernels.isa, "ref") != 0)
      for (bool trans_b : {false, true}) {
        test_fewer_rows(kernels, 500, 70, 40, trans_b);
        test_fewer_rows(kernels, 100, 1500, 300, trans_b);
        test_fewer_rows(kernels, 241, 130, 1200, trans_b);
        test_fewer_rows(kernels, 241, 130, 1024, trans_b);
        test_fewer_rows(kernels, 300, 24, 5000, trans_b);
        test_fewer_rows(kernels, 17, 600, 130, trans_b);
      }
  });
  test_refusals();
  return finish();
}
