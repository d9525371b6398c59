// AVX-512 in plain C++: the build option WL_EMULATE_AVX512 includes this before every file of that level and compiles it for AVX2, so that
// vectors of sixteen lanes, tiles for 32 registers and masks are tested on processors without it. Slow; for tests only.
#pragma once
#include <immintrin.h>

#define __AVX512F__ 1
#define __AVX512BW__ 1
#define __AVX512VL__ 1
#undef __FMA__  // else multiply-adds are written as instructions on whole vectors

namespace emulated_avx512 {
namespace {

template <class Number>
struct Lanes {
  Number lane[64 / sizeof(Number)];
};
template <class Number, class Vector>
Lanes<Number> lanes_of(Vector v) {
  static_assert(sizeof(Lanes<Number>) == sizeof v, "a whole vector");
  Lanes<Number> lanes;
  __builtin_memcpy(&lanes, &v, sizeof v);
  return lanes;
}
template <class Vector, class Number>
Vector vector_of(const Lanes<Number>& lanes) {
  Vector v;
  __builtin_memcpy(&v, &lanes, sizeof v);
  return v;
}

// f(i) in lane i, where the mask has its bit; what `v` holds elsewhere.
template <class Number, class Vector, class Function>
Vector masked(Vector v, unsigned mask, Function f) {
  Lanes<Number> lanes = lanes_of<Number>(v);
  for (int i = 0; i < int(64 / sizeof(Number)); ++i)
    if (mask >> i & 1) lanes.lane[i] = f(i);
  return vector_of<Vector>(lanes);
}

inline __m512 fmadd_ps(__m512 a, __m512 b, __m512 c) {
  __m256 x[2], y[2], z[2];
  __builtin_memcpy(x, &a, sizeof a), __builtin_memcpy(y, &b, sizeof b), __builtin_memcpy(z, &c, sizeof c);
  for (int i = 0; i < 2; ++i) z[i] = _mm256_fmadd_ps(x[i], y[i], z[i]);
  __builtin_memcpy(&c, z, sizeof c);
  return c;
}
inline __m512 mask_loadu_ps(__m512 v, __mmask16 mask, const void* p) {
  return masked<float>(v, mask, [p](int i) { return ((const float*)p)[i]; });
}
inline void mask_storeu_ps(void* p, __mmask16 mask, __m512 v) {
  const Lanes<float> lanes = lanes_of<float>(v);
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) ((float*)p)[i] = lanes.lane[i];
}
inline __m512 maskz_sqrt_ps(__mmask16 mask, __m512 v) {
  const Lanes<float> lanes = lanes_of<float>(v);
  return masked<float>(__m512{}, mask, [&](int i) { return __builtin_sqrtf(lanes.lane[i]); });
}
inline __m512i set1_epi64(long long number) {
  return __m512i{} + number;
}
inline __m512i maskz_mul_epu32(__mmask8 mask, __m512i a, __m512i b) {
  const Lanes<unsigned long long> x = lanes_of<unsigned long long>(a), y = lanes_of<unsigned long long>(b);
  return masked<unsigned long long>(__m512i{}, mask, [&](int i) { return (x.lane[i] & 0xffffffff) * (y.lane[i] & 0xffffffff); });
}
inline __m128i maskz_loadu_epi8(__mmask16 mask, const void* p) {
  unsigned char bytes[16] = {};
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) bytes[i] = ((const unsigned char*)p)[i];
  return _mm_loadu_si128((const __m128i*)bytes);
}
inline __m512i mask_cvtepu8_epi32(__m512i v, __mmask16 mask, __m128i from) {
  unsigned char bytes[16];
  _mm_storeu_si128((__m128i*)bytes, from);
  return masked<int>(v, mask, [&](int i) { return (int)bytes[i]; });
}
inline void mask_cvtepi32_storeu_epi8(void* p, __mmask16 mask, __m512i v) {
  const Lanes<int> lanes = lanes_of<int>(v);
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) ((unsigned char*)p)[i] = (unsigned char)lanes.lane[i];
}
inline __m128i maskz_cvtepi32_epi8(__mmask16 mask, __m512i v) {
  unsigned char bytes[16] = {};
  mask_cvtepi32_storeu_epi8(bytes, mask, v);
  return _mm_loadu_si128((const __m128i*)bytes);
}

}  // namespace
}  // namespace emulated_avx512

#define _mm512_fmadd_ps emulated_avx512::fmadd_ps
#define _mm512_mask_loadu_ps emulated_avx512::mask_loadu_ps
#define _mm512_maskz_loadu_ps(mask, p) emulated_avx512::mask_loadu_ps(__m512{}, mask, p)
#define _mm512_mask_storeu_ps emulated_avx512::mask_storeu_ps
#define _mm512_maskz_sqrt_ps emulated_avx512::maskz_sqrt_ps
#define _mm512_set1_epi64 emulated_avx512::set1_epi64
#define _mm512_maskz_mul_epu32 emulated_avx512::maskz_mul_epu32
#define _mm_maskz_loadu_epi8 emulated_avx512::maskz_loadu_epi8
#define _mm512_mask_cvtepu8_epi32 emulated_avx512::mask_cvtepu8_epi32
#define _mm512_maskz_cvtepu8_epi32(mask, from) emulated_avx512::mask_cvtepu8_epi32(__m512i{}, mask, from)
#define _mm512_mask_cvtepi32_storeu_epi8 emulated_avx512::mask_cvtepi32_storeu_epi8
#define _mm512_maskz_cvtepi32_epi8 emulated_avx512::maskz_cvtepi32_epi8
