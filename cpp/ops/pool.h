// What the pooling ops share: a pooling window is described like a convolution's kernel, on as many channels out as in.
#pragma once
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

}  // namespace wl
