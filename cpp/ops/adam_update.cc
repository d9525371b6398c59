// Adam over flat parameters, and with the gradient of a large dense weight made on the way.
#include "ops/product_update.h"

namespace wl {
namespace {

// Inputs `first` to `first` + 2 are param, m and v, updated in place.
Status verify_state(const Step& s, int first, const Tensor* clip) {
  for (int i = 0; i < 3; ++i) WL_TRY(check_flat(s, first + i, i));
  WL_TRY(check_clip(s, clip));
  WL_TRY(check_real(s, AttrKey::beta1, "beta1", 0, 1, 0.9));
  WL_TRY(check_real(s, AttrKey::beta2, "beta2", 0, 1, 0.999));
  WL_TRY(check_real(s, AttrKey::eps, "eps", 0, 1e30, 1e-8));
  WL_TRY(check_real(s, AttrKey::weight_decay, "weight_decay", 0, 1e30));
  WL_TRY(check_int(s, AttrKey::decoupled, "decoupled", 0, 1));
  return check_int(s, AttrKey::slot, "slot", 0, kScalarSlots - 3, -1);
}

AdamUpdate update_of(const Step& s, const Run& r, const GradClip& clip) {
  const Scalar* slots = r.scalars + s.i(AttrKey::slot);  // learning rate, 1 - beta1^t, 1 - beta2^t
  const double lr = slots[0].f, decay = s.f(AttrKey::weight_decay), beta1 = s.f(AttrKey::beta1, 0.9), beta2 = s.f(AttrKey::beta2, 0.999);
  const bool decoupled = s.i(AttrKey::decoupled);
  AdamUpdate u;
  u.clip = clip;
  u.decay = decoupled ? (float)(lr * decay) : 0.0f;
  u.weight_decay = decoupled ? 0.0f : (float)decay;
  u.beta1 = (float)beta1, u.rest1 = (float)(1.0 - beta1), u.beta2 = (float)beta2, u.rest2 = (float)(1.0 - beta2);
  u.step_size = (float)(lr / slots[1].f);
  u.inverse_root2 = (float)(1.0 / __builtin_sqrt(slots[2].f));
  u.eps = (float)s.f(AttrKey::eps, 1e-8);
  return u;
}

// --- adam_update: grad, param, m, v, [clip] -> param, m, v ------------------------------------------------------------------------------

Status verify_update(const Step& s) {
  WL_TRY(check_arity(s, 4, 5, 3, 3));
  WL_TRY(check_float(s));
  WL_TRY(check_flat(s, 0, -1));
  return verify_state(s, 1, s.in[4]);
}

void run_update(const Step& s, const Run& r) {
  const AdamUpdate u = update_of(s, r, clip_of(s, s.in[4]));
  const float* grad = s.in[0]->f32();
  float *param = s.out[0]->f32(), *m = s.out[1]->f32(), *v = s.out[2]->f32();
  for_each_chunk(r, s.out[0]->elements(), 1.0,
                 [&](int64_t i, int64_t n, int64_t) { r.kernels->update->adam(n, u, grad + i, param + i, m + i, v + i); });
}

// --- adam_matmul: x (m, k), dy (m, n), param (k*n), m, v -> param, m, v -----------------------------------------------------------------
// The same with the gradient xᵀ dy, to the bits of matmul (trans_a) followed by adam_update.

Status verify_matmul(const Step& s) {
  WL_TRY(check_arity(s, 5, 5, 3, 3));
  WL_TRY(check_float(s));
  WL_TRY(verify_state(s, 2, nullptr));
  return check_product(s);
}

void run_matmul(const Step& s, const Run& r) {
  const AdamUpdate u = update_of(s, r, clip_of(s, nullptr));
  float *param = s.out[0]->f32(), *m = s.out[1]->f32(), *v = s.out[2]->f32();
  ProductUpdate(s).run(r,
                       [&](int64_t n, const float* grad, int64_t at) { r.kernels->update->adam(n, u, grad, param + at, m + at, v + at); });
}

}  // namespace

extern const Op op_adam_update, op_adam_matmul;
const Op op_adam_update = {"adam_update", verify_update, nullptr, run_update, in_place(1, 0) | in_place(2, 1) | in_place(3, 2)};
const Op op_adam_matmul = {"adam_matmul", verify_matmul, choose_product, run_matmul, in_place(2, 0) | in_place(3, 1) | in_place(4, 2)};

}  // namespace wl
