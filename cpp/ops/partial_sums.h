// Sums over pixels that were cut into parts, each added up by its own task: they are combined here, always in the order of the parts.
#pragma once
#include <string.h>

#include "kernels/outer/outer.h"
#include "ops/combining_time.h"

namespace wl {

// to[i] = (first ? to[i] : 0) + Σ_part parts[part*elements + i], i in [0, elements).
inline void combine_parts(const Run& run, const Kernels& kernels, int64_t parts, int64_t elements, const float* from, float* to,
                          bool first) {
  constexpr int64_t kPiece = 4096;
  const CombiningTime combining(run);
  parallel_for(run, div_up(elements, kPiece), 0.2 * double(elements * parts), [&](int64_t task, int) {
    const int64_t begin = task * kPiece, count = min_of(kPiece, elements - begin);
    if (!first) memcpy(to + begin, from + begin, size_t(count) * sizeof(float));
    for (int64_t part = first ? 0 : 1; part < parts; ++part) kernels.outer->add(count, from + part * elements + begin, to + begin);
  });
}

}  // namespace wl
