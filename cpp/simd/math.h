// Elementary functions on f32v: the only ones that kernels use, so that bits never depend on a C library.
//
// One formula for every level, written with fma(); the baseline rounds fma twice, so its bits differ in the last place. Errors are at
// most 2.5 units in the last place, mostly 1 (tests/cpp/test_math.cc measures them). NaN passes through; there are no branches.
// Polynomials are weighted minimax fits whose coefficients were rounded to float one after the other, lowest degree first.
#pragma once
#include "simd/simd.h"

namespace wl {
namespace WL_ISA {
namespace {

constexpr float kInfinity = __builtin_inff();

// c[0] + c[1] x + … by Horner's rule.
template <int N>
WL_INLINE f32v polynomial(f32v x, const float (&c)[N]) {
  f32v p = set1(c[N - 1]);
#pragma GCC unroll 16
  for (int i = N - 2; i >= 0; --i) p = fma(p, x, set1(c[i]));
  return p;
}

// 2^n for -126 <= n <= 127.
WL_INLINE f32v pow2(i32v n) {
  return from_bits((n + 127) << 23);
}

// x = n ln 2 + r with |r| <= ln 2 / 2; returns expm1(r) and the two halves of 2^n, whose product is exact wherever it is finite.
struct ExpParts {
  f32v expm1_r, scale_a, scale_b;
};
WL_INLINE ExpParts exp_parts(f32v x) {
  const f32v round_shift = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer that sits in the low bits
  x = min(max(x, set1(-104.0f)), set1(89.0f));
  const f32v shifted = fma(x, set1(1.44269504f), round_shift);
  const f32v nf = shifted - round_shift;
  const i32v n = bits(shifted) - bits(round_shift);
  f32v r = fma(nf, set1(-0.693359375f), x);  // exact: ten bits times eight
  r = fma(nf, set1(2.12194440e-4f), r);
  constexpr float c[] = {0.49999994f, 0.166665167f, 0.041668281f, 0.00836924929f, 0.00138207758f};
  const i32v half = n >> 1;
  return {fma(r * r, polynomial(r, c), r), pow2(half), pow2(n - half)};
}

WL_INLINE f32v exp(f32v x) {
  const ExpParts p = exp_parts(x);
  return (p.expm1_r + 1.0f) * p.scale_a * p.scale_b;
}

// exp(x) - 1, accurate near zero too.
WL_INLINE f32v expm1(f32v x) {
  const ExpParts p = exp_parts(min(x, set1(88.0f)));  // 2^n stays finite; larger results are infinite below
  const f32v scale = p.scale_a * p.scale_b;
  const f32v y = fma(scale, p.expm1_r, scale - 1.0f);
  return select(x > 88.7228317f, x + kInfinity, select(x > 88.0f, exp(x), y));
}

// Natural logarithm: log(0) = -inf, NaN for negative x.
WL_INLINE f32v log(f32v x) {
  const i32v tiny = x < 1.17549435e-38f;  // denormal: scale into the normal range
  const f32v scaled = select(tiny, x * 8388608.0f, x);
  const i32v sqrt_half = bits(set1(0.707106769f));
  const i32v shifted = bits(scaled) - sqrt_half;
  const i32v e = (shifted >> 23) - (tiny & 23);
  const f32v f = from_bits((shifted & 0x7fffff) + sqrt_half) - 1.0f;  // x = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt(2)
  const f32v ef = __builtin_convertvector(e, f32v);
  constexpr float c[] = {0.333333135f,  -0.250000089f, 0.200020716f,  -0.166679889f, 0.142203599f,
                         -0.124062397f, 0.118835375f,  -0.116700247f, 0.0674918965f};
  const f32v f2 = f * f;
  f32v tail = fma(f * f2, polynomial(f, c), ef * -2.12194440e-4f);
  tail = fma(f2, set1(-0.5f), tail);
  f32v y = fma(ef, set1(0.693359375f), f + tail);
  y = select(x == kInfinity, x, y);
  y = select(x == 0.0f, set1(-kInfinity), y);
  y = select(x < 0.0f, set1(__builtin_nanf("")), y);
  return select(x == x, y, x);
}

// log(1 + x) for x >= 0.
WL_INLINE f32v log1p_positive(f32v x) {
  const f32v u = x + 1.0f;
  const f32v lost = x - (u - 1.0f);  // what the sum rounded away
  return select(u < kInfinity, log(u) + lost / u, u);
}

WL_INLINE f32v copy_sign(f32v magnitude, f32v sign) {
  return from_bits((bits(magnitude) & 0x7fffffff) | (bits(sign) & ~0x7fffffff));
}

WL_INLINE f32v tanh(f32v x) {
  const f32v a = abs(x), x2 = x * x;
  constexpr float c[] = {-0.333332777f, 0.133313224f, -0.0537293628f, 0.0206042752f, -0.00566503592f};
  const f32v small = fma(a * x2, polynomial(x2, c), a);
  const f32v large = 1.0f - 2.0f / (exp(a + a) + 1.0f);
  return copy_sign(select(a < 0.625f, small, large), x);
}

// 1 / (1 + exp(-x)).
WL_INLINE f32v sigmoid(f32v x) {
  return 1.0f / (exp(-x) + 1.0f);
}

// erf(x) for |x| < 0.93.
WL_INLINE f32v erf_small(f32v x) {
  const f32v x2 = x * x;
  constexpr float c[] = {0.128379151f, -0.376124889f, 0.11281731f, -0.0267629661f, 0.00498735253f, -0.00059595838f};
  return fma(x, polynomial(x2, c), x);
}

// erfc(a) for a > 0.9, with an absolute error below 2^-24 (for a > 4 that is all that is left).
WL_INLINE f32v erfc_large(f32v a) {
  a = min(a, set1(10.0f));
  constexpr float c[] = {-1.12864399f,    -0.635177672f,   -0.106168792f,    0.0236635618f,  -0.00355728017f,
                         0.000278717518f, 1.74288095e-06f, -1.88682736e-06f, 8.97018566e-08f};
  return exp(a * polynomial(a, c));
}

WL_INLINE f32v erf(f32v x) {
  const f32v a = abs(x);
  return select(a < 0.92f, erf_small(x), copy_sign(1.0f - erfc_large(a), x));
}

// The standard normal distribution function, (1 + erf(x / sqrt 2)) / 2, without cancellation for negative x.
WL_INLINE f32v normal_cdf(f32v x) {
  const f32v t = x * 0.707106781f, a = abs(t);
  const f32v tail = 0.5f * erfc_large(a);
  return select(a < 0.92f, fma(set1(0.5f), erf_small(t), set1(0.5f)), select(x < 0.0f, tail, 1.0f - tail));
}

}  // namespace
}  // namespace WL_ISA
}  // namespace wl
