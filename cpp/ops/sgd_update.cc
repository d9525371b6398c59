#include "ops/flat.h"

namespace wl {
namespace {

// grad, param, [velocity], [clip] -> param, [velocity]
Status verify(const Step& s) {
  WL_TRY(check_arity(s, 2, 4, 1, 2));
  WL_TRY(check_float(s));
  WL_TRY(check_flat(s, 0, -1));
  WL_TRY(check_flat(s, 1, 0));
  if (s.in[2]) WL_TRY(check_flat(s, 2, 1));
  WL_CHECK(s.in[2] || s.f(AttrKey::momentum) == 0, "%s: momentum needs a velocity", s.path);
  WL_TRY(check_clip(s, 3));
  WL_TRY(check_real(s, AttrKey::momentum, "momentum", 0, 1));
  WL_TRY(check_real(s, AttrKey::dampening, "dampening", 0, 1));
  WL_TRY(check_real(s, AttrKey::weight_decay, "weight_decay", 0, 1e30));
  WL_TRY(check_int(s, AttrKey::nesterov, "nesterov", 0, 1));
  WL_TRY(check_int(s, AttrKey::decoupled, "decoupled", 0, 1));
  return check_int(s, AttrKey::slot, "slot", 0, kScalarSlots - 1, -1);
}

void run(const Step& s, const Run& r) {
  const double lr = r.scalars[s.i(AttrKey::slot)].f, decay = s.f(AttrKey::weight_decay);
  const bool decoupled = s.i(AttrKey::decoupled);
  SgdUpdate u;
  u.clip = clip_of(s, 3);
  u.lr = (float)lr;
  u.momentum = (float)s.f(AttrKey::momentum);
  u.undamped = r.scalars[kSlotStep].i == 0 ? 1.0f : (float)(1.0 - s.f(AttrKey::dampening));
  u.decay = decoupled ? (float)(lr * decay) : 0.0f;
  u.weight_decay = decoupled ? 0.0f : (float)decay;
  u.nesterov = s.i(AttrKey::nesterov);
  const float* grad = s.in[0]->f32();
  float *param = s.out[0]->f32(), *velocity = s.in[2] ? s.out[1]->f32() : nullptr;
  for_each_chunk(r, s.out[0]->elements(), 0.6, [&](int64_t i, int64_t n, int64_t) {
    r.kernels->update->sgd(n, u, grad + i, param + i, velocity ? velocity + i : nullptr);
  });
}

}  // namespace

extern const Op op_sgd_update;
const Op op_sgd_update = {"sgd_update", verify, nullptr, run, in_place(1, 0) | in_place(2, 1)};

}  // namespace wl
