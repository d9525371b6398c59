// Maps with parameters per channel (normalisation, batch normalisation) and across channels (local response normalisation).
#pragma once
#include "kernels/eltwise/eltwise.h"
#include "simd/activation.h"
#include "simd/channels.h"

namespace wl {
namespace WL_ISA {
namespace {

// Bytes become floats lane by lane; both forms touch exactly the described elements.
WL_INLINE f32v widen(const float* p, Whole) {
  return load(p);
}
WL_INLINE f32v widen(const float* p, Part part) {
  return load_partial(p, part.n);
}
WL_INLINE f32v widen(const uint8_t* p, Whole) {
  return __builtin_convertvector(load_u8(p), f32v);
}
WL_INLINE f32v widen(const uint8_t* p, Part part) {
  return __builtin_convertvector(load_u8_partial(p, part.n), f32v);
}

template <class T>
void normalize_kernel(int64_t rows, int64_t channels, const T* x, int64_t x_row, const float* mean, const float* scale, float* y,
                      int64_t y_row) {
  const auto plain = [](int64_t n_rows, int64_t width, const T* px, int64_t px_row, const float* m, const float* s, float* py,
                        int64_t py_row) {
    for (int64_t r = 0; r < n_rows; ++r, px += px_row, py += py_row)
      for_vectors(width, [&](int64_t i, auto at) { at.put(py + i, (widen(px + i, at) - at.get(m + i)) * at.get(s + i)); });
  };
  const int64_t merge = merge_of(rows, channels, x_row == channels && y_row == channels), done = rows / merge * merge;
  float storage[2][kMaxWidth];
  plain(rows / merge, merge * channels, x, merge * x_row, repeat(mean, channels, merge, storage[0]),
        repeat(scale, channels, merge, storage[1]), y, merge * y_row);
  plain(rows - done, channels, x + done * x_row, x_row, mean, scale, y + done * y_row, y_row);
}

// --- batch normalisation -------------------------------------------------------------------------------------------------------------

template <bool residual, class Act>
WL_INLINE void bn_apply_rows(int64_t rows, int64_t width, const BnApply& p, Act act) {
  for (int64_t r = 0; r < rows; ++r) {
    const float *x = p.x + r * p.x_row, *other = residual ? p.residual + r * p.residual_row : x;
    float* y = p.y + r * p.y_row;
    for_vectors(width, [&](int64_t i, auto at) {
      f32v v = fma(at.get(x + i) - at.get(p.mean + i), at.get(p.scale + i), at.get(p.shift + i));
      if (residual) v = v + at.get(other + i);
      at.put(y + i, act(v));
    });
  }
}

void bn_apply_kernel(int64_t rows, int64_t channels, const BnApply& p) {
  const bool gapless = p.x_row == channels && p.y_row == channels && (!p.residual || p.residual_row == channels);
  const int64_t merge = merge_of(rows, channels, gapless), done = rows / merge * merge;
  float storage[3][kMaxWidth];
  BnApply merged = p, rest = p;
  merged.mean = repeat(p.mean, channels, merge, storage[0]);
  merged.scale = repeat(p.scale, channels, merge, storage[1]);
  merged.shift = repeat(p.shift, channels, merge, storage[2]);
  merged.x_row *= merge, merged.y_row *= merge, merged.residual_row *= merge;
  rest.x += done * p.x_row, rest.y += done * p.y_row;
  if (p.residual) rest.residual += done * p.residual_row;
  with_activation(p.activation, p.alpha, p.beta, [&](auto act) {
    if (p.residual) {
      bn_apply_rows<true>(rows / merge, merge * channels, merged, act);
      bn_apply_rows<true>(rows - done, channels, rest, act);
    } else {
      bn_apply_rows<false>(rows / merge, merge * channels, merged, act);
      bn_apply_rows<false>(rows - done, channels, rest, act);
    }
  });
}

// `kept`: y is read; else it is computed anew from x.
template <bool kept, bool frozen, bool residual, class Grad>
WL_INLINE void bn_grad_rows(int64_t rows, int64_t width, const BnGrad& p, Grad grad) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* dy = p.dy + r * p.dy_row;
    const float *y = p.y ? p.y + r * p.y_row : dy, *x = frozen ? dy : p.x + r * p.x_row;
    float *dx = p.dx + r * p.dx_row, *dresidual = residual ? p.dresidual + r * p.dresidual_row : dx;
    for_vectors(width, [&](int64_t i, auto at) {
      const f32v d = frozen ? zero() : at.get(x + i) - at.get(p.mean + i);
      const f32v saved = kept ? at.get(y + i) : fma(d, at.get(p.scale + i), at.get(p.offset + i));
      const f32v g = grad(saved, at.get(dy + i));
      f32v v = at.get(p.a + i) * g;
      if (!frozen) v = fma(d, at.get(p.b + i), v) + at.get(p.shift + i);
      at.put(dx + i, v);
      if (residual) at.put(dresidual + i, g);
    });
  }
}

void bn_grad_kernel(int64_t rows, int64_t channels, const BnGrad& p) {
  const bool gapless = p.dy_row == channels && p.dx_row == channels && (!p.y || p.y_row == channels) && (!p.x || p.x_row == channels) &&
                       (!p.dresidual || p.dresidual_row == channels);
  const int64_t merge = merge_of(rows, channels, gapless), done = rows / merge * merge;
  const bool frozen = !p.x, residual = p.dresidual, kept = p.y || p.activation == UnaryKind::none;
  float storage[6][kMaxWidth];
  BnGrad merged = p, rest = p;
  merged.a = repeat(p.a, channels, merge, storage[0]);
  merged.dy_row *= merge, merged.y_row *= merge, merged.dx_row *= merge, merged.x_row *= merge, merged.dresidual_row *= merge;
  rest.dy += done * p.dy_row, rest.dx += done * p.dx_row;
  if (p.y) rest.y += done * p.y_row;
  if (p.dresidual) rest.dresidual += done * p.dresidual_row;
  if (p.x) {
    rest.x += done * p.x_row;
    merged.mean = repeat(p.mean, channels, merge, storage[1]);
    merged.b = repeat(p.b, channels, merge, storage[2]);
    merged.shift = repeat(p.shift, channels, merge, storage[3]);
  }
  if (!kept) {
    merged.scale = repeat(p.scale, channels, merge, storage[4]);
    merged.offset = repeat(p.offset, channels, merge, storage[5]);
  }
  const auto both = [&](auto rows_kernel) {
    rows_kernel(rows / merge, merge * channels, merged);
    rows_kernel(rows - done, channels, rest);
  };
  if (!kept)
    return with_activation_grad_at(p.activation, p.alpha, p.beta, [&](auto grad) {
      if (residual) both([&](int64_t n, int64_t w, const BnGrad& q) { bn_grad_rows<false, false, true>(n, w, q, grad); });
      if (!residual) both([&](int64_t n, int64_t w, const BnGrad& q) { bn_grad_rows<false, false, false>(n, w, q, grad); });
    });
  with_activation_grad(p.activation, p.alpha, p.beta, [&](auto grad) {
    if (frozen && residual) both([&](int64_t n, int64_t w, const BnGrad& q) { bn_grad_rows<true, true, true>(n, w, q, grad); });
    if (frozen && !residual) both([&](int64_t n, int64_t w, const BnGrad& q) { bn_grad_rows<true, true, false>(n, w, q, grad); });
    if (!frozen && residual) both([&](int64_t n, int64_t w, const BnGrad& q) { bn_grad_rows<true, false, true>(n, w, q, grad); });
    if (!frozen && !residual) both([&](int64_t n, int64_t w, const BnGrad& q) { bn_grad_rows<true, false, false>(n, w, q, grad); });
  });
}

// --- local response normalisation ----------------------------------------------------------------------------------------------------

// Σ of `window` neighbouring terms, for the channels from c on; the terms lie between zeros, so that no window is cut.
WL_INLINE f32v window_sum(const float* padded, int64_t c, int64_t window, int lanes) {
  f32v sum = zero();
  for (int64_t j = 0; j < window; ++j) sum = sum + (lanes == kLanes ? load(padded + c + j) : load_partial(padded + c + j, lanes));
  return sum;
}

WL_INLINE void zero_fill(float* p, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = 0.0f;
}

WL_INLINE f32v lrn_power(f32v d, float beta) {
  return exp(-beta * log(d));
}

// scratch[0…channels) gets d = k + alpha * Σ x² over each channel's window; the rest of scratch is used.
WL_INLINE void lrn_denominator(const Lrn& p, const float* x, float* scratch) {
  float *d = scratch, *squares = scratch + p.channels;
  zero_fill(squares, p.before);
  zero_fill(squares + p.before + p.channels, p.after);
  for_vectors(p.channels, [&](int64_t c, auto at) {
    const f32v v = at.get(x + c);
    at.put(squares + p.before + c, v * v);
  });
  for_vectors(p.channels, [&](int64_t c, auto at) {
    const int lanes = p.channels - c < kLanes ? (int)(p.channels - c) : kLanes;
    at.put(d + c, fma(set1(p.alpha), window_sum(squares, c, p.before + p.after + 1, lanes), set1(p.k)));
  });
}

void lrn_kernel(const Lrn& p, const float* x, float* y, float* scratch) {
  lrn_denominator(p, x, scratch);
  for_vectors(p.channels, [&](int64_t c, auto at) { at.put(y + c, at.get(x + c) * lrn_power(at.get(scratch + c), p.beta)); });
}

// dx[i] = dy[i] d[i]^-beta - 2 alpha beta x[i] Σ dy[j] y[j] / d[j] over the
// channels j whose window holds i: `after` before i, `before` after it.
void lrn_grad_kernel(const Lrn& p, const float* x, const float* y, const float* dy, float* dx, float* scratch) {
  lrn_denominator(p, x, scratch);
  float *d = scratch, *terms = scratch + p.channels;
  zero_fill(terms, p.after);
  zero_fill(terms + p.after + p.channels, p.before);
  for_vectors(p.channels, [&](int64_t c, auto at) { at.put(terms + p.after + c, at.get(dy + c) * at.get(y + c) / at.get(d + c)); });
  const f32v factor = set1(-2.0f * p.alpha * p.beta);
  for_vectors(p.channels, [&](int64_t c, auto at) {
    const int lanes = p.channels - c < kLanes ? (int)(p.channels - c) : kLanes;
    const f32v sum = window_sum(terms, c, p.before + p.after + 1, lanes);
    at.put(dx + c, fma(factor * at.get(x + c), sum, at.get(dy + c) * lrn_power(at.get(d + c), p.beta)));
  });
}

}  // namespace
}  // namespace WL_ISA
}  // namespace wl
