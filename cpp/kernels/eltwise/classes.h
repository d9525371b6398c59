// Rows of classes: softmax and cross entropy.
#pragma once
#include "kernels/eltwise/eltwise.h"
#include "simd/channels.h"
#include "simd/math.h"

namespace wl {
namespace WL_ISA {
namespace {

WL_INLINE float reduce_max(f32v v) {
  float lane[kLanes];
  store(lane, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] = lane[i] < lane[i + width] ? lane[i + width] : lane[i];
  return lane[0];
}

// Lanes past the end of a row become `other`.
WL_INLINE f32v padded(f32v v, Whole, float) {
  return v;
}
WL_INLINE f32v padded(f32v v, Part part, float other) {
  float lane[kLanes];
  store(lane, v);
  for (int i = part.n; i < kLanes; ++i) lane[i] = other;
  return load(lane);
}

struct RowExp {
  float max, sum, log_sum;
};
// y[c] = exp(x[c] - max); y may be x.
WL_INLINE RowExp row_exp(int64_t n, const float* x, float* y) {
  f32v top = set1(-kInfinity);
  for_vectors(n, [&](int64_t i, auto at) { top = max(top, padded(at.get(x + i), at, -kInfinity)); });
  const float m = reduce_max(top);
  const f32v vm = set1(m);
  f32v sum = zero();
  for_vectors(n, [&](int64_t i, auto at) {
    const f32v e = exp(at.get(x + i) - vm);
    at.put(y + i, e);
    sum = sum + padded(e, at, 0.0f);
  });
  const float s = reduce_add(sum);
  return {m, s, log(set1(s))[0]};
}

WL_INLINE void row_scale(int64_t n, float factor, float* y) {
  const f32v f = set1(factor);
  for_vectors(n, [&](int64_t i, auto at) { at.put(y + i, at.get(y + i) * f); });
}

void softmax_kernel(bool log, int64_t rows, int64_t classes, const float* x, int64_t x_row, float* y, int64_t y_row) {
  for (int64_t r = 0; r < rows; ++r, x += x_row, y += y_row) {
    if (!log) {
      row_scale(classes, 1.0f / row_exp(classes, x, y).sum, y);
      continue;
    }
    // The exponentials are only summed: y may be x.
    f32v top = set1(-kInfinity), sum = zero();
    for_vectors(classes, [&](int64_t i, auto at) { top = max(top, padded(at.get(x + i), at, -kInfinity)); });
    const f32v m = set1(reduce_max(top));
    for_vectors(classes, [&](int64_t i, auto at) { sum = sum + padded(exp(at.get(x + i) - m), at, 0.0f); });
    const f32v log_sum = wl::WL_ISA::log(set1(reduce_add(sum)));
    for_vectors(classes, [&](int64_t i, auto at) { at.put(y + i, (at.get(x + i) - m) - log_sum); });
  }
}

void softmax_grad_kernel(bool log, int64_t rows, int64_t classes, const float* y, int64_t y_row, const float* dy, int64_t dy_row, float* dx,
                         int64_t dx_row) {
  for (int64_t r = 0; r < rows; ++r, y += y_row, dy += dy_row, dx += dx_row) {
    f32v sum = zero();  // lanes past the end are zeros
    if (log) {
      for_vectors(classes, [&](int64_t i, auto at) { sum = sum + at.get(dy + i); });
      const f32v total = set1(reduce_add(sum));
      for_vectors(classes, [&](int64_t i, auto at) { at.put(dx + i, fma(-exp(at.get(y + i)), total, at.get(dy + i))); });
    } else {
      for_vectors(classes, [&](int64_t i, auto at) { sum = fma(at.get(y + i), at.get(dy + i), sum); });
      const f32v total = set1(reduce_add(sum));
      for_vectors(classes, [&](int64_t i, auto at) { at.put(dx + i, at.get(y + i) * (at.get(dy + i) - total)); });
    }
  }
}

void cross_entropy_kernel(int64_t rows, int64_t classes, const float* logits, int64_t logits_row, const ClassRows& t, float* loss,
                          float* prob, int64_t prob_row) {
  const float even = t.smoothing / (float)classes, own = 1.0f - t.smoothing;
  for (int64_t r = 0; r < rows; ++r) {
    const float* z = logits + r * logits_row;
    float* p = prob + r * prob_row;
    // What is needed of the logits relative to their maximum comes first: prob may be logits.
    f32v top = set1(-kInfinity);
    for_vectors(classes, [&](int64_t i, auto at) { top = max(top, padded(at.get(z + i), at, -kInfinity)); });
    const f32v m = set1(reduce_max(top));
    f32v picked = zero(), total = zero();  // Σ t' (z - m) and Σ t'
    float target_sum = 1.0f;
    float sum;
    if (t.labels) {
      const int32_t label = t.labels[r * t.label_stride];
      const float chosen = label >= 0 && label < classes ? z[label] - m[0] : __builtin_nanf("");
      if (even != 0.0f) for_vectors(classes, [&](int64_t i, auto at) { picked = picked + padded(at.get(z + i) - m, at, 0.0f); });
      sum = own * chosen + (even != 0.0f ? even * reduce_add(picked) : 0.0f);
    } else {
      const float* target = t.targets + r * t.target_row;
      for_vectors(classes, [&](int64_t i, auto at) {
        const f32v share = padded(fma(at.get(target + i), set1(own), set1(even)), at, 0.0f);
        picked = fma(share, padded(at.get(z + i) - m, at, 0.0f), picked);
        total = total + share;
      });
      sum = reduce_add(picked), target_sum = reduce_add(total);
    }
    const RowExp e = row_exp(classes, z, p);
    row_scale(classes, 1.0f / e.sum, p);
    loss[r] = (t.weight ? t.weight[r * t.weight_stride] : 1.0f) * (e.log_sum * target_sum - sum);
  }
}

void cross_entropy_grad_kernel(int64_t rows, int64_t classes, const float* prob, int64_t prob_row, const ClassRows& t, float factor,
                               float* dlogits, int64_t dlogits_row) {
  const float even = t.smoothing / (float)classes, own = 1.0f - t.smoothing;
  for (int64_t r = 0; r < rows; ++r) {
    const float* p = prob + r * prob_row;
    float* d = dlogits + r * dlogits_row;
    const float w = factor * (t.weight ? t.weight[r * t.weight_stride] : 1.0f);
    if (t.labels) {
      const int32_t label = t.labels[r * t.label_stride];
      const bool known = label >= 0 && label < classes;
      const float chosen = known ? p[label] : 0.0f;
      const f32v vw = set1(known ? w : __builtin_nanf("")), shared = set1(even);
      for_vectors(classes, [&](int64_t i, auto at) { at.put(d + i, (at.get(p + i) - shared) * vw); });
      if (known) d[label] = (chosen - (own + even)) * w;
    } else {
      const float* target = t.targets + r * t.target_row;
      f32v total = zero();
      for_vectors(classes, [&](int64_t i, auto at) { total = total + padded(fma(at.get(target + i), set1(own), set1(even)), at, 0.0f); });
      const f32v target_sum = set1(reduce_add(total)), vw = set1(w);
      for_vectors(classes, [&](int64_t i, auto at) {
        const f32v share = fma(at.get(target + i), set1(own), set1(even));
        at.put(d + i, (at.get(p + i) * target_sum - share) * vw);
      });
    }
  }
}

}  // namespace
}  // namespace WL_ISA
}  // namespace wl
