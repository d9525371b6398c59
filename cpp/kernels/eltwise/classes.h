// Rows of classes: softmax and cross entropy.
#pragma once
#include "kernels/eltwise/eltwise.h"
#include "simd/channels.h"
#include "simd/math.h"

namespace wl {
namespace WL_ISA {
namespace {

// Lanes past the end of a row become `other`.
WL_INLINE f32v padded(f32v v, Whole, float) {
  return v;
}
WL_INLINE f32v padded(f32v v, Part part, float other) {
  return select(first_lanes(part.n), v, set1(other));
}

// From a row's maximum over its sum to its results leads one long chain, so rows are taken a few at a time, step by step: their chains
// overlap, and the rows stay in the first cache level meanwhile. Calls body(first, count).
constexpr int64_t kTogether = 16;
template <class Body>
WL_INLINE void for_row_blocks(int64_t rows, int64_t classes, Body&& body) {
  constexpr int64_t kFloats = 4096;
  const int64_t fit = kFloats / classes, step = fit < 1 ? 1 : fit < kTogether ? fit : kTogether;
  for (int64_t first = 0; first < rows; first += step) body(first, rows - first < step ? rows - first : step);
}

WL_INLINE float row_max(int64_t n, const float* x) {
  f32v top = set1(-kInfinity);
  for_vectors(n, [&](int64_t i, auto at) { top = max(top, padded(at.get(x + i), at, -kInfinity)); });
  return reduce_max(top);
}

// y[c] = exp(x[c] - max), and their sum; y may be x.
WL_INLINE float row_exp(int64_t n, float max, const float* x, float* y) {
  const f32v m = set1(max);
  f32v sum = zero();
  for_vectors(n, [&](int64_t i, auto at) {
    const f32v e = exp(at.get(x + i) - m);
    at.put(y + i, e);
    sum = sum + padded(e, at, 0.0f);
  });
  return reduce_add(sum);
}

WL_INLINE void row_scale(int64_t n, float factor, float* y) {
  const f32v f = set1(factor);
  for_vectors(n, [&](int64_t i, auto at) { at.put(y + i, at.get(y + i) * f); });
}

// What the rows of a block are divided by, and its logarithm.
WL_INLINE void reciprocals(int64_t rows, const float* sum, float* factor) {
  for_vectors(rows, [&](int64_t r, auto at) { at.put(factor + r, set1(1.0f) / at.get(sum + r)); });
}
WL_INLINE void logarithms(int64_t rows, const float* sum, float* log_sum) {
  for_vectors(rows, [&](int64_t r, auto at) { at.put(log_sum + r, log(at.get(sum + r))); });
}

void softmax_kernel(bool log, int64_t rows, int64_t classes, const float* x, int64_t x_row, float* y, int64_t y_row) {
  float max[kTogether], sum[kTogether], factor[kTogether];
  for_row_blocks(rows, classes, [&](int64_t first, int64_t count) {
    const float* from = x + first * x_row;
    float* to = y + first * y_row;
    for (int64_t r = 0; r < count; ++r) max[r] = row_max(classes, from + r * x_row);
    if (!log) {
      for (int64_t r = 0; r < count; ++r) sum[r] = row_exp(classes, max[r], from + r * x_row, to + r * y_row);
      reciprocals(count, sum, factor);
      for (int64_t r = 0; r < count; ++r) row_scale(classes, factor[r], to + r * y_row);
      return;
    }
    for (int64_t r = 0; r < count; ++r) {  // the exponentials are only summed: y may be x
      f32v all = zero();
      for_vectors(classes, [&](int64_t i, auto at) { all = all + padded(exp(at.get(from + r * x_row + i) - set1(max[r])), at, 0.0f); });
      sum[r] = reduce_add(all);
    }
    logarithms(count, sum, factor);
    for (int64_t r = 0; r < count; ++r)
      for_vectors(classes,
                  [&](int64_t i, auto at) { at.put(to + r * y_row + i, (at.get(from + r * x_row + i) - set1(max[r])) - set1(factor[r])); });
  });
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
  float max[kTogether], picked[kTogether], target_sum[kTogether];  // picked: Σ t' (z - max)
  float sum[kTogether], factor[kTogether], log_sum[kTogether];
  for_row_blocks(rows, classes, [&](int64_t first, int64_t count) {
    const float* z = logits + first * logits_row;
    float* p = prob + first * prob_row;
    for (int64_t r = 0; r < count; ++r) max[r] = row_max(classes, z + r * logits_row);
    // What is needed of the logits comes before the exponentials: prob may be logits.
    for (int64_t r = 0; r < count; ++r) {
      const float* row = z + r * logits_row;
      const f32v m = set1(max[r]);
      f32v all = zero(), shares = zero();
      target_sum[r] = 1.0f;
      if (t.labels) {
        const int32_t label = t.labels[(first + r) * t.label_stride];
        const float chosen = label >= 0 && label < classes ? row[label] - max[r] : __builtin_nanf("");
        if (even != 0.0f) for_vectors(classes, [&](int64_t i, auto at) { all = all + padded(at.get(row + i) - m, at, 0.0f); });
        picked[r] = own * chosen + (even != 0.0f ? even * reduce_add(all) : 0.0f);
      } else {
        const float* target = t.targets + (first + r) * t.target_row;
        for_vectors(classes, [&](int64_t i, auto at) {
          const f32v share = padded(fma(at.get(target + i), set1(own), set1(even)), at, 0.0f);
          all = fma(share, padded(at.get(row + i) - m, at, 0.0f), all);
          shares = shares + share;
        });
        picked[r] = reduce_add(all), target_sum[r] = reduce_add(shares);
      }
    }
    for (int64_t r = 0; r < count; ++r) sum[r] = row_exp(classes, max[r], z + r * logits_row, p + r * prob_row);
    reciprocals(count, sum, factor);
    logarithms(count, sum, log_sum);
    for (int64_t r = 0; r < count; ++r) row_scale(classes, factor[r], p + r * prob_row);
    for (int64_t r = 0; r < count; ++r) {
      const float weight = t.weight ? t.weight[(first + r) * t.weight_stride] : 1.0f;
      loss[first + r] = weight * (log_sum[r] * target_sum[r] - picked[r]);
    }
  });
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
