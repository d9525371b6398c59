// Pieces of pool.cc and thin.h: indices in memory and in registers, the taps of one output column, and which of two values wins.
#pragma once
#include "base/align.h"
#include "simd/simd.h"

namespace wl {
namespace WL_ISA {
namespace {

// --- indices: i32 lanes in registers, u8 or i32 in memory ---
WL_INLINE i32v set1_index(int64_t a) {
  return (int32_t)a - i32v{};
}

template <bool tail>
WL_INLINE i32v load_index(const uint8_t* p, int lanes) {
  return tail ? load_u8_partial(p, lanes) : load_u8(p);
}
template <bool tail>
WL_INLINE i32v load_index(const int32_t* p, int lanes) {
  return bits(load_lanes<tail>(reinterpret_cast<const float*>(p), lanes));
}
template <bool tail>
WL_INLINE void store_index(uint8_t* p, i32v index, int lanes) {
  if (tail)
    store_u8_partial(p, index, lanes);
  else
    store_u8(p, index);
}
template <bool tail>
WL_INLINE void store_index(int32_t* p, i32v index, int lanes) {
  store_lanes<tail>(reinterpret_cast<float*>(p), from_bits(index), lanes);
}

WL_INLINE i32v load_index_between(i32v v, const uint8_t* p, int first, int n) {
  return load_u8_between(v, p, first, n);
}
WL_INLINE i32v load_index_between(i32v v, const int32_t* p, int first, int n) {
  return bits(load_between(from_bits(v), reinterpret_cast<const float*>(p), first, n));
}
WL_INLINE void store_index_between(uint8_t* p, i32v index, int first, int n) {
  store_u8_between(p, index, first, n);
}
WL_INLINE void store_index_between(int32_t* p, i32v index, int first, int n) {
  store_between(reinterpret_cast<float*>(p), from_bits(index), first, n);
}

// --- the taps of one output column ---
struct Taps {
  int64_t begin, end;
};
WL_INLINE Taps taps_inside(int64_t at, int64_t taps, int64_t dilation, int64_t width) {
  if (at >= 0 && at + (taps - 1) * dilation < width) return {0, taps};
  if (dilation == 1) {  // a division takes as long as a column
    const int64_t begin = clamp(-at, 0, taps);
    return {begin, clamp(width - at, begin, taps)};
  }
  const int64_t begin = clamp(div_up(-at, dilation), 0, taps);
  return {begin, clamp(div_up(width - at, dilation), begin, taps)};
}

// --- maximum ---
// `v` takes the place of `best` where it is larger, and where it is the first NaN.
WL_INLINE i32v wins(f32v v, f32v best) {
  return (v > best) | ((v != v) & (best == best));
}
WL_INLINE i32v select_index(i32v mask, i32v a, i32v b) {
  return (a & mask) | (b & ~mask);
}

}  // namespace
}  // namespace WL_ISA
}  // namespace wl
