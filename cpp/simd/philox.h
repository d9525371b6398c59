// random_group() of base/random.h on vectors: the same numbers.
#pragma once
#include "base/random.h"
#include "simd/simd.h"

namespace wl {
namespace WL_ISA {
namespace {

#if WL_VECTOR_BYTES >= 16
constexpr int kPairs = WL_VECTOR_BYTES / 8;  // counters per vector: each sits in the low half of a 64-bit lane
typedef uint64_t u64v __attribute__((vector_size(WL_VECTOR_BYTES), aligned(8), may_alias));

// The 64-bit products of the low halves; the upper halves of `a` are ignored.
WL_INLINE u64v multiply_low(u64v a, uint32_t b) {
#if defined(__AVX512F__) && WL_VECTOR_BYTES == 64
  return (u64v)_mm512_maskz_mul_epu32((__mmask8)-1, (__m512i)a, _mm512_set1_epi64((long long)b));
#elif defined(__AVX2__) && WL_VECTOR_BYTES == 32
  return (u64v)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x((long long)b));
#elif defined(__SSE2__) && WL_VECTOR_BYTES == 16
  return (u64v)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x((long long)b));
#elif defined(__aarch64__) && WL_VECTOR_BYTES == 16
  return (u64v)vmull_u32(vmovn_u64((uint64x2_t)a), vdup_n_u32(b));
#endif
}

WL_INLINE void random_group_vector(uint64_t key, uint64_t sample, uint64_t group, uint32_t out[kRandomGroup]) {
  u64v even;  // 0, 2, 4 …
  for (int i = 0; i < kPairs; ++i) even[i] = (uint64_t)(2 * i);
  for (int half = 0; half < 16; half += 2 * kPairs) {
    const uint64_t first = group * 16 + (uint64_t)half;  // a group's counters share their upper 32 bits
    u64v word[2][4];                                     // [even, odd elements]
    for (int odd = 0; odd < 2; ++odd) {
      u64v c0 = even + (first + (uint64_t)odd), c1 = u64v{} + (first >> 32), c2 = u64v{} + (sample & 0xffffffffu),
           c3 = u64v{} + (sample >> 32);
      uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
      for (int round = 0; round < 10; ++round) {  // upper halves carry rubbish that no product reads
        const u64v p0 = multiply_low(c0, kPhiloxM0), p1 = multiply_low(c2, kPhiloxM1);
        c0 = (p1 >> 32) ^ c1 ^ (uint64_t)k0, c2 = (p0 >> 32) ^ c3 ^ (uint64_t)k1;
        c1 = p1, c3 = p0;
        k0 += kPhiloxW0, k1 += kPhiloxW1;
      }
      word[odd][0] = c0, word[odd][1] = c1, word[odd][2] = c2, word[odd][3] = c3;
    }
    for (int w = 0; w < 4; ++w) {
      const u64v pair = (word[0][w] & 0xffffffffu) | (word[1][w] << 32);
      memcpy(out + 16 * w + half, &pair, sizeof pair);
    }
  }
}
#else
WL_INLINE void random_group_vector(uint64_t key, uint64_t sample, uint64_t group, uint32_t out[kRandomGroup]) {
  random_group(key, sample, group, out);
}
#endif

}  // namespace
}  // namespace WL_ISA
}  // namespace wl
