// What the pooling ops share: a pooling window is described like a convolution's kernel, on as many channels out as in.
#pragma once
#include "kernels/pool/pool.h"
#include "ops/conv.h"
#include "ops/window.h"

namespace wl {

inline ConvShape pool_shape(const Step& step, const Tensor& x, const Tensor& y) {
  return conv_shape(step, x, y, nullptr);
}

// x (or dx) and y (or dy) fit together, and no window lies wholly in padding.
Status pool_verify(const Step& step, const Tensor& x, const Tensor& y);

// How a pooling step is cut into tasks: rows of one picture, and channels where there are too few rows.
struct PoolTasks {
  int64_t row_block, row_blocks, channel_block, channel_blocks, count;
  double cost_ns;  // of the whole step on one thread
};
PoolTasks pool_tasks(int64_t n, int64_t rows, int64_t columns, int64_t channels, int64_t taps);

struct PoolTask {
  int64_t image, row_begin, row_end, channel, channels;
};
PoolTask pool_task(const PoolTasks& tasks, int64_t task, int64_t rows, int64_t channels);

// Of a task's channels, row `row` of the pixels of its picture (which may lie outside).
inline float* pool_pixels(const Tensor& pictures, const PoolTask& t, int64_t row) {
  return pictures.f32() + t.image * pictures.strides[0] + row * pictures.strides[1] + t.channel;
}

// A row of outputs y, whose windows hold the rows `ky` of theirs inside x; for output row oy the first of these is row pool_row_begin() of
// x. Without an index.
PoolRow pool_row(const ConvShape& s, const PoolTask& t, const Range& ky, const Tensor& x, const Tensor& y);
inline int64_t pool_row_begin(const ConvShape& s, int64_t oy, const Range& ky) {
  return oy * s.sh - s.pad_top + ky.begin * s.dilh;
}

// A row of dx, which the rows of windows `ty` of dy hold, from ty.o_last() on. Without an index.
PoolGather pool_gather(const ConvShape& s, const PoolTask& t, const WindowTaps& ty, const Tensor& dy, const Tensor& dx);

}  // namespace wl
