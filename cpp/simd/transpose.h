// Transposition of vectors in registers.
#pragma once
#include "simd/simd.h"

namespace wl {
namespace WL_ISA {
namespace {

#if WL_VECTOR_BYTES == 64
#define WL_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define WL_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif WL_VECTOR_BYTES == 32
#define WL_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define WL_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define WL_LOW 0, 4, 1, 5
#define WL_HIGH 2, 6, 3, 7
#endif

// The lower (upper) halves of a and b, lane by lane in turn.
WL_INLINE f32v interleave_low(f32v a, f32v b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, WL_LOW);
#else
  return __builtin_shuffle(a, b, i32v{WL_LOW});
#endif
}
WL_INLINE f32v interleave_high(f32v a, f32v b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, WL_HIGH);
#else
  return __builtin_shuffle(a, b, i32v{WL_HIGH});
#endif
}
#undef WL_LOW
#undef WL_HIGH

// Perfect shuffles: seen as one row of n * kLanes numbers (n a power of two), each round moves the number at i to 2i modulo the row's
// length less one. `rounds` of them turn v[i][j], i < n, into j * n + i where 2^rounds = n, and into its inverse where 2^rounds = kLanes.
template <int n, int rounds>
WL_INLINE void perfect_shuffles(f32v (&v)[n]) {
  if constexpr (n > 1) {
#pragma GCC unroll 4
    for (int round = 0; round < rounds; ++round) {
      f32v w[n];
#pragma GCC unroll 8
      for (int i = 0; i < n / 2; ++i) {
        w[2 * i] = interleave_low(v[i], v[i + n / 2]);
        w[2 * i + 1] = interleave_high(v[i], v[i + n / 2]);
      }
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) v[i] = w[i];
    }
  }
}

constexpr int log2_of(int n) {
  return n <= 1 ? 0 : 1 + log2_of(n / 2);
}

// v[i][j] becomes v[j][i].
#if defined(__AVX__) && WL_VECTOR_BYTES == 32
// Halves of a vector cross over once, at the end, and by instructions that are quick on every processor: perfect shuffles would do it in
// every round.
WL_INLINE void transpose(f32v (&v)[8]) {
  const auto low = [](f32v a, f32v b) { return (f32v)_mm256_unpacklo_ps((__m256)a, (__m256)b); };
  const auto high = [](f32v a, f32v b) { return (f32v)_mm256_unpackhi_ps((__m256)a, (__m256)b); };
  const auto low_pairs = [](f32v a, f32v b) { return (f32v)_mm256_unpacklo_pd((__m256d)a, (__m256d)b); };
  const auto high_pairs = [](f32v a, f32v b) { return (f32v)_mm256_unpackhi_pd((__m256d)a, (__m256d)b); };
  f32v w[8];
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {  // 4x4 in each half
    const f32v a = low(v[i], v[i + 1]), b = low(v[i + 2], v[i + 3]), c = high(v[i], v[i + 1]), d = high(v[i + 2], v[i + 3]);
    w[i] = low_pairs(a, b), w[i + 1] = high_pairs(a, b), w[i + 2] = low_pairs(c, d), w[i + 3] = high_pairs(c, d);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    v[i] = (f32v)_mm256_insertf128_ps((__m256)w[i], _mm256_castps256_ps128((__m256)w[i + 4]), 1);
    v[i + 4] = (f32v)_mm256_blend_ps(_mm256_castps128_ps256(_mm256_extractf128_ps((__m256)w[i], 1)), (__m256)w[i + 4], 0xf0);
  }
}
#else
WL_INLINE void transpose(f32v (&v)[kLanes]) {
  perfect_shuffles<kLanes, log2_of(kLanes)>(v);
}
#endif

// The lanes of n vectors in turn: number i of vector j becomes number i * n + j of the row.
template <int n>
WL_INLINE void interleave(f32v (&v)[n]) {
  if constexpr (n == kLanes)
    transpose(v);
  else
    perfect_shuffles<n, log2_of(n)>(v);
}

}  // namespace
}  // namespace WL_ISA
}  // namespace wl
