// Inverted dropout: y = x / (1 - rate) where the element's random number lets it through, else 0. The number belongs to (seed, dropout,
// stream, step, micro-step, global sample, element of the sample): the same op on dy is the backward, whatever the batch or the threads.
#include "base/random.h"
#include "kernels/eltwise/eltwise.h"
#include "ops/axes.h"
#include "ops/check.h"

namespace wl {
namespace {

Status verify(const Step& s) {
  WL_TRY(check_arity(s, 1, 1, 1, 1));
  WL_TRY(check_float(s));
  const double rate = s.f(AttrKey::rate);
  WL_CHECK(rate >= 0 && rate < 1, "%s: the rate of dropout is %g, not in [0, 1)", s.path, rate);
  const Tensor &x = *s.in[0], &y = *s.out[0];
  WL_CHECK(same_extents(x, y) && x.dense() && y.dense(), "%s: dropout needs dense x and y of equal extents", s.path);
  return Status::good();
}

void run(const Step& s, const Run& r) {
  const Tensor &x = *s.in[0], &y = *s.out[0];
  const double rate = s.f(AttrKey::rate);
  const uint64_t key = random_key((uint64_t)r.scalars[kSlotSeed].i, (uint64_t)RandomPurpose::dropout, (uint64_t)s.i(AttrKey::stream),
                                  (uint64_t)r.scalars[kSlotStep].i, (uint64_t)r.scalars[kSlotMicroStep].i);
  const uint64_t first = (uint64_t)r.scalars[kSlotSample].i;
  const uint32_t threshold = (uint32_t)(rate * 4294967296.0);
  const float scale = (float)(1.0 / (1.0 - rate));
  const int64_t samples = x.batch ? x.dims[0] : 1, per_sample = x.elements() / samples;
  constexpr int64_t kBlock = kTaskElements / 4;
  const int64_t blocks = div_up(per_sample, kBlock);
  parallel_for(r, samples * blocks, 1.0 * (double)x.elements(), [&](int64_t task, int) {
    const int64_t sample = task / blocks, begin = task % blocks * kBlock, offset = sample * per_sample + begin;
    r.kernels->eltwise->dropout(min_of(kBlock, per_sample - begin), x.f32() + offset, y.f32() + offset, threshold, scale, key,
                                first + (uint64_t)sample, (uint64_t)begin);
  });
}

}  // namespace

extern const Op op_dropout;
const Op op_dropout = {"dropout", verify, nullptr, run, in_place(0, 0)};

}  // namespace wl
