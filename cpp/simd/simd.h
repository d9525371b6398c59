// The smallest vector type that serves the kernels: GCC/clang vector extensions of WL_VECTOR_BYTES bytes.
//
// Included only by files compiled once per ISA. Everything is `static inline` in namespace wl::WL_ISA, so that no two levels
// share a symbol. Arithmetic is written with operators (+ - * / and comparisons work lane by lane); multiply-adds that are meant
// to fuse are written fma(). The build forbids contraction, so nothing else fuses: bits do not depend on the compiler.
#pragma once
#include <stdint.h>
#include <string.h>

#ifndef WL_ISA  // an editor opening the file
#define WL_ISA baseline
#define WL_VECTOR_BYTES 16
#endif

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define WL_INLINE static inline __attribute__((always_inline, unused))

namespace wl {
namespace WL_ISA {
namespace {

constexpr int kLanes = WL_VECTOR_BYTES / 4;

// Vector registers of the level.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

typedef float f32v __attribute__((vector_size(WL_VECTOR_BYTES)));
typedef int32_t i32v __attribute__((vector_size(WL_VECTOR_BYTES)));
typedef uint32_t u32v __attribute__((vector_size(WL_VECTOR_BYTES)));
typedef float f32v_in_memory __attribute__((vector_size(WL_VECTOR_BYTES), aligned(4), may_alias));  // any address of a float

WL_INLINE f32v set1(float a) {
  return a - f32v{};
}  // a - (+0) keeps the sign of zero and NaN payloads
WL_INLINE f32v zero() {
  return f32v{};
}
WL_INLINE f32v load(const float* p) {
  return *reinterpret_cast<const f32v_in_memory*>(p);
}
WL_INLINE void store(float* p, f32v v) {
  *reinterpret_cast<f32v_in_memory*>(p) = v;
}

WL_INLINE i32v bits(f32v v) {
  return (i32v)v;
}
WL_INLINE f32v from_bits(i32v v) {
  return (f32v)v;
}

// Lane-wise mask ? a : b; a mask lane is all ones or all zeros, as comparisons give.
WL_INLINE f32v select(i32v mask, f32v a, f32v b) {
  return mask ? a : b;
}  // compilers see max, min and blends through this form

// a * b + c. Rounded once where the level has the instruction (every level but the x86 baseline), twice there.
WL_INLINE f32v fma(f32v a, f32v b, f32v c) {
#if defined(__AVX512F__) && WL_VECTOR_BYTES == 64
  return (f32v)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__) && WL_VECTOR_BYTES == 32
  return (f32v)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__) && WL_VECTOR_BYTES == 16
  return (f32v)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

// acc += a * b in place. As an instruction of its own where the level fuses: from fma() GCC picks forms that overwrite a factor, and
// pays for it with register moves and spills in loops that use every register.
WL_INLINE void accumulate(f32v& acc, f32v a, f32v b) {
#if defined(__FMA__)
  asm("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
#else
  acc = fma(a, b, acc);
#endif
}

// acc += *a * b. With AVX-512 the number is the instruction's memory operand: no broadcast on its own. The processor takes that apart again
// unless its address is a register and a constant, so let `a` be a pointer that steps, and no index.
constexpr bool kBroadcastOperands = WL_VECTOR_BYTES == 64;
WL_INLINE void accumulate_at(f32v& acc, const float* a, f32v b) {
#if defined(__FMA__) && WL_VECTOR_BYTES == 64
  asm("vfmadd231ps %1%{1to16%}, %2, %0" : "+v"(acc) : "m"(*a), "v"(b));
#else
  accumulate(acc, set1(*a), b);
#endif
}

// a < b ? b : a, lane by lane: NaN in `a` passes through, NaN in `b` does not.
WL_INLINE f32v max(f32v a, f32v b) {
  return select(a < b, b, a);
}
WL_INLINE f32v min(f32v a, f32v b) {
  return select(a > b, b, a);
}
WL_INLINE f32v abs(f32v a) {
  return from_bits(bits(a) & 0x7fffffff);
}

// All ones in the first n lanes.
WL_INLINE i32v first_lanes(int n) {
  i32v lane{};
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return lane < n;
}

// The first `n` lanes (0 < n < kLanes) from memory, zeros in the rest; touches no byte past p + n. With AVX2 in pieces of 4, 2 and 1 lanes:
// its masked moves take 10 and 12 cycles on some processors, these 4 on any.
WL_INLINE f32v load_partial(const float* p, int n) {
#if defined(__AVX512F__) && WL_VECTOR_BYTES == 64
  return (f32v)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif defined(__AVX2__) && WL_VECTOR_BYTES == 32
  __m128 last = _mm_setzero_ps();
  const float* end = p + (n & ~1);
  if (n & 1) last = _mm_load_ss(end);
  if (n & 2) last = _mm_movelh_ps(_mm_castsi128_ps(_mm_loadl_epi64((const __m128i*)(end - 2))), last);
  return (f32v)(n & 4 ? _mm256_set_m128(last, _mm_loadu_ps(p)) : _mm256_set_m128(_mm_setzero_ps(), last));
#else
  f32v v{};
  for (int i = 0; i < kLanes; ++i)
    if (i < n) v[i] = p[i];
  return v;
#endif
}
WL_INLINE void store_partial(float* p, f32v v, int n) {
#if defined(__AVX512F__) && WL_VECTOR_BYTES == 64
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#elif defined(__AVX2__) && WL_VECTOR_BYTES == 32
  __m128 rest = _mm256_castps256_ps128((__m256)v);
  if (n & 4) {
    _mm_storeu_ps(p, rest);
    rest = _mm256_extractf128_ps((__m256)v, 1);
    p += 4;
  }
  if (n & 2) {
    _mm_storel_epi64((__m128i*)p, _mm_castps_si128(rest));
    rest = _mm_movehl_ps(rest, rest);
    p += 2;
  }
  if (n & 1) _mm_store_ss(p, rest);
#else
  for (int i = 0; i < kLanes; ++i)
    if (i < n) p[i] = v[i];
#endif
}

// kLanes bytes as lanes of 0…255, and back. (Compilers turn __builtin_convertvector between these into one move per lane; unmasked AVX-512
// forms warn about their own undefined operand.)
WL_INLINE i32v load_u8(const uint8_t* p) {
#if defined(__AVX512F__) && WL_VECTOR_BYTES == 64
  return (i32v)_mm512_maskz_cvtepu8_epi32((__mmask16)-1, _mm_loadu_si128((const __m128i*)p));
#elif defined(__AVX2__) && WL_VECTOR_BYTES == 32
  return (i32v)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
#elif defined(__SSE2__) && WL_VECTOR_BYTES == 16
  int32_t word;
  memcpy(&word, p, sizeof word);
  const __m128i none = _mm_setzero_si128();
  return (i32v)_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(word), none), none);
#else
  i32v v{};
  for (int i = 0; i < kLanes; ++i) v[i] = p[i];
  return v;
#endif
}
WL_INLINE void store_u8(uint8_t* p, i32v v) {
#if defined(__AVX512F__) && WL_VECTOR_BYTES == 64
  _mm_storeu_si128((__m128i*)p, _mm512_maskz_cvtepi32_epi8((__mmask16)-1, (__m512i)v));
#elif defined(__AVX2__) && WL_VECTOR_BYTES == 32
  const __m128i half = _mm_packus_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
  _mm_storel_epi64((__m128i*)p, _mm_packus_epi16(half, half));
#elif defined(__SSE2__) && WL_VECTOR_BYTES == 16
  const __m128i half = _mm_packs_epi32((__m128i)v, (__m128i)v);
  const int32_t word = _mm_cvtsi128_si32(_mm_packus_epi16(half, half));
  memcpy(p, &word, sizeof word);
#else
  for (int i = 0; i < kLanes; ++i) p[i] = (uint8_t)v[i];
#endif
}
// The first `n` of them (0 < n < kLanes).
WL_INLINE i32v load_u8_partial(const uint8_t* p, int n) {
#if defined(__AVX512BW__) && defined(__AVX512VL__) && WL_VECTOR_BYTES == 64
  return (i32v)_mm512_maskz_cvtepu8_epi32((__mmask16)-1, _mm_maskz_loadu_epi8((__mmask16)((1u << n) - 1), p));
#else
  static_assert(kLanes <= 8, "the bytes of a vector fit into a word");
  uint64_t word = 0;  // in pieces too, and without a detour through memory that would be written byte by byte
  uint32_t four;
  uint16_t two;
  if (n & 1) word = p[n - 1];
  if (n & 2) memcpy(&two, p + (n & 4), 2), word = word << 16 | two;
  if (n & 4) memcpy(&four, p, 4), word = word << 32 | four;
  return load_u8(reinterpret_cast<const uint8_t*>(&word));
#endif
}
WL_INLINE void store_u8_partial(uint8_t* p, i32v v, int n) {
#if defined(__AVX512F__) && WL_VECTOR_BYTES == 64
  _mm512_mask_cvtepi32_storeu_epi8(p, (__mmask16)((1u << n) - 1), (__m512i)v);
#else
  static_assert(kLanes <= 8, "the bytes of a vector fit into a word");
  uint64_t word = 0;
  store_u8(reinterpret_cast<uint8_t*>(&word), v);
  if (n & 4) memcpy(p, &word, 4), word >>= 32, p += 4;
  if (n & 2) memcpy(p, &word, 2), word >>= 16, p += 2;
  if (n & 1) memcpy(p, &word, 1);
#endif
}

// Lanes [first, first + n) of `v` from or to p[0 … n), other lanes as they are; n > 0, first + n <= kLanes.
WL_INLINE f32v load_between(f32v v, const float* p, int first, int n) {
#if defined(__AVX512F__) && WL_VECTOR_BYTES == 64
  const float* lane0 = (const float*)((uintptr_t)p - first * sizeof(float));
  return (f32v)_mm512_mask_loadu_ps((__m512)v, (__mmask16)(((1u << n) - 1) << first), lane0);
#else
  for (int i = 0; i < kLanes; ++i)
    if (i >= first && i < first + n) v[i] = p[i - first];
  return v;
#endif
}
WL_INLINE void store_between(float* p, f32v v, int first, int n) {
#if defined(__AVX512F__) && WL_VECTOR_BYTES == 64
  _mm512_mask_storeu_ps((float*)((uintptr_t)p - first * sizeof(float)), (__mmask16)(((1u << n) - 1) << first), (__m512)v);
#elif defined(__AVX2__) && WL_VECTOR_BYTES == 32
  const i32v lane = {0, 1, 2, 3, 4, 5, 6, 7};
  if (first) v = (f32v)_mm256_permutevar8x32_ps((__m256)v, (__m256i)(lane + first));
  if (n < kLanes)
    store_partial(p, v, n);
  else
    store(p, v);
#else
  for (int i = 0; i < kLanes; ++i)
    if (i >= first && i < first + n) p[i - first] = v[i];
#endif
}
// The same with bytes.
WL_INLINE i32v load_u8_between(i32v v, const uint8_t* p, int first, int n) {
#if defined(__AVX512BW__) && defined(__AVX512VL__) && WL_VECTOR_BYTES == 64
  const __mmask16 mask = (__mmask16)(((1u << n) - 1) << first);
  return (i32v)_mm512_mask_cvtepu8_epi32((__m512i)v, mask, _mm_maskz_loadu_epi8(mask, (const uint8_t*)((uintptr_t)p - first)));
#else
  for (int i = 0; i < kLanes; ++i)
    if (i >= first && i < first + n) v[i] = p[i - first];
  return v;
#endif
}
WL_INLINE void store_u8_between(uint8_t* p, i32v v, int first, int n) {
#if defined(__AVX512F__) && WL_VECTOR_BYTES == 64
  _mm512_mask_cvtepi32_storeu_epi8((uint8_t*)((uintptr_t)p - first), (__mmask16)(((1u << n) - 1) << first), (__m512i)v);
#else
  for (int i = 0; i < kLanes; ++i)
    if (i >= first && i < first + n) p[i - first] = (uint8_t)v[i];
#endif
}

// A whole vector, or (tail) its first `lanes` lanes: for loops whose body serves both.
template <bool tail>
WL_INLINE f32v load_lanes(const float* p, int lanes) {
  return tail ? load_partial(p, lanes) : load(p);
}
template <bool tail>
WL_INLINE void store_lanes(float* p, f32v v, int lanes) {
  if (tail)
    store_partial(p, v, lanes);
  else
    store(p, v);
}

// All lanes in one, in a fixed order: lane i is combined with lane i + lanes/2, and so on with half as many.
template <class Vector, class Combine>
WL_INLINE float reduce_lanes(Vector v, Combine combine) {
  constexpr int lanes = (int)(sizeof(Vector) / sizeof(float));
  if constexpr (lanes > 4) {
    typedef float Half __attribute__((vector_size(sizeof(Vector) / 2)));
    Half half[2];
    memcpy(half, &v, sizeof v);
    return reduce_lanes(combine(half[0], half[1]), combine);
  } else {
    float lane[lanes];
    memcpy(lane, &v, sizeof v);
    if constexpr (lanes == 4) return combine(combine(lane[0], lane[2]), combine(lane[1], lane[3]));
    if constexpr (lanes == 2) return combine(lane[0], lane[1]);
    return lane[0];
  }
}
WL_INLINE float reduce_add(f32v v) {
  return reduce_lanes(
      v, [](auto a, auto b) __attribute__((always_inline)) { return a + b; });
}
WL_INLINE float reduce_max(f32v v) {
  return reduce_lanes(
      v, [](auto a, auto b) __attribute__((always_inline)) { return a < b ? b : a; });
}

WL_INLINE f32v sqrt(f32v v) {
#if defined(__AVX512F__) && WL_VECTOR_BYTES == 64
  return (f32v)_mm512_maskz_sqrt_ps((__mmask16)-1, (__m512)v);  // the unmasked form warns about its own undefined operand
#elif defined(__AVX__) && WL_VECTOR_BYTES == 32
  return (f32v)_mm256_sqrt_ps((__m256)v);
#elif defined(__SSE2__) && WL_VECTOR_BYTES == 16
  return (f32v)_mm_sqrt_ps((__m128)v);
#elif defined(__aarch64__) && WL_VECTOR_BYTES == 16
  return (f32v)vsqrtq_f32((float32x4_t)v);
#else
  for (int i = 0; i < kLanes; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
#endif
}

}  // namespace
}  // namespace WL_ISA
}  // namespace wl
