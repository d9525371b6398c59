// Local response normalisation across channels (Krizhevsky et al. 2012; torch's alpha / size and window): y = x / (k + alpha / size Σ
// x²)^beta over the channels c - size/2 … c + (size - 1)/2.
#include "kernels/eltwise/eltwise.h"
#include "ops/axes.h"
#include "ops/check.h"

namespace wl {
namespace {

Status verify(const Step& s, int inputs) {
  WL_TRY(check_arity(s, inputs, inputs, 1, 1));
  WL_TRY(check_float(s));
  WL_CHECK(s.out[0]->rank >= 1, "%s: lrn needs an axis of channels", s.path);
  WL_TRY(check_int(s, AttrKey::size, "size", 1, 1 << 16));
  WL_TRY(check_rows(s, *s.out[0], *s.out[0], "the output"));
  for (int i = 0; i < inputs; ++i) WL_TRY(check_rows(s, *s.in[i], *s.out[0], "an input"));
  return check_outputs(s);
}
Status verify_lrn(const Step& s) {
  return verify(s, 1);
}
Status verify_grad(const Step& s) {
  return verify(s, 3);
}

Lrn parameters(const Step& s) {
  Lrn p;
  const int64_t size = s.i(AttrKey::size, 1);
  p.channels = s.out[0]->dim_from_end(0);
  p.before = size / 2, p.after = (size - 1) / 2;
  p.k = (float)s.f(AttrKey::k, 1), p.alpha = (float)(s.f(AttrKey::alpha) / (double)size), p.beta = (float)s.f(AttrKey::beta);
  return p;
}

int64_t scratch_bytes(const Lrn& p) {
  return round_up(lrn_scratch(p) * (int64_t)sizeof(float), kCacheLine);
}

void choose(const Step& s, const Kernels&, int threads, Choice* choice) {
  choice->workspace = threads * scratch_bytes(parameters(s));
}

double cost(const Lrn& p) {
  return 2.0 + 0.1 * (double)(p.before + p.after);
}

void run_lrn(const Step& s, const Run& r) {
  const Tensor &x = *s.in[0], &y = *s.out[0];
  const ChannelRows<2> view({&y, &x});
  const Lrn p = parameters(s);
  const int64_t tasks = view.tasks();
  parallel_for(r, tasks, cost(p) * (double)(view.rows * view.channels), [&](int64_t task, int thread) {
    float* scratch = reinterpret_cast<float*>(r.workspace + thread * scratch_bytes(p));
    view.each_run(tasks, task, [&](int64_t rows, const int64_t* offset) {
      for (int64_t i = 0; i < rows; ++i)
        r.kernels->eltwise->lrn(p, x.f32() + offset[1] + i * view.row_stride(1), y.f32() + offset[0] + i * view.row_stride(0), scratch);
    });
  });
}

void run_grad(const Step& s, const Run& r) {
  const Tensor &x = *s.in[0], &y = *s.in[1], &dy = *s.in[2], &dx = *s.out[0];
  const ChannelRows<4> view({&dx, &x, &y, &dy});
  const Lrn p = parameters(s);
  const int64_t tasks = view.tasks();
  parallel_for(r, tasks, 2 * cost(p) * (double)(view.rows * view.channels), [&](int64_t task, int thread) {
    float* scratch = reinterpret_cast<float*>(r.workspace + thread * scratch_bytes(p));
    view.each_run(tasks, task, [&](int64_t rows, const int64_t* offset) {
      for (int64_t i = 0; i < rows; ++i)
        r.kernels->eltwise->lrn_grad(p, x.f32() + offset[1] + i * view.row_stride(1), y.f32() + offset[2] + i * view.row_stride(2),
                                     dy.f32() + offset[3] + i * view.row_stride(3), dx.f32() + offset[0] + i * view.row_stride(0), scratch);
    });
  });
}

}  // namespace

extern const Op op_lrn, op_lrn_bwd;
const Op op_lrn = {"lrn", verify_lrn, choose, run_lrn};
const Op op_lrn_bwd = {"lrn_bwd", verify_grad, choose, run_grad};

}  // namespace wl
