// Copies between all orders of axes and element sizes, into and out of views with gaps, from repeated axes; fill.
#include "vectors.h"

using namespace harness;
using wl::AttrKey;
using wl::DType;
using wl::Opcode;

// Strides of `dims` laid out in `order` (outermost first) with `gap` more elements per innermost row.
static void lay_out(wl::Tensor* t, const int* order, int64_t gap) {
  int64_t stride = 1;
  for (int i = t->rank - 1; i >= 0; --i) {
    t->strides[order[i]] = stride;
    stride *= t->dims[order[i]];
    if (i == t->rank - 1) stride += gap;
  }
}

template <class T>
static void check_orders(const wl::Kernels& k, DType dtype, std::initializer_list<int64_t> dims) {
  const int orders[][4] = {{0, 1, 2, 3}, {0, 3, 1, 2}, {0, 2, 3, 1}, {3, 2, 1, 0}, {1, 0, 2, 3}, {2, 3, 0, 1}};
  for (const auto& from : orders)
    for (const auto& to : orders)
      for (int64_t gap : {0, 5}) {
        auto tx = tensor(nullptr, dims, dtype), ty = tx;
        lay_out(&tx, from, gap), lay_out(&ty, to, gap);
        Guarded<T> x(reach(tx)), y(reach(ty));
        tx.data = (char*)x.data(), ty.data = (char*)y.data();
        for (int64_t i = 0; i < x.size(); ++i) x[i] = (T)(i * 7 + 1);
        std::vector<int64_t> at;
        each_element(tx, [&](int64_t, int64_t o) { at.push_back(o); });
        OpRun(Opcode::copy, {&tx}, {&ty}).run(k, 2);
        std::vector<char> written((size_t)y.size(), 0);
        each_element(ty, [&](int64_t i, int64_t o) {
          written[(size_t)o] = 1;
          CHECK(y[o] == x[at[(size_t)i]], "%s size %d at %d", k.isa, (int)sizeof(T), (int)i);
        });
        for (int64_t i = 0; i < y.size(); ++i) CHECK(written[(size_t)i] || y[i] == 0, "%s: wrote into a gap", k.isa);
        CHECK(x.intact() && y.intact(), "%s", k.isa);
      }
}

static void check_repeat(const wl::Kernels& k) {
  Guarded<float> x(6), y(4 * 5 * 6);
  for (int i = 0; i < 6; ++i) x[i] = (float)i;
  auto tx = tensor(x.data(), {4, 5, 6}), ty = tensor(y.data(), {4, 5, 6});
  tx.strides[0] = tx.strides[1] = 0;
  OpRun(Opcode::copy, {&tx}, {&ty}).run(k);
  for (int i = 0; i < 120; ++i) CHECK(y[i] == (float)(i % 6), "%s", k.isa);
}

static void check_large(const wl::Kernels& k) {
  const int64_t n = 3, h = 40, w = 50, c = 70;
  Guarded<float> x(n * h * w * c), y(n * h * w * c);
  for (int64_t i = 0; i < x.size(); ++i) x[i] = (float)i;
  auto tx = tensor(x.data(), {n, c, h, w}), ty = tensor(y.data(), {n, c, h, w});
  ty.strides[0] = h * w * c, ty.strides[1] = 1, ty.strides[2] = w * c, ty.strides[3] = c;  // NCHW to NHWC
  same_for_threads(y, [&](int threads) { OpRun(Opcode::copy, {&tx}, {&ty}).run(k, threads); });
  bool right = true;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < c; ++j)
      for (int64_t p = 0; p < h * w; ++p) right &= y[(i * h * w + p) * c + j] == x[(i * c + j) * h * w + p];
  CHECK(right, "%s: large transposition", k.isa);
}

template <class T>
static void check_fill(const wl::Kernels& k, DType dtype, double value) {
  Guarded<T> y(7 * 20);
  auto ty = tensor(y.data(), {7, 13}, dtype);
  ty.strides[0] = 20;
  OpRun(Opcode::fill, {}, {&ty}).attr(AttrKey::value, value).run(k);
  for (int i = 0; i < 140; ++i) CHECK(y[i] == (i % 20 < 13 ? (T)value : (T)0), "%s", k.isa);
  CHECK(y.intact(), "%s", k.isa);
}

static void check_refusals() {
  float storage[64] = {};
  const auto x = tensor(storage, {4, 4}), bytes = tensor(storage, {4, 4}, DType::u8), other = tensor(storage, {4, 3});
  CHECK(!OpRun(Opcode::copy, {&x}, {&bytes}).verify(), "a cast was accepted");
  CHECK(!OpRun(Opcode::copy, {&x}, {&other}).verify(), "other extents were accepted");
  CHECK(!OpRun(Opcode::fill, {}, {&bytes}).attr(AttrKey::value, 256.0).verify(), "256 fits no byte");
  CHECK(!OpRun(Opcode::fill, {}, {&bytes}).attr(AttrKey::value, 0.5).verify(), "0.5 is no integer");
}

int main() {
  for_each_kernels([](const wl::Kernels& k) {
    check_orders<float>(k, DType::f32, {2, 3, 35, 18});
    check_orders<uint8_t>(k, DType::u8, {2, 3, 5, 33});
    check_orders<uint16_t>(k, DType::bf16, {2, 17, 1, 18});
    check_orders<double>(k, DType::f64, {1, 19, 5, 20});
    check_orders<int32_t>(k, DType::i32, {3, 1, 130, 4});
    check_repeat(k);
    check_large(k);
    check_fill<float>(k, DType::f32, 0.5);
    check_fill<uint8_t>(k, DType::u8, 255);
    check_fill<int32_t>(k, DType::i32, -7);
  });
  check_refusals();
  return finish();
}
