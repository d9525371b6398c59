// Batch normalisation over all axes but the last: statistics, normalise (+ activation + residual), its gradient, running statistics.
#include "ops/batch_norm.h"

#include <string.h>

#include "kernels/eltwise/eltwise.h"
#include "kernels/reduce/reduce.h"
#include "ops/axes.h"
#include "ops/check.h"
#include "ops/combining_time.h"

namespace wl {
namespace {

constexpr int64_t kMostPartials = 64;  // tasks of a reduction, combined in order

float* floats(const Run& r, int64_t offset) {
  return reinterpret_cast<float*>(r.workspace) + offset;
}

Status verify_kind(const Step& s) {
  WL_CHECK(unary_saves(s.i(AttrKey::activation)), "%s: no activation %lld", s.path, (long long)s.i(AttrKey::activation));
  return Status::good();
}

// --- bn_stats ------------------------------------------------------------------------------------------------------------------------

Status verify_stats(const Step& s) {
  WL_TRY(check_arity(s, 1, 1, 2, 2));
  WL_TRY(check_float(s));
  WL_CHECK(s.in[0]->rank >= 1, "%s: batch statistics need an axis of channels", s.path);
  WL_TRY(check_rows(s, *s.in[0], *s.in[0], "x"));
  WL_TRY(check_vector(s, *s.out[0], s.in[0]->dim_from_end(0), "mean"));
  return check_vector(s, *s.out[1], s.in[0]->dim_from_end(0), "var");
}

void choose_stats(const Step& s, const Kernels&, int, Choice* choice) {
  const ChannelRows<1> view({s.in[0]});
  choice->workspace = round_up(4 * view.tasks(kMostPartials) * view.channels * (int64_t)sizeof(float), kCacheLine);
}

void run_stats(const Step& s, const Run& r) {
  const Tensor& x = *s.in[0];
  const ChannelRows<1> view({&x});
  const ReduceKernels& k = *r.kernels->reduce;
  const int64_t c = view.channels, tasks = view.tasks(kMostPartials);
  const float* shift = x.f32();  // the first row: differences from it are small where the spread is, whatever the mean
  parallel_for(r, tasks, 0.4 * (double)(view.rows * c), [&](int64_t task, int) {
    float *mean = floats(r, 4 * c * task), *m2 = mean + c, *run_mean = m2 + c, *run_m2 = run_mean + c;
    double seen = 0;
    view.each_run(tasks, task, [&](int64_t rows, const int64_t* offset) {
      const bool first = seen == 0;
      k.moments(rows, c, x.f32() + offset[0], view.row_stride(0), shift, first ? mean : run_mean, first ? m2 : run_m2);
      if (!first) k.merge_moments(c, seen, mean, m2, (double)rows, run_mean, run_m2);
      seen += (double)rows;
    });
  });
  float *mean = floats(r, 0), *m2 = mean + c;
  {
    const CombiningTime combining(r);
    for (int64_t t = 1; t < tasks; ++t) {
      const Range rows = piece(view.rows, tasks, t);
      const float* other = floats(r, 4 * c * t);
      k.merge_moments(c, (double)rows.begin, mean, m2, (double)rows.size(), other, other + c);
    }
  }
  float *out_mean = s.out[0]->f32(), *out_var = s.out[1]->f32();
  const float count = (float)view.rows;
  for (int64_t i = 0; i < c; ++i) {
    out_mean[i] = shift[i] + mean[i];
    out_var[i] = m2[i] / count;
  }
}

// --- bn_apply ------------------------------------------------------------------------------------------------------------------------

Status verify_apply(const Step& s) {
  WL_TRY(check_arity(s, 3, 6, 1, 1));
  WL_TRY(check_float(s));
  const Tensor& y = *s.out[0];
  WL_CHECK(y.rank >= 1, "%s: batch normalisation needs an axis of channels", s.path);
  WL_TRY(check_rows(s, y, y, "y"));
  WL_TRY(check_rows(s, *s.in[0], y, "x"));
  WL_TRY(check_batch_norm(s, 1, y.dim_from_end(0)));
  if (s.in[5]) WL_TRY(check_rows(s, *s.in[5], y, "the residual"));
  WL_TRY(verify_kind(s));
  return check_outputs(s);
}

void choose_apply(const Step& s, const Kernels&, int, Choice* choice) {
  choice->workspace = round_up(2 * s.out[0]->dim_from_end(0) * (int64_t)sizeof(float), kCacheLine);
}

void run_apply(const Step& s, const Run& r) {
  const Tensor &x = *s.in[0], &y = *s.out[0];
  const Tensor* residual = s.in[5];
  const ChannelRows<3> view({&y, &x, residual});
  const int64_t c = view.channels;
  const BatchNorm norm = BatchNorm::of(s, 1, c, (UnaryKind)s.i(AttrKey::activation), floats(r, 0));
  const int64_t tasks = view.tasks();
  parallel_for(r, tasks, 0.3 * (double)(view.rows * c), [&](int64_t task, int) {
    // Backwards: what the pass before read or wrote last is still in cache.
    view.each_run(tasks, tasks - 1 - task, [&](int64_t rows, const int64_t* offset) {
      BnApply p;
      p.x = x.f32() + offset[1], p.x_row = view.row_stride(1);
      p.mean = norm.mean, p.scale = norm.scale, p.shift = norm.shift;
      p.residual = residual ? residual->f32() + offset[2] : nullptr, p.residual_row = view.row_stride(2);
      p.y = y.f32() + offset[0], p.y_row = view.row_stride(0);
      p.activation = norm.activation, p.alpha = norm.alpha, p.beta = norm.beta;
      r.kernels->eltwise->bn_apply(rows, c, p);
    });
  });
}

// --- bn_bwd --------------------------------------------------------------------------------------------------------------------------

Status verify_grad(const Step& s) {
  WL_TRY(check_arity(s, 4, 8, 1, 4));
  WL_TRY(check_float(s));
  const Tensor& dx = *s.out[0];
  WL_CHECK(dx.rank >= 1, "%s: batch normalisation needs an axis of channels", s.path);
  WL_TRY(check_rows(s, dx, dx, "dx"));
  WL_TRY(check_rows(s, *s.in[0], dx, "x"));
  WL_TRY(check_rows(s, *s.in[1], dx, "dy"));
  WL_TRY(check_batch_norm(s, 2, dx.dim_from_end(0)));
  WL_TRY(verify_kind(s));
  if (s.i(AttrKey::activation) != (int64_t)UnaryKind::none) {
    WL_CHECK(s.in[6] || !s.i(AttrKey::frozen), "%s: with frozen statistics the gradient of the activation needs y", s.path);
    WL_CHECK(unary_saves(s.i(AttrKey::activation)) != 'x', "%s: this activation's gradient needs its input, which is not kept", s.path);
  }
  if (s.in[6]) WL_TRY(check_rows(s, *s.in[6], dx, "y"));
  if (s.in[7]) WL_TRY(check_vector(s, *s.in[7], 2 * dx.dim_from_end(0), "the sums"));
  for (int i = 1; i < 3; ++i)
    if (s.out[i]) WL_TRY(check_vector(s, *s.out[i], dx.dim_from_end(0), i == 1 ? "dgamma" : "dbeta"));
  if (s.out[3]) WL_TRY(check_rows(s, *s.out[3], dx, "dresidual"));
  WL_TRY(check_int(s, AttrKey::frozen, "frozen", 0, 1));
  return check_outputs(s);
}

// dx, x, dy, y, dresidual
ChannelRows<5> grad_view(const Step& s) {
  return ChannelRows<5>({s.out[0], s.in[0], s.in[1], s.in[6], s.out[3]});
}

void choose_grad(const Step& s, const Kernels&, int, Choice* choice) {
  const auto view = grad_view(s);
  choice->workspace = round_up((2 * view.tasks(kMostPartials) + 7) * view.channels * (int64_t)sizeof(float), kCacheLine);
}

// dx = a*g + b*(x - mean) + shift and dgamma, from Σ g and Σ g*(x - mean). One result after the other over short blocks: loops that the
// compiler makes vectors of.
void grad_scales(int64_t channels, const float* var, const float* gamma, const float* sum_g, const float* sum_gx, float eps, float count,
                 float* a, float* b, float* shift, float* dgamma) {
  constexpr int64_t kBlock = 64;
  float invstd[kBlock], slope[kBlock], factor[kBlock];
  for (int64_t first = 0; first < channels; first += kBlock) {
    const int64_t n = min_of(kBlock, channels - first);
    for (int64_t i = 0; i < n; ++i) invstd[i] = 1.0f / __builtin_sqrtf(var[first + i] + eps);
    for (int64_t i = 0; i < n; ++i) slope[i] = sum_gx[first + i] * invstd[i];
    for (int64_t i = 0; i < n; ++i) factor[i] = gamma ? gamma[first + i] * invstd[i] : invstd[i];
    for (int64_t i = 0; i < n; ++i) a[first + i] = factor[i];
    for (int64_t i = 0; i < n; ++i) b[first + i] = -factor[i] * invstd[i] * slope[i] / count;
    for (int64_t i = 0; i < n; ++i) shift[first + i] = -factor[i] * sum_g[first + i] / count;
    if (dgamma) memcpy(dgamma + first, slope, (size_t)n * sizeof(float));
  }
}

void run_grad(const Step& s, const Run& r) {
  const Tensor &x = *s.in[0], &dy = *s.in[1], &dx = *s.out[0];
  const Tensor *y = s.in[6], *gathered = s.in[7], *dresidual = s.out[3], *dgamma = s.out[1], *dbeta = s.out[2];
  const auto view = grad_view(s);
  const int64_t c = view.channels, partials = view.tasks(kMostPartials);
  const bool frozen = s.i(AttrKey::frozen);
  const UnaryKind activation = (UnaryKind)s.i(AttrKey::activation);
  if (activation == UnaryKind::none) y = nullptr;
  const float alpha = (float)s.f(AttrKey::alpha), beta = (float)s.f(AttrKey::beta), eps = (float)s.f(AttrKey::eps, 1e-5);
  const float *mean = s.in[2]->f32(), *var = s.in[3]->f32(), *gamma = s.in[4] ? s.in[4]->f32() : nullptr;
  float *a = floats(r, 0), *b = a + c, *shift = b + c, *sum_g = shift + c, *sum_gx = sum_g + c, *y_scale = sum_gx + c,
        *y_offset = y_scale + c, *partial = y_offset + c;

  if (activation != UnaryKind::none && !y) scale_and_shift(c, var, gamma, s.in[5] ? s.in[5]->f32() : nullptr, eps, y_scale, y_offset);
  for (int64_t i = 0; i < 2 * c; ++i) sum_g[i] = gathered ? gathered->f32()[i] : 0.0f;
  if (!gathered && (!frozen || dgamma || dbeta)) {
    parallel_for(r, partials, 0.5 * (double)(view.rows * c), [&](int64_t task, int) {
      float* sums = partial + 2 * c * task;
      for (int64_t i = 0; i < 2 * c; ++i) sums[i] = 0.0f;
      view.each_run(partials, task, [&](int64_t rows, const int64_t* offset) {
        BnSums p;
        p.dy = dy.f32() + offset[2], p.dy_row = view.row_stride(2);
        p.y = y ? y->f32() + offset[3] : nullptr, p.y_row = view.row_stride(3);
        p.x = x.f32() + offset[1], p.x_row = view.row_stride(1);
        p.mean = mean, p.scale = y_scale, p.offset = y_offset;
        p.activation = activation, p.alpha = alpha, p.beta = beta;
        r.kernels->reduce->bn_sums(rows, c, p, sums, sums + c);
      });
    });
    const CombiningTime combining(r);
    r.kernels->reduce->columns(ReduceKind::sum, 1, partials, 2 * c, partial, 0, 2 * c, sum_g);
  }
  grad_scales(c, var, gamma, sum_g, sum_gx, eps, (float)view.rows, a, b, shift, dgamma ? dgamma->f32() : nullptr);
  if (dbeta) memcpy(dbeta->f32(), sum_g, (size_t)c * sizeof(float));
  const int64_t tasks = view.tasks();
  parallel_for(r, tasks, 0.5 * (double)(view.rows * c), [&](int64_t task, int) {
    view.each_run(tasks, tasks - 1 - task, [&](int64_t rows, const int64_t* offset) {
      BnGrad p;
      p.dy = dy.f32() + offset[2], p.dy_row = view.row_stride(2);
      p.y = y ? y->f32() + offset[3] : nullptr, p.y_row = view.row_stride(3);
      p.x = frozen ? nullptr : x.f32() + offset[1], p.x_row = view.row_stride(1);
      p.mean = mean, p.a = a, p.b = b, p.shift = shift, p.scale = y_scale, p.offset = y_offset;
      p.dx = dx.f32() + offset[0], p.dx_row = view.row_stride(0);
      p.dresidual = dresidual ? dresidual->f32() + offset[4] : nullptr, p.dresidual_row = view.row_stride(4);
      p.activation = activation, p.alpha = alpha, p.beta = beta;
      r.kernels->eltwise->bn_grad(rows, c, p);
    });
  });
}

// --- bn_running ----------------------------------------------------------------------------------------------------------------------

Status verify_running(const Step& s) {
  WL_TRY(check_arity(s, 5, 5, 2, 2));
  WL_TRY(check_float(s));
  WL_CHECK(s.in[2]->rank >= 1, "%s: x has no axis of channels", s.path);
  const int64_t c = s.in[2]->dim_from_end(0);
  for (int i = 0; i < 5; ++i)
    if (i != 2) WL_TRY(check_vector(s, *s.in[i], c, "a statistic"));
  for (int i = 0; i < 2; ++i) WL_TRY(check_vector(s, *s.out[i], c, "a running statistic"));
  return check_real(s, AttrKey::momentum, "momentum", 0, 1);
}

// running += momentum * (new - running); the variance is made unbiased first (torch).
void run_running(const Step& s, const Run&) {
  const int64_t c = s.in[2]->dim_from_end(0), count = s.in[2]->elements() / c;
  const float momentum = (float)s.f(AttrKey::momentum, 0.1), keep = (float)(1.0 - s.f(AttrKey::momentum, 0.1));
  const float unbiased = momentum * (float)((double)count / (double)max_of(1, count - 1));
  const float *mean = s.in[0]->f32(), *var = s.in[1]->f32(), *old_mean = s.in[3]->f32(), *old_var = s.in[4]->f32();
  float *new_mean = s.out[0]->f32(), *new_var = s.out[1]->f32();
  for (int64_t i = 0; i < c; ++i) {
    new_mean[i] = keep * old_mean[i] + momentum * mean[i];
    new_var[i] = keep * old_var[i] + unbiased * var[i];
  }
}

}  // namespace

extern const Op op_bn_stats, op_bn_apply, op_bn_bwd, op_bn_running;
const Op op_bn_stats = {"bn_stats", verify_stats, choose_stats, run_stats};
const Op op_bn_apply = {"bn_apply", verify_apply, choose_apply, run_apply, in_place(0, 0) | in_place(5, 0)};
const Op op_bn_bwd = {"bn_bwd", verify_grad, choose_grad, run_grad, in_place(1, 0)};
const Op op_bn_running = {"bn_running", verify_running, nullptr, run_running, in_place(3, 0) | in_place(4, 1)};

}  // namespace wl
