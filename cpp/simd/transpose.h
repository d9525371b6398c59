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
WL_INLINE void transpose(f32v (&v)[kLanes]) {
  perfect_shuffles<kLanes, log2_of(kLanes)>(v);
}

// The lanes of n vectors in turn: number i of vector j becomes number i * n + j of the row.
template <int n>
WL_INLINE void interleave(f32v (&v)[n]) {
  perfect_shuffles<n, log2_of(n)>(v);
}

}  // namespace
}  // namespace WL_ISA
}  // namespace wl
