#include "ops/flat.h"

namespace wl {
namespace {

// x, sum -> sum: sum = accumulate_slot * sum + x
Status verify(const Step& s) {
  WL_TRY(check_arity(s, 2, 2, 1, 1));
  WL_TRY(check_float(s));
  const Tensor &x = *s.in[0], &sum = *s.out[0];
  WL_CHECK(same_extents(x, sum) && x.dense() && sum.dense(), "%s: accumulate needs dense operands of equal extents", s.path);
  return check_in_place(s, 1, 0);
}

void run(const Step& s, const Run& r) {
  const float factor = (float)r.scalars[kSlotAccumulate].f;
  const float* x = s.in[0]->f32();
  float* sum = s.out[0]->f32();
  for_each_chunk(r, s.in[0]->elements(), 0.3,
                 [&](int64_t i, int64_t n, int64_t) { r.kernels->update->accumulate(n, factor, x + i, sum + i); });
}

}  // namespace

extern const Op op_accumulate;
const Op op_accumulate = {"accumulate", verify, nullptr, run, in_place(1, 0)};

}  // namespace wl
