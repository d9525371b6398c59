// Max pooling and its backward. The index names the winning position inside its window, one byte where the window allows; backward reads
// nothing else.
#include <stdio.h>
#include <string.h>

#include "ops/pool.h"

namespace wl {

namespace {

Status verify_index(const Step& step, const ConvShape& s, const Tensor& y, const Tensor& index) {
  WL_CHECK(index.dtype == DType::u8 || index.dtype == DType::i32, "%s: the index is neither uint8 nor int32", step.path);
  WL_CHECK(index.dtype == DType::i32 || s.kh * s.kw <= 256, "%s: a window of %lld positions needs an int32 index", step.path,
           (long long)(s.kh * s.kw));
  WL_CHECK(index.rank == 4 && index.batch == y.batch, "%s: the index does not have the extents of the output", step.path);
  for (int a = 0; a < 4; ++a) WL_CHECK(index.dims[a] == y.dims[a], "%s: the index does not have the extents of the output", step.path);
  WL_CHECK(index.dims[3] == 1 || index.strides[3] == 1, "%s: the channels of the index have stride %lld, not 1", step.path,
           (long long)index.strides[3]);
  return Status::good();
}

Status verify(const Step& step) {
  WL_CHECK(step.n_in == 1 && step.in[0], "%s: pool_max takes one input", step.path);
  WL_CHECK((step.n_out == 1 || step.n_out == 2) && step.out[0], "%s: pool_max has one output and an index", step.path);
  const Tensor &x = *step.in[0], &y = *step.out[0];
  WL_TRY(pool_verify(step, x, y));
  if (step.out[1]) WL_TRY(verify_index(step, pool_shape(step, x, y), y, *step.out[1]));
  return Status::good();
}

Status verify_bwd(const Step& step) {
  WL_CHECK(step.n_in == 2 && step.in[0] && step.in[1], "%s: pool_max_bwd takes dy and the index", step.path);
  WL_CHECK(step.n_out == 1 && step.out[0], "%s: pool_max_bwd has one output", step.path);
  const Tensor &dy = *step.in[0], &index = *step.in[1], &dx = *step.out[0];
  WL_TRY(pool_verify(step, dx, dy));
  return verify_index(step, pool_shape(step, dx, dy), dy, index);
}

// Windows side by side from the top left corner: each output owns a tile of dx.
bool tiles(const ConvShape& s) {
  return s.sh == s.kh && s.sw == s.kw && s.dilh == 1 && s.dilw == 1 && s.pad_top == 0 && s.pad_left == 0;
}

void choose(const Step& step, const Kernels& kernels, int, Choice* choice) {
  const ConvShape s = pool_shape(step, *step.in[0], *step.out[0]);
  const PoolTasks tasks = pool_tasks(s.n, s.oh, s.ow, s.ic, s.taps());
  snprintf(choice->kernel, sizeof choice->kernel, "max rows x%d channels%s", kernels.lanes, step.out[1] ? ", index" : "");
  snprintf(choice->blocking, sizeof choice->blocking, "%lld rows x %lld channels per task", (long long)tasks.row_block,
           (long long)tasks.channel_block);
}

void choose_bwd(const Step& step, const Kernels& kernels, int, Choice* choice) {
  const ConvShape s = pool_shape(step, *step.out[0], *step.in[0]);
  snprintf(choice->kernel, sizeof choice->kernel, "max bwd %s x%d channels", tiles(s) ? "tiles" : "gather", kernels.lanes);
  if (!tiles(s)) snprintf(choice->refused, sizeof choice->refused, "tiles: windows are not side by side from the corner");
}

void run(const Step& step, const Run& r) {
  const Tensor &x = *step.in[0], &y = *step.out[0];
  const Tensor* index = step.out[1];
  const PoolKernels& k = *conv_kernels(step, *r.kernels).pool;
  const ConvShape s = pool_shape(step, x, y);
  const PoolTasks tasks = pool_tasks(s.n, s.oh, s.ow, s.ic, s.taps());
  parallel_for(r, tasks.count, tasks.cost_ns, [&](int64_t task, int) {
    const PoolTask t = pool_task(tasks, task, s.oh, s.ic);
    for (int64_t oy = t.row_begin; oy < t.row_end; ++oy) {
      const Range ky = window_inside(oy, s.kh, s.sh, s.dilh, s.pad_top, s.ih);
      PoolRow row = pool_row(s, t, ky, x, y);
      row.index_col = index ? index->strides[2] : 0;
      const float* from = pool_pixels(x, t, pool_row_begin(s, oy, ky));
      float* to = pool_pixels(y, t, oy);
      const int64_t at = index ? t.image * index->strides[0] + oy * index->strides[1] + t.channel : 0;
      if (!index)
        k.max_row(row, from, to);
      else if (index->dtype == DType::u8)
        k.max_index_u8(row, from, to, index->as<uint8_t>() + at);
      else
        k.max_index_i32(row, from, to, index->as<int32_t>() + at);
    }
  });
}

void zero_columns(const Tensor& dx, int64_t iy, int64_t begin, int64_t end, const PoolTask& t) {
  for (int64_t ix = begin; ix < end; ++ix) memset(pool_pixels(dx, t, iy) + ix * dx.strides[2], 0, size_t(t.channels) * sizeof(float));
}

void run_tiles(const ConvShape& s, const PoolKernels& k, const Tensor& dy, const Tensor& index, const Tensor& dx, const Run& r) {
  const PoolTasks tasks = pool_tasks(s.n, s.oh, s.ow, s.ic, s.taps());
  parallel_for(r, tasks.count, tasks.cost_ns, [&](int64_t task, int) {
    const PoolTask t = pool_task(tasks, task, s.oh, s.ic);
    for (int64_t oy = t.row_begin; oy < t.row_end; ++oy) {
      PoolRow row{};
      row.channels = t.channels, row.columns = s.ow, row.width = min_of(s.iw, s.ow * s.sw);
      row.rows = min_of(s.kh, s.ih - oy * s.sh), row.taps = s.kw;
      row.stride = s.sw, row.dilation = 1;
      row.x_row = dx.strides[1], row.x_col = dx.strides[2];
      row.y_col = dy.strides[2], row.index_col = index.strides[2];
      const float* from = pool_pixels(dy, t, oy);
      const int64_t at = t.image * index.strides[0] + oy * index.strides[1] + t.channel;
      float* to = pool_pixels(dx, t, oy * s.sh);
      if (index.dtype == DType::u8)
        k.max_bwd_tiles_u8(row, from, index.as<uint8_t>() + at, to);
      else
        k.max_bwd_tiles_i32(row, from, index.as<int32_t>() + at, to);
      const int64_t below = oy + 1 == s.oh ? s.ih : min_of(s.ih, (oy + 1) * s.sh);
      for (int64_t iy = oy * s.sh; iy < below; ++iy) zero_columns(dx, iy, iy < oy * s.sh + row.rows ? row.width : 0, s.iw, t);
    }
  });
}

void run_gather(const ConvShape& s, const PoolKernels& k, const Tensor& dy, const Tensor& index, const Tensor& dx, const Run& r) {
  const PoolTasks tasks = pool_tasks(s.n, s.ih, s.iw, s.ic, 2);
  parallel_for(r, tasks.count, tasks.cost_ns, [&](int64_t task, int) {
    const PoolTask t = pool_task(tasks, task, s.ih, s.ic);
    for (int64_t iy = t.row_begin; iy < t.row_end; ++iy) {
      const WindowTaps ty = window_taps_inside(iy, s.kh, s.sh, s.dilh, s.pad_top, s.oh);
      PoolGather g = pool_gather(s, t, ty, dy, dx);
      g.index_row = ty.o_step * index.strides[1], g.index_col = index.strides[2];
      const int64_t oy = ty.count ? ty.o_last() : 0;
      const float* from = pool_pixels(dy, t, oy);
      const int64_t at = t.image * index.strides[0] + oy * index.strides[1] + t.channel;
      float* to = pool_pixels(dx, t, iy);
      if (index.dtype == DType::u8)
        k.max_bwd_row_u8(g, from, index.as<uint8_t>() + at, to);
      else
        k.max_bwd_row_i32(g, from, index.as<int32_t>() + at, to);
    }
  });
}

void run_bwd(const Step& step, const Run& r) {
  const Tensor &dy = *step.in[0], &index = *step.in[1], &dx = *step.out[0];
  const ConvShape s = pool_shape(step, dx, dy);
  const PoolKernels& k = *conv_kernels(step, *r.kernels).pool;
  if (tiles(s))
    run_tiles(s, k, dy, index, dx, r);
  else
    run_gather(s, k, dy, index, dx, r);
}

}  // namespace

extern const Op op_pool_max, op_pool_max_bwd;
const Op op_pool_max = {"pool_max", verify, choose, run};
const Op op_pool_max_bwd = {"pool_max_bwd", verify_bwd, choose_bwd, run_bwd};

}  // namespace wl
