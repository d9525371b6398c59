// NHWC pictures for the tests of convolution and pooling: dense or with gaps between columns, rows and pictures, and guarded.
#pragma once
#include "harness.h"

namespace harness {

template <class T = float>
class Pictures {
 public:
  static constexpr T kGap = (T)77;  // what lies between; a write there is an error

  Pictures(int64_t n, int64_t h, int64_t w, int64_t c, bool gaps, wl::DType dtype = wl::DType::f32)
      : n(n),
        h(h),
        w(w),
        c(c),
        col(c + (gaps ? 3 : 0)),
        row(w * col + (gaps ? 5 : 0)),
        image(h * row + (gaps ? 7 : 0)),
        data((n - 1) * image + (h - 1) * row + (w - 1) * col + c, wl::kCacheLine / 16) {
    for (T& v : data) v = kGap;
    tensor = harness::tensor(data.data(), {n, h, w, c}, dtype);
    tensor.batch = true;
    tensor.strides[0] = image, tensor.strides[1] = row, tensor.strides[2] = col;
  }

  T& at(int64_t i, int64_t y, int64_t x, int64_t k) { return data[i * image + y * row + x * col + k]; }
  const T& at(int64_t i, int64_t y, int64_t x, int64_t k) const { return data[i * image + y * row + x * col + k]; }
  bool inside(int64_t y, int64_t x) const { return y >= 0 && y < h && x >= 0 && x < w; }

  template <class Body>
  void for_each(Body body) {
    for (int64_t i = 0; i < n; ++i)
      for (int64_t y = 0; y < h; ++y)
        for (int64_t x = 0; x < w; ++x)
          for (int64_t k = 0; k < c; ++k) body(at(i, y, x, k), i, y, x, k);
  }
  void fill_integers(Random& random, int range = 3) {
    for_each([&](T& v, int64_t, int64_t, int64_t, int64_t) { v = (T)random.integer(-range, range); });
  }
  void fill_reals(Random& random) {
    for_each([&](T& v, int64_t, int64_t, int64_t, int64_t) { v = (T)random.real(); });
  }

  // Neither the gaps nor the bytes around were written.
  bool intact() {
    if (!data.intact()) return false;
    std::vector<char> used((size_t)data.size());
    for_each([&](T& v, int64_t, int64_t, int64_t, int64_t) { used[(size_t)(&v - data.data())] = 1; });
    for (int64_t i = 0; i < data.size(); ++i)
      if (!used[(size_t)i] && data[i] != kGap) return false;
    return true;
  }

  // The same pictures, only the first n of them.
  wl::Tensor first(int64_t count) const {
    wl::Tensor t = tensor;
    t.dims[0] = count;
    return t;
  }

  const int64_t n, h, w, c, col, row, image;
  Guarded<T> data;
  wl::Tensor tensor;
};

// Equal bits; NaN equals NaN.
inline bool same_bits(float a, float b) {
  return memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b);
}

// The geometry words of a case: n ih iw ic oc kh kw sh sw pad_top pad_left pad_bottom pad_right dilh dilw g. `pad` sets all four, `k` and
// `s` both.
struct Geometry {
  int64_t n, ih, iw, ic, oc, kh, kw, sh, sw, pad_top, pad_left, pad_bottom, pad_right, dilh, dilw, g, oh, ow;
  std::string text;
  explicit Geometry(const Case& c) : text(c.text) {
    n = c.get("n", 1), ih = c["ih"], iw = c.get("iw", ih), ic = c["ic"], oc = c.get("oc", ic);
    kh = c.get("kh", c.get("k", 1)), kw = c.get("kw", c.get("k", 1));
    sh = c.get("sh", c.get("s", 1)), sw = c.get("sw", c.get("s", 1));
    const int64_t pad = c.get("pad", 0), dil = c.get("dil", 1);
    pad_top = c.get("pad_top", pad), pad_left = c.get("pad_left", pad), pad_bottom = c.get("pad_bottom", pad),
    pad_right = c.get("pad_right", pad);
    dilh = c.get("dilh", dil), dilw = c.get("dilw", dil), g = c.get("g", 1);
    oh = (ih + pad_top + pad_bottom - dilh * (kh - 1) - 1) / wl::max_of(sh, 1) + 1;
    ow = (iw + pad_left + pad_right - dilw * (kw - 1) - 1) / wl::max_of(sw, 1) + 1;
  }
  OpRun& set(OpRun& op) const {
    using wl::AttrKey;
    return op.attr(AttrKey::kernel_h, kh)
        .attr(AttrKey::kernel_w, kw)
        .attr(AttrKey::stride_h, sh)
        .attr(AttrKey::stride_w, sw)
        .attr(AttrKey::pad_top, pad_top)
        .attr(AttrKey::pad_left, pad_left)
        .attr(AttrKey::pad_bottom, pad_bottom)
        .attr(AttrKey::pad_right, pad_right)
        .attr(AttrKey::dilation_h, dilh)
        .attr(AttrKey::dilation_w, dilw)
        .attr(AttrKey::groups, g);
  }
};

}  // namespace harness
