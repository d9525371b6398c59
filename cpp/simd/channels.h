// Loops over rows of channels that keep vectors full when the channels are few or odd in number.
//
// Where rows follow each other without gaps, `merge` of them form one longer row whose length is a multiple of the vector, and parameters
// per channel are repeated along it.
#pragma once
#include "simd/simd.h"

namespace wl {
namespace WL_ISA {
namespace {

constexpr int64_t kMaxWidth = 1024;  // longest merged row, and widest block of channels that has accumulators on the stack

// How many rows of `channels` to merge: 1, or so many that the merged row is a whole number of at least 8 vectors.
static inline int64_t merge_of(int64_t rows, int64_t channels, bool gapless) {
  if (!gapless || channels > kMaxWidth / 2) return 1;
  int64_t merge = 1;
  while (merge * channels % kLanes) ++merge;
  if (merge * channels > kMaxWidth) return 1;
  const int64_t wanted = 8 * kLanes / (merge * channels);
  if (wanted > 1) merge *= wanted;
  return rows >= 2 * merge ? merge : 1;
}

// A parameter per channel, repeated `merge` times into `storage` (or as it is when nothing is merged).
WL_INLINE const float* repeat(const float* p, int64_t channels, int64_t merge, float* storage) {
  if (merge == 1 || !p) return p;
  for (int64_t m = 0; m < merge; ++m)
    for (int64_t c = 0; c < channels; ++c) storage[m * channels + c] = p[c];
  return storage;
}

// A whole vector, or its first n lanes at the end of a row; both forms in one loop body.
struct Whole {
  f32v get(const float* p) const { return load(p); }
  void put(float* p, f32v v) const { store(p, v); }
};
struct Part {
  int n;
  f32v get(const float* p) const { return load_partial(p, n); }
  void put(float* p, f32v v) const { store_partial(p, v, n); }
};

// body(i, access) for i = 0, kLanes, 2 kLanes … below n; access.get and access.put touch exactly the lanes below n.
template <class Body>
WL_INLINE void for_vectors(int64_t n, Body&& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Whole{});
  if (i < n) body(i, Part{(int)(n - i)});
}

}  // namespace
}  // namespace WL_ISA
}  // namespace wl
