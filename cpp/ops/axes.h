// Loops over the elements of several strided tensors at once: joint axes without those of extent 1, neighbours merged where every tensor
// allows it, then cut into runs or rectangles. The cut depends on extents and strides alone.
#pragma once
#include "ops/op.h"

namespace wl {

template <int K>
struct Axes {
  int rank = 0;  // at least 1
  int64_t extent[kMaxRank] = {};
  int64_t stride[K][kMaxRank] = {};

  int64_t total() const {
    int64_t n = 1;
    for (int a = 0; a < rank; ++a) n *= extent[a];
    return n;
  }
};

// The joint axes of `tensors` but their last `inner` ones. The first tensor tells the extents; a null tensor has stride 0 everywhere.
template <int K>
Axes<K> collapse(const Tensor* const (&tensors)[K], int inner = 0) {
  Axes<K> axes;
  for (int a = 0; a < tensors[0]->rank - inner; ++a) {
    const int64_t extent = tensors[0]->dims[a];
    if (extent == 1) continue;
    bool merges = axes.rank > 0;
    for (int k = 0; k < K && merges; ++k) merges = !tensors[k] || axes.stride[k][axes.rank - 1] == tensors[k]->strides[a] * extent;
    if (!merges) axes.extent[axes.rank++] = 1;
    axes.extent[axes.rank - 1] *= extent;
    for (int k = 0; k < K; ++k) axes.stride[k][axes.rank - 1] = tensors[k] ? tensors[k]->strides[a] : 0;
  }
  if (axes.rank == 0) axes.extent[axes.rank++] = 1;
  return axes;
}

// The axes but the last `inner` ones (at least one of extent 1 stays).
template <int K>
Axes<K> outer_axes(const Axes<K>& axes, int inner) {
  Axes<K> outer = axes;
  outer.rank = axes.rank - inner;
  if (outer.rank <= 0) {
    outer.rank = 1;
    outer.extent[0] = 1;
  }
  return outer;
}

// Calls body(count, offset) for the runs along the last axis that make up [begin, end) of the row-major index; offset[k] is in elements.
template <int K, class Body>
void for_each_run(const Axes<K>& axes, int64_t begin, int64_t end, Body&& body) {
  const int last = axes.rank - 1;
  int64_t index[kMaxRank], offset[K] = {}, rest = begin;
  for (int a = last; a >= 0; --a) {
    index[a] = rest % axes.extent[a];
    rest /= axes.extent[a];
    for (int k = 0; k < K; ++k) offset[k] += index[a] * axes.stride[k][a];
  }
  while (begin < end) {
    const int64_t count = min_of(end - begin, axes.extent[last] - index[last]);
    body(count, static_cast<const int64_t*>(offset));
    begin += count;
    // To the start of the next run, without a division for each.
    for (int k = 0; k < K; ++k) offset[k] -= index[last] * axes.stride[k][last];
    index[last] = 0;
    for (int a = last - 1; a >= 0; --a) {
      for (int k = 0; k < K; ++k) offset[k] += axes.stride[k][a];
      if (++index[a] < axes.extent[a]) break;
      for (int k = 0; k < K; ++k) offset[k] -= axes.extent[a] * axes.stride[k][a];
      index[a] = 0;
    }
  }
}

// A rectangle of elements: (r, c) of tensor k is at offset[k] + r * row[k] + c * col[k].
template <int K>
struct Rect {
  int64_t rows, cols;
  int64_t offset[K], row[K], col[K];
};

constexpr int64_t kTaskElements = 16384;  // elements of one task of a loop that is bound by memory

// Cuts all elements into tasks of at most `max_cols` columns and calls body(rect) in parallel. `ns` is the rough time of one element.
template <int K, class Body>
void for_each_rect(const Run& run, const Axes<K>& axes, double ns, Body&& body, int64_t max_cols = kTaskElements) {
  const int last = axes.rank - 1;
  const int64_t cols = axes.extent[last], rows = axes.total() / cols;
  const int64_t col_block = min_of(cols, max_cols), row_block = max_of(1, kTaskElements / col_block);
  const int64_t row_tasks = div_up(rows, row_block), col_tasks = div_up(cols, col_block);
  const Axes<K> outer = outer_axes(axes, 1);
  parallel_for(run, row_tasks * col_tasks, ns * (double)(rows * cols), [&](int64_t task, int) {
    const int64_t r = task / col_tasks * row_block, c = task % col_tasks * col_block;
    for_each_run(outer, r, min_of(rows, r + row_block), [&](int64_t count, const int64_t* offset) {
      Rect<K> rect;
      rect.rows = count;
      rect.cols = min_of(col_block, cols - c);
      for (int k = 0; k < K; ++k) {
        rect.row[k] = axes.rank > 1 ? axes.stride[k][last - 1] : 0;
        rect.col[k] = axes.stride[k][last];
        rect.offset[k] = offset[k] + c * rect.col[k];
      }
      body(rect);
    });
  });
}

// Tensors as rows of channels: all axes but the last are rows. Task t of `tasks` covers the rows of range(t).
template <int K>
struct ChannelRows {
  Axes<K> axes;
  int64_t rows, channels;

  explicit ChannelRows(const Tensor* const (&tensors)[K])
      : axes(collapse(tensors, 1)), rows(axes.total()), channels(tensors[0]->dim_from_end(0)) {}

  int64_t row_stride(int k) const { return axes.stride[k][axes.rank - 1]; }
  // About kTaskElements per task, but no more than `most` tasks.
  int64_t tasks(int64_t most = INT64_MAX) const { return min_of(most, min_of(rows, div_up(rows * channels, kTaskElements))); }
  // body(rows, offset[K]) for the runs of rows with uniform strides in task t.
  template <class Body>
  void each_run(int64_t tasks, int64_t t, Body&& body) const {
    const Range r = piece(rows, tasks, t);
    for_each_run(axes, r.begin, r.end, body);
  }
};

}  // namespace wl
