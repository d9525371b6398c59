#include "kernels/eltwise/eltwise.h"
#include "ops/axes.h"
#include "ops/check.h"

namespace wl {
namespace {

Status verify(const Step& s) {
  WL_TRY(check_arity(s, 3, 3, 1, 1));
  const Tensor &x = *s.in[0], &y = *s.out[0];
  WL_CHECK(x.dtype == DType::u8 || x.dtype == DType::f32, "%s: normalize takes uint8 or float32", s.path);
  WL_CHECK(y.dtype == DType::f32 && y.rank >= 1, "%s: normalize gives float32 of rank 1 or more", s.path);
  WL_TRY(check_rows(s, x, y, "x"));
  WL_TRY(check_rows(s, y, y, "y"));
  WL_TRY(check_vector(s, *s.in[1], y.dim_from_end(0), "mean"));
  WL_TRY(check_vector(s, *s.in[2], y.dim_from_end(0), "scale"));
  return check_outputs(s);
}

void run(const Step& s, const Run& r) {
  const Tensor &x = *s.in[0], &y = *s.out[0];
  const ChannelRows<2> view({&y, &x});
  const float *mean = s.in[1]->f32(), *scale = s.in[2]->f32();
  const int64_t tasks = view.tasks();
  parallel_for(r, tasks, 0.3 * (double)(view.rows * view.channels), [&](int64_t task, int) {
    view.each_run(tasks, task, [&](int64_t rows, const int64_t* offset) {
      float* to = y.f32() + offset[0];
      if (x.dtype == DType::u8)
        r.kernels->eltwise->normalize_u8(rows, view.channels, x.as<uint8_t>() + offset[1], view.row_stride(1), mean, scale, to,
                                         view.row_stride(0));
      else
        r.kernels->eltwise->normalize_f32(rows, view.channels, x.f32() + offset[1], view.row_stride(1), mean, scale, to,
                                          view.row_stride(0));
    });
  });
}

}  // namespace

extern const Op op_normalize;
const Op op_normalize = {"normalize", verify, nullptr, run};

}  // namespace wl
