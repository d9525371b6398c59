// What the ops over flat parameters share.
#pragma once
#include "kernels/update/update.h"
#include "ops/axes.h"
#include "ops/check.h"

namespace wl {

// Output `o` is input `i`: the same storage, extents and strides.
inline Status check_in_place(const Step& s, int i, int o) {
  const Tensor *a = s.in[i], *b = s.out[o];
  bool same = a && b && a->buffer == b->buffer && a->offset == b->offset && a->dtype == b->dtype && same_extents(*a, *b);
  for (int d = 0; same && d < a->rank; ++d) same = a->dims[d] == 1 || a->strides[d] == b->strides[d];
  WL_CHECK(same, "%s: output %d must be input %d, in place", s.path, o, i);
  return Status::good();
}

// Input `i` is a dense run of as many elements as output 0 and, where o >= 0, is updated in place as output `o`.
inline Status check_flat(const Step& s, int i, int o) {
  WL_CHECK(s.in[i]->dense() && !s.in[i]->batch && same_extents(*s.in[i], *s.out[0]),
           "%s: input %d is not a dense run of the parameters' extents", s.path, i);
  if (o < 0) return Status::good();
  WL_CHECK(o < s.n_out && s.out[o], "%s: output %d is absent", s.path, o);
  return check_in_place(s, i, o);
}

// The optional clip factor, and clipping by value.
inline Status check_clip(const Step& s, const Tensor* factor) {
  if (factor) WL_TRY(check_scalar(s, *factor, "the clip factor"));
  const double maximum = s.f(AttrKey::maximum, __builtin_inf());
  WL_CHECK(maximum > 0, "%s: gradients cannot be clipped to %g", s.path, maximum);
  return Status::good();
}
inline GradClip clip_of(const Step& s, const Tensor* factor) {
  return {factor ? *factor->f32() : 1.0f, (float)s.f(AttrKey::maximum, __builtin_inf())};
}

// body(begin, count, chunk) over [0, n) in parallel.
inline int64_t chunks_of(int64_t n) {
  return div_up(n, kTaskElements);
}
template <class Body>
void for_each_chunk(const Run& run, int64_t n, double ns, Body&& body) {
  parallel_for(run, chunks_of(n), ns * (double)n,
               [&](int64_t chunk, int) { body(chunk * kTaskElements, min_of(kTaskElements, n - chunk * kTaskElements), chunk); });
}

}  // namespace wl
