// Average and sum pooling and their backward: y = Σ x / d, where d is the window's area, the number of its pixels inside the picture
// (count_padding = 0), or 1 for a sum.
#include <stdio.h>

#include "ops/pool.h"

namespace wl {

namespace {

Status verify_attrs(const Step& step) {
  const int64_t kind = step.i(AttrKey::kind), count = step.i(AttrKey::count_padding, 1);
  WL_CHECK(kind == int64_t(PoolKind::average) || kind == int64_t(PoolKind::sum), "%s: unknown kind of pooling %lld", step.path,
           (long long)kind);
  WL_CHECK(count == 0 || count == 1, "%s: count_padding is %lld, neither 0 nor 1", step.path, (long long)count);
  return Status::good();
}

Status verify(const Step& step) {
  WL_CHECK(step.n_in == 1 && step.in[0] && step.n_out == 1 && step.out[0], "%s: pool_avg has one input and one output", step.path);
  WL_TRY(verify_attrs(step));
  return pool_verify(step, *step.in[0], *step.out[0]);
}

Status verify_bwd(const Step& step) {
  WL_CHECK(step.n_in == 1 && step.in[0] && step.n_out == 1 && step.out[0], "%s: pool_avg_bwd has one input and one output", step.path);
  WL_TRY(verify_attrs(step));
  return pool_verify(step, *step.out[0], *step.in[0]);
}

bool is_sum(const Step& step) {
  return step.i(AttrKey::kind) == int64_t(PoolKind::sum);
}

// Whether the divisor differs between windows: only pixels inside count, and there may be others.
bool counts_inside(const Step& step) {
  return !is_sum(step) && step.i(AttrKey::count_padding, 1) == 0;
}

void choose(const Step& step, const Kernels& kernels, int, Choice* choice) {
  const ConvShape s = pool_shape(step, *step.in[0], *step.out[0]);
  const PoolTasks tasks = pool_tasks(s.n, s.oh, s.ow, s.ic, s.taps());
  snprintf(choice->kernel, sizeof choice->kernel, "average rows x%d channels", kernels.lanes);
  snprintf(choice->blocking, sizeof choice->blocking, "%lld rows x %lld channels per task", (long long)tasks.row_block,
           (long long)tasks.channel_block);
}

void choose_bwd(const Step&, const Kernels& kernels, int, Choice* choice) {
  snprintf(choice->kernel, sizeof choice->kernel, "average bwd gather x%d channels", kernels.lanes);
}

void run(const Step& step, const Run& r) {
  const Tensor &x = *step.in[0], &y = *step.out[0];
  const ConvShape s = pool_shape(step, x, y);
  const PoolKernels& k = *conv_kernels(step, *r.kernels).pool;
  const bool inside = counts_inside(step);
  const PoolTasks tasks = pool_tasks(s.n, s.oh, s.ow, s.ic, s.taps());
  parallel_for(r, tasks.count, tasks.cost_ns, [&](int64_t task, int) {
    const PoolTask t = pool_task(tasks, task, s.oh, s.ic);
    for (int64_t oy = t.row_begin; oy < t.row_end; ++oy) {
      const Range ky = window_inside(oy, s.kh, s.sh, s.dilh, s.pad_top, s.ih);
      const float divisor = is_sum(step) ? 1.0f : float(inside ? ky.size() : s.kh * s.kw);
      k.average_row(pool_row(s, t, ky, x, y), pool_pixels(x, t, pool_row_begin(s, oy, ky)), divisor, inside, pool_pixels(y, t, oy));
    }
  });
}

void run_bwd(const Step& step, const Run& r) {
  const Tensor &dy = *step.in[0], &dx = *step.out[0];
  const ConvShape s = pool_shape(step, dx, dy);
  const PoolKernels& k = *conv_kernels(step, *r.kernels).pool;
  const bool inside = counts_inside(step);
  const PoolTasks tasks = pool_tasks(s.n, s.ih, s.iw, s.ic, 2);
  parallel_for(r, tasks.count, tasks.cost_ns, [&](int64_t task, int) {
    const PoolTask t = pool_task(tasks, task, s.ih, s.ic);
    for (int64_t iy = t.row_begin; iy < t.row_end; ++iy) {
      const WindowTaps ty = window_taps_inside(iy, s.kh, s.sh, s.dilh, s.pad_top, s.oh);
      PoolGather g = pool_gather(s, t, ty, dy, dx);
      float* to = pool_pixels(dx, t, iy);
      if (!inside || ty.count == 0) {
        const float scale = is_sum(step) ? 1.0f : 1.0f / float(s.kh * s.kw);
        k.average_bwd_row(g, pool_pixels(dy, t, ty.count ? ty.o_last() : 0), scale, inside, false, to);
        continue;
      }
      // Each row of outputs has a divisor of its own.
      g.rows = 1;
      for (int64_t i = 0; i < ty.count; ++i) {
        const int64_t oy = ty.o_last() + i * ty.o_step;
        const float scale = 1.0f / float(window_inside(oy, s.kh, s.sh, s.dilh, s.pad_top, s.ih).size());
        k.average_bwd_row(g, pool_pixels(dy, t, oy), scale, true, i > 0, to);
      }
    }
  });
}

}  // namespace

extern const Op op_pool_avg, op_pool_avg_bwd;
const Op op_pool_avg = {"pool_avg", verify, choose, run};
const Op op_pool_avg_bwd = {"pool_avg_bwd", verify_bwd, choose_bwd, run_bwd};

}  // namespace wl
