// Stochastic gradient descent over flat parameters, and with the gradient of a large dense weight made on the way.
#include "ops/product_update.h"

namespace wl {
namespace {

Status verify_attributes(const Step& s, bool velocity) {
  WL_CHECK(velocity || s.f(AttrKey::momentum) == 0, "%s: momentum needs a velocity", s.path);
  WL_TRY(check_real(s, AttrKey::momentum, "momentum", 0, 1));
  WL_TRY(check_real(s, AttrKey::dampening, "dampening", 0, 1));
  WL_TRY(check_real(s, AttrKey::weight_decay, "weight_decay", 0, 1e30));
  WL_TRY(check_int(s, AttrKey::nesterov, "nesterov", 0, 1));
  WL_TRY(check_int(s, AttrKey::decoupled, "decoupled", 0, 1));
  return check_int(s, AttrKey::slot, "slot", 0, kScalarSlots - 1, -1);
}

SgdUpdate update_of(const Step& s, const Run& r, const GradClip& clip) {
  const double lr = r.scalars[s.i(AttrKey::slot)].f, decay = s.f(AttrKey::weight_decay);
  const bool decoupled = s.i(AttrKey::decoupled);
  SgdUpdate u;
  u.clip = clip;
  u.lr = (float)lr;
  u.momentum = (float)s.f(AttrKey::momentum);
  u.undamped = r.scalars[kSlotStep].i == 0 ? 1.0f : (float)(1.0 - s.f(AttrKey::dampening));
  u.decay = decoupled ? (float)(lr * decay) : 0.0f;
  u.weight_decay = decoupled ? 0.0f : (float)decay;
  u.nesterov = s.i(AttrKey::nesterov);
  return u;
}

// --- sgd_update: grad, param, [velocity], [clip] -> param, [velocity] -------------------------------------------------------------------

constexpr int kClip = 3;  // input

Status verify_update(const Step& s) {
  WL_TRY(check_arity(s, 2, 4, 1, 2));
  WL_TRY(check_float(s));
  WL_TRY(check_flat(s, 0, -1));
  WL_TRY(check_flat(s, 1, 0));
  if (s.in[2]) WL_TRY(check_flat(s, 2, 1));
  WL_TRY(check_clip(s, s.in[kClip]));
  return verify_attributes(s, s.in[2]);
}

void run_update(const Step& s, const Run& r) {
  const SgdUpdate u = update_of(s, r, clip_of(s, s.in[kClip]));
  const float* grad = s.in[0]->f32();
  float *param = s.out[0]->f32(), *velocity = s.in[2] ? s.out[1]->f32() : nullptr;
  for_each_chunk(r, s.out[0]->elements(), 0.6, [&](int64_t i, int64_t n, int64_t) {
    r.kernels->update->sgd(n, u, grad + i, param + i, velocity ? velocity + i : nullptr);
  });
}

// --- sgd_matmul: x (m, k), dy (m, n), param (k*n), [velocity (k*n)] -> param, [velocity] ------------------------------------------------
// The same with the gradient xᵀ dy, to the bits of matmul (trans_a) followed by sgd_update.

Status verify_matmul(const Step& s) {
  WL_TRY(check_arity(s, 3, 4, 1, 2));
  WL_TRY(check_float(s));
  WL_TRY(check_flat(s, 2, 0));
  if (s.in[3]) WL_TRY(check_flat(s, 3, 1));
  WL_TRY(check_product(s));
  WL_TRY(check_clip(s, nullptr));
  return verify_attributes(s, s.in[3]);
}

void run_matmul(const Step& s, const Run& r) {
  const SgdUpdate u = update_of(s, r, clip_of(s, nullptr));
  float *param = s.out[0]->f32(), *velocity = s.in[3] ? s.out[1]->f32() : nullptr;
  ProductUpdate(s).run(r, [&](int64_t n, const float* grad, int64_t at) {
    r.kernels->update->sgd(n, u, grad, param + at, velocity ? velocity + at : nullptr);
  });
}

}  // namespace

extern const Op op_sgd_update, op_sgd_matmul;
const Op op_sgd_update = {"sgd_update", verify_update, nullptr, run_update, in_place(1, 0) | in_place(2, 1)};
const Op op_sgd_matmul = {"sgd_matmul", verify_matmul, choose_product, run_matmul, in_place(2, 0) | in_place(3, 1)};

}  // namespace wl
