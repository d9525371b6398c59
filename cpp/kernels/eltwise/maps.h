// Unary and binary functions of elements.
#pragma once
#include "kernels/eltwise/eltwise.h"
#include "simd/activation.h"
#include "simd/channels.h"

namespace wl {
namespace WL_ISA {
namespace {

void unary_kernel(UnaryKind kind, float alpha, float beta, int64_t n, const float* x, float* y) {
  const f32v a = set1(alpha), b = set1(beta);
  with_kind(kind,
            [&](auto tag) { for_vectors(n, [&](int64_t i, auto at) { at.put(y + i, unary<decltype(tag)::kind>(at.get(x + i), a, b)); }); });
}

void unary_grad_kernel(UnaryKind kind, float alpha, float beta, int64_t n, const float* s, const float* dy, float* dx) {
  const f32v a = set1(alpha), b = set1(beta);
  if (!s) s = dy;  // a kind that saves nothing does not look at it
  with_kind(kind, [&](auto tag) {
    for_vectors(n, [&](int64_t i, auto at) { at.put(dx + i, unary_grad<decltype(tag)::kind>(at.get(s + i), at.get(dy + i), a, b)); });
  });
}

template <BinaryKind kind>
WL_INLINE f32v binary(f32v a, f32v b) {
  const f32v one = set1(1.0f), none = zero();
  if constexpr (kind == BinaryKind::add) return a + b;
  if constexpr (kind == BinaryKind::sub) return a - b;
  if constexpr (kind == BinaryKind::mul) return a * b;
  if constexpr (kind == BinaryKind::div) return a / b;
  if constexpr (kind == BinaryKind::maximum) return select((a > b) | (a != a), a, b);  // NaN in either wins, as in NumPy
  if constexpr (kind == BinaryKind::minimum) return select((a < b) | (a != a), a, b);
  if constexpr (kind == BinaryKind::greater_equal) return select(a >= b, one, none);
  if constexpr (kind == BinaryKind::greater) return select(a > b, one, none);
  if constexpr (kind == BinaryKind::equal) return select(a == b, one, none);
}

// Rows whose operands have column strides 0 or 1, y's being 1.
template <BinaryKind kind>
void binary_rows(int64_t rows, int64_t cols, const Plane& a, const Plane& b, float* y, int64_t y_row) {
  for (int64_t r = 0; r < rows; ++r) {
    const float *pa = a.data + r * a.row, *pb = b.data + r * b.row;
    float* py = y + r * y_row;
    if (a.col && b.col) {
      for_vectors(cols, [&](int64_t i, auto at) { at.put(py + i, binary<kind>(at.get(pa + i), at.get(pb + i))); });
    } else if (a.col) {
      const f32v vb = set1(*pb);
      for_vectors(cols, [&](int64_t i, auto at) { at.put(py + i, binary<kind>(at.get(pa + i), vb)); });
    } else if (b.col) {
      const f32v va = set1(*pa);
      for_vectors(cols, [&](int64_t i, auto at) { at.put(py + i, binary<kind>(va, at.get(pb + i))); });
    } else {
      const f32v v = binary<kind>(set1(*pa), set1(*pb));
      for_vectors(cols, [&](int64_t i, auto at) { at.put(py + i, v); });
    }
  }
}

// Makes one row of `merge` rows out of an operand that follows itself without gaps or repeats one row of columns.
WL_INLINE Plane merge_rows(Plane p, int64_t cols, int64_t merge, float* storage) {
  if (p.row == 0) return {repeat(p.data, cols, merge, storage), 0, 1};
  return {p.data, merge * cols, 1};
}

template <BinaryKind kind>
void binary_plane(int64_t rows, int64_t cols, Plane a, Plane b, float* y, int64_t y_row) {
  const auto mergeable = [cols](const Plane& p) { return p.col == 1 && (p.row == cols || p.row == 0); };
  const int64_t merge = merge_of(rows, cols, mergeable(a) && mergeable(b) && y_row == cols);
  if (merge == 1) return binary_rows<kind>(rows, cols, a, b, y, y_row);
  float storage_a[kMaxWidth], storage_b[kMaxWidth];
  const int64_t merged = rows / merge, done = merged * merge;
  binary_rows<kind>(merged, merge * cols, merge_rows(a, cols, merge, storage_a), merge_rows(b, cols, merge, storage_b), y, merge * cols);
  binary_rows<kind>(rows - done, cols, {a.data + done * a.row, a.row, 1}, {b.data + done * b.row, b.row, 1}, y + done * cols, cols);
}

void binary_kernel(BinaryKind kind, int64_t rows, int64_t cols, Plane a, Plane b, float* y, int64_t y_row, int64_t y_col) {
  const auto run = [&](auto each) {
    if ((a.col == 0 || a.col == 1) && (b.col == 0 || b.col == 1) && y_col == 1) return each(rows, cols, a, b, y, y_row);
    // Other column strides go through short dense rows.
    constexpr int64_t kBlock = 64;
    float block_a[kBlock], block_b[kBlock], block_y[kBlock];
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; c += kBlock) {
        const int64_t n = cols - c < kBlock ? cols - c : kBlock;
        for (int64_t i = 0; i < n; ++i) {
          block_a[i] = a.data[r * a.row + (c + i) * a.col];
          block_b[i] = b.data[r * b.row + (c + i) * b.col];
        }
        each(1, n, Plane{block_a, n, 1}, Plane{block_b, n, 1}, block_y, n);
        for (int64_t i = 0; i < n; ++i) y[r * y_row + (c + i) * y_col] = block_y[i];
      }
  };
  switch (kind) {
#define WL_BINARY_CASE(name, number) \
  case BinaryKind::name: return run(binary_plane<BinaryKind::name>);
    WL_BINARY_KINDS(WL_BINARY_CASE)
#undef WL_BINARY_CASE
  }
}

}  // namespace
}  // namespace WL_ISA
}  // namespace wl
