#include "ops/flat.h"

namespace wl {
namespace {

// grad, param, m, v, [clip] -> param, m, v
Status verify(const Step& s) {
  WL_TRY(check_arity(s, 4, 5, 3, 3));
  WL_TRY(check_float(s));
  WL_TRY(check_flat(s, 0, -1));
  for (int i = 1; i < 4; ++i) WL_TRY(check_flat(s, i, i - 1));
  WL_TRY(check_clip(s, s.in[4]));
  WL_TRY(check_real(s, AttrKey::beta1, "beta1", 0, 1, 0.9));
  WL_TRY(check_real(s, AttrKey::beta2, "beta2", 0, 1, 0.999));
  WL_TRY(check_real(s, AttrKey::eps, "eps", 0, 1e30, 1e-8));
  WL_TRY(check_real(s, AttrKey::weight_decay, "weight_decay", 0, 1e30));
  WL_TRY(check_int(s, AttrKey::decoupled, "decoupled", 0, 1));
  return check_int(s, AttrKey::slot, "slot", 0, kScalarSlots - 3, -1);
}

void run(const Step& s, const Run& r) {
  const Scalar* slots = r.scalars + s.i(AttrKey::slot);  // learning rate, 1 - beta1^t, 1 - beta2^t
  const double lr = slots[0].f, decay = s.f(AttrKey::weight_decay), beta1 = s.f(AttrKey::beta1, 0.9), beta2 = s.f(AttrKey::beta2, 0.999);
  const bool decoupled = s.i(AttrKey::decoupled);
  AdamUpdate u;
  u.clip = clip_of(s, s.in[4]);
  u.decay = decoupled ? (float)(lr * decay) : 0.0f;
  u.weight_decay = decoupled ? 0.0f : (float)decay;
  u.beta1 = (float)beta1, u.rest1 = (float)(1.0 - beta1), u.beta2 = (float)beta2, u.rest2 = (float)(1.0 - beta2);
  u.step_size = (float)(lr / slots[1].f);
  u.inverse_root2 = (float)(1.0 / __builtin_sqrt(slots[2].f));
  u.eps = (float)s.f(AttrKey::eps, 1e-8);
  const float* grad = s.in[0]->f32();
  float *param = s.out[0]->f32(), *m = s.out[1]->f32(), *v = s.out[2]->f32();
  for_each_chunk(r, s.out[0]->elements(), 1.0,
                 [&](int64_t i, int64_t n, int64_t) { r.kernels->update->adam(n, u, grad + i, param + i, m + i, v + i); });
}

}  // namespace

extern const Op op_adam_update;
const Op op_adam_update = {"adam_update", verify, nullptr, run, in_place(1, 0) | in_place(2, 1) | in_place(3, 2)};

}  // namespace wl
