#include "kernels/eltwise/eltwise.h"
#include "ops/axes.h"
#include "ops/check.h"

namespace wl {
namespace {

Status verify(const Step& s, int inputs) {
  WL_TRY(check_arity(s, inputs, inputs, 1, 1));
  WL_TRY(check_float(s));
  WL_CHECK(s.out[0]->rank >= 1, "%s: softmax needs an axis", s.path);
  WL_TRY(check_int(s, AttrKey::log, "log", 0, 1));
  WL_TRY(check_rows(s, *s.out[0], *s.out[0], "the output"));
  for (int i = 0; i < inputs; ++i) WL_TRY(check_rows(s, *s.in[i], *s.out[0], i ? "dy" : "the input"));
  return check_outputs(s);
}
Status verify_softmax(const Step& s) {
  return verify(s, 1);
}
Status verify_grad(const Step& s) {
  return verify(s, 2);
}

void run_softmax(const Step& s, const Run& r) {
  const Tensor &x = *s.in[0], &y = *s.out[0];
  const ChannelRows<2> view({&y, &x});
  const int64_t tasks = view.tasks();
  parallel_for(r, tasks, 2.0 * (double)(view.rows * view.channels), [&](int64_t task, int) {
    view.each_run(tasks, task, [&](int64_t rows, const int64_t* offset) {
      r.kernels->eltwise->softmax(s.i(AttrKey::log), rows, view.channels, x.f32() + offset[1], view.row_stride(1), y.f32() + offset[0],
                                  view.row_stride(0));
    });
  });
}

void run_grad(const Step& s, const Run& r) {
  const Tensor &y = *s.in[0], &dy = *s.in[1], &dx = *s.out[0];
  const ChannelRows<3> view({&dx, &y, &dy});
  const int64_t tasks = view.tasks();
  parallel_for(r, tasks, 1.0 * (double)(view.rows * view.channels), [&](int64_t task, int) {
    view.each_run(tasks, task, [&](int64_t rows, const int64_t* offset) {
      r.kernels->eltwise->softmax_grad(s.i(AttrKey::log), rows, view.channels, y.f32() + offset[1], view.row_stride(1),
                                       dy.f32() + offset[2], view.row_stride(2), dx.f32() + offset[0], view.row_stride(0));
    });
  });
}

}  // namespace

extern const Op op_softmax, op_softmax_bwd;
const Op op_softmax = {"softmax", verify_softmax, nullptr, run_softmax, in_place(0, 0)};
const Op op_softmax_bwd = {"softmax_bwd", verify_grad, nullptr, run_grad, in_place(1, 0)};

}  // namespace wl
