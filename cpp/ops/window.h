// Which taps of a strided, dilated window meet a given input position: shared by the backward directions of convolution and pooling.
#pragma once
#include "base/align.h"

namespace wl {

// The taps k that read input position i, and the outputs o that read it through them:  o*stride - pad + k*dilation = i.
// k = k0 + t*k_step and o = o0 - t*o_step for t in [0, count).
struct WindowTaps {
  int64_t count = 0, k0 = 0, k_step = 1, o0 = 0, o_step = 1;

  int64_t k_last() const { return k0 + (count - 1) * k_step; }
  int64_t o_last() const { return o0 - (count - 1) * o_step; }  // the smallest output
};

constexpr int64_t gcd(int64_t a, int64_t b) {
  while (b) {
    const int64_t rest = a % b;
    a = b, b = rest;
  }
  return a;
}

// Outputs of any sign: nothing is cut off at the ends of the output.
inline WindowTaps window_taps(int64_t i, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
  WindowTaps taps;
  const int64_t at = i + pad;
  if (dilation == 1 && at >= 0) {  // one division where rows are short: it takes as long as a vector of work
    taps.k0 = stride == 1 ? 0 : at % stride;
    taps.k_step = stride;
    if (taps.k0 >= kernel) return taps;
    taps.count = stride == 1 ? kernel : (kernel - 1 - taps.k0) / stride + 1;
    taps.o0 = stride == 1 ? at : (at - taps.k0) / stride;
    return taps;
  }
  const int64_t common = gcd(stride, dilation);
  taps.k_step = stride / common;
  taps.o_step = dilation / common;
  if (at % common != 0) return taps;
  while (taps.k0 < taps.k_step && taps.k0 < kernel && (at - taps.k0 * dilation) % stride != 0) ++taps.k0;
  if (taps.k0 >= min_of(kernel, taps.k_step)) return taps;
  taps.count = (kernel - 1 - taps.k0) / taps.k_step + 1;
  taps.o0 = (at - taps.k0 * dilation) / stride;
  return taps;
}

// Only those with outputs in [0, out).
inline WindowTaps window_taps_inside(int64_t i, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad, int64_t out) {
  WindowTaps taps = window_taps(i, kernel, stride, dilation, pad);
  if (taps.count == 0) return taps;
  const auto steps = [&](int64_t distance) { return taps.o_step == 1 ? distance : div_up(distance, taps.o_step); };
  const int64_t skip = taps.o0 < out ? 0 : steps(taps.o0 - (out - 1));
  if (taps.o0 < 0 || skip >= taps.count) return taps.count = 0, taps;
  taps.k0 += skip * taps.k_step;
  taps.o0 -= skip * taps.o_step;
  taps.count = taps.o0 < 0 ? 0 : min_of(taps.count - skip, steps(taps.o0 + 1));
  return taps;
}

// The taps k of output position o that read inside [0, in).
inline Range window_inside(int64_t o, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad, int64_t in) {
  const int64_t at = o * stride - pad;
  const auto steps = [&](int64_t distance) { return dilation == 1 ? distance : div_up(distance, dilation); };
  const int64_t begin = at >= 0 ? 0 : min_of(kernel, steps(-at));
  const int64_t end = at >= in ? 0 : min_of(kernel, steps(in - at));
  return {begin, max_of(begin, end)};
}

}  // namespace wl
