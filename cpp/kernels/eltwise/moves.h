// Copies between strided planes, and dropout.
#pragma once
#include "kernels/eltwise/eltwise.h"
#include "simd/channels.h"
#include "simd/philox.h"
#if WL_VECTOR_BYTES >= 16
#include "simd/transpose.h"
#endif

namespace wl {
namespace WL_ISA {
namespace {

// y[c * y_col + r] = x[r * x_row + c]: square blocks, so that whole cache lines are used on both sides.
template <class T>
void transpose_plane(int64_t rows, int64_t cols, const T* x, int64_t x_row, T* y, int64_t y_col) {
  constexpr int64_t kBlock = 16;
  for (int64_t r0 = 0; r0 < rows; r0 += kBlock)
    for (int64_t c0 = 0; c0 < cols; c0 += kBlock) {
      const int64_t r1 = r0 + kBlock < rows ? r0 + kBlock : rows, c1 = c0 + kBlock < cols ? c0 + kBlock : cols;
      if constexpr (sizeof(T) == sizeof(float) && WL_VECTOR_BYTES >= 16) {
        if (r1 - r0 == kBlock && c1 - c0 == kBlock) {
          for (int64_t r = r0; r < r1; r += kLanes)
            for (int64_t c = c0; c < c1; c += kLanes) {
              f32v v[kLanes];
              for (int i = 0; i < kLanes; ++i) v[i] = load(reinterpret_cast<const float*>(x + (r + i) * x_row + c));
              transpose(v);
              for (int i = 0; i < kLanes; ++i) store(reinterpret_cast<float*>(y + (c + i) * y_col + r), v[i]);
            }
          continue;
        }
      }
      for (int64_t c = c0; c < c1; ++c)
        for (int64_t r = r0; r < r1; ++r) y[c * y_col + r] = x[r * x_row + c];
    }
}

template <size_t count>
struct Count {
  constexpr operator size_t() const { return count; }
};

template <class T>
void copy_plane(int64_t rows, int64_t cols, const T* x, int64_t x_row, int64_t x_col, T* y, int64_t y_row, int64_t y_col) {
  if (x_col == 1 && y_col == 1) {
    const int64_t bytes = cols * (int64_t)sizeof(T);
    const auto rows_of = [&](auto few) {  // so many columns, known at compile time
      for (int64_t r = 0; r < rows; ++r) memcpy(y + r * y_row, x + r * x_row, few * sizeof(T));
    };
    if (bytes > 64) {
      for (int64_t r = 0; r < rows; ++r) memcpy(y + r * y_row, x + r * x_row, (size_t)bytes);
    } else if (cols == 1) {
      rows_of(Count<1>{});
    } else if (cols == 2) {
      rows_of(Count<2>{});
    } else if (cols == 3) {
      rows_of(Count<3>{});
    } else if (cols == 4) {
      rows_of(Count<4>{});
    } else {  // too short to be worth a call
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) y[r * y_row + c] = x[r * x_row + c];
    }
  } else if (x_col == 1 && y_row == 1) {
    transpose_plane(rows, cols, x, x_row, y, y_col);
  } else if (x_row == 1 && y_col == 1) {
    transpose_plane(cols, rows, x, x_col, y, y_row);
  } else {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) y[r * y_row + c * y_col] = x[r * x_row + c * x_col];
  }
}

void copy_kernel(int size, int64_t rows, int64_t cols, const void* x, int64_t x_row, int64_t x_col, void* y, int64_t y_row, int64_t y_col) {
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    copy_plane(rows, cols, static_cast<const T*>(x), x_row, x_col, static_cast<T*>(y), y_row, y_col);
  };
  switch (size) {
    case 1: return run(uint8_t{});
    case 2: return run(uint16_t{});
    case 4: return run(uint32_t{});
    case 8: return run(uint64_t{});
  }
}

void dropout_kernel(int64_t n, const float* x, float* y, uint32_t threshold, float scale, uint64_t key, uint64_t sample, uint64_t first) {
  uint32_t numbers[kRandomGroup];
  const f32v factor = set1(scale);
  const u32v limit = u32v{} + threshold;
  for (int64_t i = 0; i < n;) {
    const uint64_t element = first + (uint64_t)i;
    random_group_vector(key, sample, element / kRandomGroup, numbers);
    const int begin = (int)(element % kRandomGroup);  // > 0 only in the first group
    const int64_t count = n - i < kRandomGroup - begin ? n - i : kRandomGroup - begin;
    const float* drawn = reinterpret_cast<const float*>(numbers) + begin;  // moved as bits: no arithmetic touches them
    for_vectors(count, [&](int64_t j, auto at) {
      const u32v bits = reinterpret_cast<u32v>(at.get(drawn + j));
      at.put(y + i + j, select(reinterpret_cast<i32v>(bits >= limit), at.get(x + i + j) * factor, zero()));
    });
    i += count;
  }
}

}  // namespace
}  // namespace WL_ISA
}  // namespace wl
