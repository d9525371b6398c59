// Transposition of a square of vectors in registers.
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

// v[i][j] becomes v[j][i]: log2(lanes) rounds of perfect shuffles.
WL_INLINE void transpose(f32v (&v)[kLanes]) {
#pragma GCC unroll 4
  for (int round = 1; round < kLanes; round *= 2) {
    f32v w[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      w[2 * i] = interleave_low(v[i], v[i + kLanes / 2]);
      w[2 * i + 1] = interleave_high(v[i], v[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) v[i] = w[i];
  }
}

}  // namespace
}  // namespace WL_ISA
}  // namespace wl
