// conv_fwd, conv_bwd_data and conv_pack against plain loops in double: all cases of tests/cases/conv.txt on every ISA, from canonical and
// from packed weights, with strided views, with epilogues, with any number of threads, inside guarded buffers.
#include <algorithm>

#include "harness.h"
#include "ops/conv.h"

using namespace harness;
using wl::AttrKey;
using wl::ConvDirection;
using wl::ConvShape;
using wl::Kernels;
using wl::Opcode;
using wl::Tensor;

namespace {

ConvShape shape_of(const Case& c) {
  ConvShape s;
  s.n = c["n"], s.ih = c["ih"], s.iw = c["iw"], s.ic = c["ic"], s.oc = c["oc"], s.kh = c["kh"], s.kw = c["kw"];
  s.sh = c.get("sh", 1), s.sw = c.get("sw", 1), s.dilh = c.get("dh", 1), s.dilw = c.get("dw", 1), s.g = c.get("g", 1);
  s.pad_top = c.get("pt", 0), s.pad_left = c.get("pl", 0), s.pad_bottom = c.get("pb", 0), s.pad_right = c.get("pr", 0);
  s.oh = (s.ih + s.pad_top + s.pad_bottom - s.dilh * (s.kh - 1) - 1) / s.sh + 1;
  s.ow = (s.iw + s.pad_left + s.pad_right - s.dilw * (s.kw - 1) - 1) / s.sw + 1;
  return s;
}

void set_attrs(OpRun& op, const ConvShape& s) {
  op.attr(AttrKey::kernel_h, s.kh).attr(AttrKey::kernel_w, s.kw).attr(AttrKey::stride_h, s.sh).attr(AttrKey::stride_w, s.sw);
  op.attr(AttrKey::pad_top, s.pad_top).attr(AttrKey::pad_left, s.pad_left).attr(AttrKey::pad_bottom, s.pad_bottom);
  op.attr(AttrKey::pad_right, s.pad_right).attr(AttrKey::dilation_h, s.dilh).attr(AttrKey::dilation_w, s.dilw).attr(AttrKey::groups, s.g);
}

// A picture tensor whose pixels, rows and pictures are `gap` floats further apart than they need be; what lies between must stay as it is.
struct Picture {
  Guarded<float> data;
  Tensor t;
  std::vector<float> before;
  Picture(int64_t n, int64_t h, int64_t w, int64_t c, int64_t gap)
      : data((n - 1) * (h * (w * (c + gap) + gap) + gap) + (h - 1) * (w * (c + gap) + gap) + (w - 1) * (c + gap) + c),
        t(tensor(data.data(), {n, h, w, c})) {
    t.strides[2] = c + gap, t.strides[1] = w * t.strides[2] + gap, t.strides[0] = h * t.strides[1] + gap;
  }
  float& at(int64_t n, int64_t y, int64_t x, int64_t c) { return data[n * t.strides[0] + y * t.strides[1] + x * t.strides[2] + c]; }
  void mark() { before.assign(data.begin(), data.end()); }
  void reset() { std::copy(before.begin(), before.end(), data.begin()); }
};

// Calls body(n, oy, ox, o, iy, ix, i, weight index) for every product of the convolution.
template <class Body>
void for_each_product(const ConvShape& s, Body body) {
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t oy = 0; oy < s.oh; ++oy)
      for (int64_t ox = 0; ox < s.ow; ++ox)
        for (int64_t ky = 0; ky < s.kh; ++ky)
          for (int64_t kx = 0; kx < s.kw; ++kx) {
            const int64_t iy = oy * s.sh - s.pad_top + ky * s.dilh, ix = ox * s.sw - s.pad_left + kx * s.dilw;
            if (iy < 0 || iy >= s.ih || ix < 0 || ix >= s.iw) continue;
            for (int64_t o = 0; o < s.oc; ++o)
              for (int64_t i = 0; i < s.icg(); ++i)
                body(n, oy, ox, o, iy, ix, o / s.ocg() * s.icg() + i, ((ky * s.kw + kx) * s.icg() + i) * s.oc + o);
          }
}

struct Data {
  ConvShape s;
  Picture x, y, residual, dy, dx;
  Guarded<float> w, bias;

  Data(const ConvShape& shape, int64_t gap, bool exact)
      : s(shape),
        x(s.n, s.ih, s.iw, s.ic, gap),
        y(s.n, s.oh, s.ow, s.oc, gap),
        residual(s.n, s.oh, s.ow, s.oc, gap),
        dy(s.n, s.oh, s.ow, s.oc, gap),
        dx(s.n, s.ih, s.iw, s.ic, gap),
        w(s.taps() * s.icg() * s.oc),
        bias(s.oc) {
    Random random((uint64_t)(s.ic * 31 + s.oc * 7 + s.kh));
    for (auto* b : {&x.data, &y.data, &residual.data, &dy.data, &dx.data, &w, &bias})
      exact ? fill_integers(*b, random) : fill_reals(*b, random);
    y.mark(), dx.mark();
  }
};

// Sums, and sums of absolute products.
struct Expected {
  std::vector<double> y, dx, size_y, size_dx;
  explicit Expected(Data& d)
      : y(d.s.n * d.s.oh * d.s.ow * d.s.oc), dx(d.s.n * d.s.ih * d.s.iw * d.s.ic), size_y(y.size()), size_dx(dx.size()) {
    const ConvShape& s = d.s;
    for_each_product(s, [&](int64_t n, int64_t oy, int64_t ox, int64_t o, int64_t iy, int64_t ix, int64_t i, int64_t weight) {
      const int64_t out = ((n * s.oh + oy) * s.ow + ox) * s.oc + o, in = ((n * s.ih + iy) * s.iw + ix) * s.ic + i;
      const double forward = double(d.x.at(n, iy, ix, i)) * d.w[weight], backward = double(d.dy.at(n, oy, ox, o)) * d.w[weight];
      y[out] += forward, size_y[out] += fabs(forward), dx[in] += backward, size_dx[in] += fabs(backward);
    });
  }
};

// Compares `p` with `want`, and sees to it that nothing between the channels was written.
template <class Want>
void check_picture(Picture& p, const char* what, double rounding, const std::vector<double>& size, Want want) {
  CHECK(p.data.intact(), "%s wrote outside", what);
  std::vector<float> left = p.before;
  int64_t index = 0;
  for (int64_t n = 0; n < p.t.dims[0]; ++n)
    for (int64_t y = 0; y < p.t.dims[1]; ++y)
      for (int64_t x = 0; x < p.t.dims[2]; ++x)
        for (int64_t c = 0; c < p.t.dims[3]; ++c, ++index) {
          const float got = p.at(n, y, x, c);
          const double expect = want(index, n, y, x, c);
          CHECK(fabs(got - expect) <= rounding * (1 + size[index]), "%s [%ld][%ld][%ld][%ld]: %g, not %g", what, (long)n, (long)y, (long)x,
                (long)c, got, expect);
          left[&p.at(n, y, x, c) - p.data.data()] = got;
        }
  CHECK(memcmp(left.data(), p.data.data(), left.size() * sizeof(float)) == 0, "%s wrote between the pixels", what);
}

struct Variant {
  int64_t gap = 0;
  bool exact = true, packed = true, epilogue = false;
  int threads = 1;
  wl::Algorithm algorithm = wl::Algorithm::direct;
};

// The weight operand of a direction: canonical, or packed by conv_pack.
struct Weight {
  Guarded<char> bytes;
  Tensor t;
  Weight(const Kernels& kernels, Data& d, ConvDirection direction, const Variant& v)
      : bytes(v.packed ? wl::conv_packed_bytes(d.s, direction, v.algorithm) : 0, wl::kCacheLine),
        t(tensor(d.w.data(), {d.s.kh, d.s.kw, d.s.icg(), d.s.oc})) {
    if (!v.packed) return;
    Tensor packed = tensor(bytes.data(), {bytes.size()}, wl::DType::u8);
    memset(bytes.data(), 0xff, bytes.size());
    OpRun pack(Opcode::conv_pack, {&t}, {&packed});
    set_attrs(pack, d.s);
    pack.attr(AttrKey::direction, (int64_t)direction).attr(AttrKey::algorithm, (int64_t)v.algorithm);
    CHECK(pack.choose(kernels).packed == bytes.size());
    pack.run(kernels, v.threads);
    CHECK(bytes.intact(), "conv_pack wrote outside");
    t = packed;
  }
};

void test_case(const Kernels& kernels, const std::string& text, Data& d, const Expected& expected, const Variant& v) {
  const ConvShape& s = d.s;
  d.y.reset(), d.dx.reset();
  const double rounding = v.exact ? 0 : 1e-6;
  char what[256];
  {
    snprintf(what, sizeof what, "conv_fwd %s %s gap%ld packed%d threads%d", kernels.isa, text.c_str(), (long)v.gap, v.packed, v.threads);
    const Weight weight(kernels, d, ConvDirection::fwd, v);
    const Tensor bias = tensor(d.bias.data(), {s.oc});
    OpRun op(Opcode::conv_fwd, {&d.x.t, &weight.t, v.epilogue ? &bias : nullptr, v.epilogue ? &d.residual.t : nullptr}, {&d.y.t});
    set_attrs(op, s);
    op.attr(AttrKey::algorithm, (int64_t)v.algorithm);
    if (v.epilogue) op.attr(AttrKey::activation, (int64_t)wl::UnaryKind::leaky_relu).attr(AttrKey::alpha, 0.25);
    op.run(kernels, v.threads);
    check_picture(d.y, what, rounding, expected.size_y, [&](int64_t index, int64_t n, int64_t y, int64_t x, int64_t c) {
      double sum = expected.y[index];
      if (!v.epilogue) return sum;
      sum += d.bias[c] + d.residual.at(n, y, x, c);
      return sum > 0 ? sum : 0.25 * sum;
    });
  }
  {
    snprintf(what, sizeof what, "conv_bwd_data %s %s gap%ld packed%d threads%d", kernels.isa, text.c_str(), (long)v.gap, v.packed,
             v.threads);
    const Weight weight(kernels, d, ConvDirection::bwd_data, v);
    OpRun op(Opcode::conv_bwd_data, {&d.dy.t, &weight.t}, {&d.dx.t});
    set_attrs(op, s);
    op.attr(AttrKey::algorithm, (int64_t)v.algorithm);
    op.run(kernels, v.threads);
    check_picture(d.dx, what, rounding, expected.size_dx,
                  [&](int64_t index, int64_t, int64_t, int64_t, int64_t) { return expected.dx[index]; });
  }
}

// On every ISA; the expected sums are made once.
void test_case(const std::string& text, const ConvShape& s, const Variant& v) {
  Data d(s, v.gap, v.exact);
  const Expected expected(d);
  for_each_kernels([&](const Kernels& kernels) {
    if (strcmp(kernels.isa, "ref") != 0 || s.macs() <= 2e6) test_case(kernels, text, d, expected, v);
  });
}

// A picture's bits are the same alone, in a batch, with several threads and from packed or canonical weights.
void test_same_bits(const Kernels& kernels, const ConvShape& batch, wl::Algorithm algorithm) {
  Data d(batch, 0, false);
  std::vector<std::vector<float>> results;
  const auto run = [&](int64_t pictures, bool packed, int threads) {
    Tensor x = d.x.t, y = d.y.t;
    x.dims[0] = y.dims[0] = pictures;
    Variant v;
    v.packed = packed && algorithm != wl::Algorithm::planar;
    const Weight weight(kernels, d, ConvDirection::fwd, v);
    OpRun op(Opcode::conv_fwd, {&x, &weight.t}, {&y});
    set_attrs(op, batch);
    op.attr(AttrKey::algorithm, (int64_t)algorithm);
    op.run(kernels, threads);
    results.emplace_back(d.y.data.begin(), d.y.data.begin() + batch.oh * batch.ow * batch.oc);
  };
  run(batch.n, true, 1);
  run(batch.n, true, 3);
  run(1, true, 2);
  run(1, false, 1);
  for (const auto& r : results) CHECK(memcmp(r.data(), results[0].data(), r.size() * sizeof(float)) == 0, "%s: bits differ", kernels.isa);
}

// Scratch asked for at the planned batch is enough for every smaller one, and a smaller batch writes its own pictures only.
void test_smaller_batches(const Kernels& kernels, const std::string& text, ConvShape s, wl::Algorithm algorithm) {
  s.n = 5;
  Data d(s, 0, true);
  Tensor w = tensor(d.w.data(), {s.kh, s.kw, s.icg(), s.oc}), x = d.x.t, y = d.y.t, dy = d.dy.t, dx = d.dx.t;
  OpRun forward(Opcode::conv_fwd, {&x, &w}, {&y}), backward(Opcode::conv_bwd_data, {&dy, &w}, {&dx});
  set_attrs(forward, s), set_attrs(backward, s);
  forward.attr(AttrKey::algorithm, (int64_t)algorithm), backward.attr(AttrKey::algorithm, (int64_t)algorithm);
  const int64_t planned_forward = forward.choose(kernels, 2).workspace, planned_backward = backward.choose(kernels, 2).workspace;
  for (int64_t n = s.n; n >= 1; --n) {
    x.dims[0] = y.dims[0] = dy.dims[0] = dx.dims[0] = n;
    const std::vector<float> y_before(d.y.data.begin(), d.y.data.end()), dx_before(d.dx.data.begin(), d.dx.data.end());
    forward.run(kernels, 2, nullptr, planned_forward);
    backward.run(kernels, 2, nullptr, planned_backward);
    const auto untouched = [&](const Picture& p, const std::vector<float>& before) {
      const int64_t used = n * p.t.strides[0];
      return memcmp(p.data.data() + used, before.data() + used, (before.size() - used) * sizeof(float)) == 0;
    };
    CHECK(untouched(d.y, y_before) && untouched(d.dx, dx_before), "%s %s with %ld of 5 pictures", kernels.isa, text.c_str(), (long)n);
  }
}

void test_refusals() {
  Data d(shape_of(parse_case("n1ih6iw6ic4oc6kh3kw3")), 0, true);
  const auto refuses = [&](const char* what, auto change) {
    Tensor x = d.x.t, y = d.y.t, w = tensor(d.w.data(), {3, 3, 4, 6}), bias = tensor(d.bias.data(), {6}), residual = d.residual.t;
    OpRun op(Opcode::conv_fwd, {&x, &w, &bias, &residual}, {&y});
    set_attrs(op, d.s);
    CHECK(bool(op.verify()));
    change(op, x, w, bias, residual, y);
    const wl::Status status = op.verify();
    CHECK(!status && status.text[0], "accepted %s", what);
  };
  const auto set = [](OpRun& op, AttrKey key, int64_t value) {
    for (int i = 0; i < op.step.n_attr; ++i)
      if (op.step.attrs[i].key == key) op.step.attrs[i].i = value;
  };
  refuses("stride 0", [&](OpRun& op, auto&...) { set(op, AttrKey::stride_h, 0); });
  refuses("negative padding", [&](OpRun& op, auto&...) { set(op, AttrKey::pad_left, -1); });
  refuses("an output that does not fit", [&](OpRun& op, auto&...) { set(op, AttrKey::pad_left, 1); });
  refuses("groups that do not divide", [&](OpRun& op, auto&...) { set(op, AttrKey::groups, 3); });
  refuses("a huge kernel", [&](OpRun& op, auto&...) { set(op, AttrKey::kernel_h, int64_t(1) << 60); });
  refuses("wrong channels", [&](OpRun&, Tensor& x, auto&...) { x.dims[3] = 5; });
  refuses("channel stride 2", [&](OpRun&, Tensor& x, auto&...) { x.strides[3] = 2; });
  refuses("rank 3", [&](OpRun&, Tensor& x, auto&...) { x.rank = 3; });
  refuses("bytes", [&](OpRun&, Tensor& x, auto&...) { x.dtype = wl::DType::u8; });
  refuses("a short packed weight", [&](OpRun&, Tensor&, Tensor& w, auto&...) { w = tensor(d.w.data(), {100}, wl::DType::u8); });
  refuses("a wrong weight", [&](OpRun&, Tensor&, Tensor& w, auto&...) { w.dims[0] = 2; });
  refuses("a short bias", [&](OpRun&, Tensor&, Tensor&, Tensor& bias, auto&...) { bias.dims[0] = 5; });
  refuses("a wrong residual", [&](OpRun&, Tensor&, Tensor&, Tensor&, Tensor& residual, auto&...) { residual.dims[1] = 3; });
  refuses("another batch", [&](OpRun&, Tensor&, Tensor&, Tensor&, Tensor&, Tensor& y) { y.dims[0] = 2; });
}

}  // namespace

int main() {
  const std::vector<Case> cases = read_cases("conv.txt");
  for (const Case& c : cases) {
    const ConvShape s = shape_of(c);
    Variant v;
    test_case(c.text, s, v);
    v.gap = 3, v.packed = false, v.epilogue = true, v.threads = 3;
    test_case(c.text, s, v);
    v.exact = false, v.gap = 0, v.packed = true, v.algorithm = wl::Algorithm::direct;
    test_case(c.text, s, v);
    if (s.macs() < 2e5) {
      v.algorithm = wl::Algorithm::ref;
      test_case(c.text, s, v);
    }
    v = Variant();
    v.packed = false, v.algorithm = wl::Algorithm::planar;
    test_case(c.text, s, v);
    v.exact = false, v.gap = 3, v.epilogue = true, v.threads = 3;
    test_case(c.text, s, v);
  }
  for_each_kernels([&](const Kernels& kernels) {
    if (strcmp(kernels.isa, "ref") != 0)
      for (const Case& c : cases)
        if (shape_of(c).macs() < 1e8)
          for (const wl::Algorithm algorithm : {wl::Algorithm::automatic, wl::Algorithm::planar})
            test_smaller_batches(kernels, c.text, shape_of(c), algorithm);
    for (const char* text : {"n5ih7iw6ic70oc40kh3kw3pt1pl1pb1pr1", "n5ih7iw6ic20oc40kh3kw3pt1pl1pb1pr1",
                             "n5ih7iw6ic3oc40kh3kw3pt1pl1pb1pr1", "n9ih1iw1ic300oc70kh1kw1"})
      for (const wl::Algorithm algorithm : {wl::Algorithm::direct, wl::Algorithm::planar})
        test_same_bits(kernels, shape_of(parse_case(text)), algorithm);
  });
  test_refusals();
  return finish();
}
