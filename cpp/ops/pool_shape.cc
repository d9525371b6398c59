// Verification, cutting and the rows of the kernels, shared by the pooling ops.
#include "ops/pool.h"

namespace wl {

namespace {

// Every window has a tap inside the picture along one axis. With a dilation larger than the picture the taps may step over it: then each
// window is looked at.
Status verify_windows(const Step& step, const char* axis, int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t dilation,
                      int64_t pad) {
  constexpr int64_t kMostLookedAt = 1 << 16;
  const bool first = (kernel - 1) * dilation >= pad, last = (out - 1) * stride - pad < in;
  bool inside = first && last;
  if (dilation > in && kernel > 1) {
    WL_CHECK(out <= kMostLookedAt, "%s: %s: dilation %lld on an input of %lld", step.path, axis, (long long)dilation, (long long)in);
    for (int64_t o = 0; o < out; ++o) inside = inside && window_inside(o, kernel, stride, dilation, pad, in).size() > 0;
  }
  WL_CHECK(inside,
           "%s: %s: a pooling window lies wholly in the padding (input %lld, kernel %lld, stride %lld, dilation %lld, padding %lld before)",
           step.path, axis, (long long)in, (long long)kernel, (long long)stride, (long long)dilation, (long long)pad);
  return Status::good();
}

}  // namespace

Status pool_verify(const Step& step, const Tensor& x, const Tensor& y) {
  WL_TRY(conv_verify(step, x, y, nullptr));
  const ConvShape s = pool_shape(step, x, y);
  WL_CHECK(s.ic == s.oc, "%s: pooling of %lld channels gives %lld", step.path, (long long)s.ic, (long long)s.oc);
  WL_CHECK(s.g == 1, "%s: pooling has no groups", step.path);
  WL_CHECK(s.kh * s.kw <= INT32_MAX, "%s: a pooling window of %lld x %lld positions", step.path, (long long)s.kh, (long long)s.kw);
  WL_TRY(verify_windows(step, "rows", s.ih, s.oh, s.kh, s.sh, s.dilh, s.pad_top));
  WL_TRY(verify_windows(step, "columns", s.iw, s.ow, s.kw, s.sw, s.dilw, s.pad_left));
  return Status::good();
}

PoolTasks pool_tasks(int64_t n, int64_t rows, int64_t columns, int64_t channels, int64_t taps) {
  constexpr int64_t kLeastElements = 1 << 14, kLeastChannels = 64;
  PoolTasks t;
  t.row_block = min_of(rows, max_of(1, kLeastElements / max_of(1, columns * channels * taps)));
  t.row_blocks = div_up(rows, t.row_block);
  const int64_t more = div_up(kEnoughTasks, n * t.row_blocks);
  t.channel_block = min_of(channels, max_of(kLeastChannels, round_up(div_up(channels, more), kLeastChannels)));
  t.channel_blocks = div_up(channels, t.channel_block);
  t.count = n * t.row_blocks * t.channel_blocks;
  t.cost_ns = 0.15 * double(n * rows) * double(columns * channels) * double(taps);
  return t;
}

PoolTask pool_task(const PoolTasks& tasks, int64_t task, int64_t rows, int64_t channels) {
  const int64_t block = task % tasks.channel_blocks, row = task / tasks.channel_blocks % tasks.row_blocks;
  PoolTask t;
  t.image = task / tasks.channel_blocks / tasks.row_blocks;
  t.row_begin = row * tasks.row_block;
  t.row_end = min_of(rows, t.row_begin + tasks.row_block);
  t.channel = block * tasks.channel_block;
  t.channels = min_of(tasks.channel_block, channels - t.channel);
  return t;
}

PoolRow pool_row(const ConvShape& s, const PoolTask& t, const Range& ky, const Tensor& x, const Tensor& y) {
  PoolRow row{};
  row.channels = t.channels, row.columns = s.ow, row.width = s.iw;
  row.rows = ky.size(), row.taps = s.kw, row.first_row = ky.begin;
  row.stride = s.sw, row.dilation = s.dilw, row.start = -s.pad_left;
  row.x_row = s.dilh * x.strides[1], row.x_col = x.strides[2];
  row.y_col = y.strides[2];
  return row;
}

PoolGather pool_gather(const ConvShape& s, const PoolTask& t, const WindowTaps& ty, const Tensor& dy, const Tensor& dx) {
  PoolGather g{};
  g.channels = t.channels, g.columns = s.iw, g.width = s.ow;
  g.rows = ty.count, g.taps = s.kw;
  g.stride = s.sw, g.dilation = s.dilw, g.pad = s.pad_left;
  g.last_row = ty.count ? ty.k_last() : 0, g.row_step = ty.k_step;
  g.dy_row = ty.o_step * dy.strides[1], g.dy_col = dy.strides[2];
  g.dx_col = dx.strides[2];
  return g;
}

}  // namespace wl
