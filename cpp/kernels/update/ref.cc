// The same in a few loops: documentation and oracle.
#include "kernels/update/update.h"

namespace wl {
namespace WL_ISA {
namespace {

float clipped(const GradClip& c, float g) {
  g *= c.factor;
  return g < -c.maximum ? -c.maximum : g > c.maximum ? c.maximum : g;
}

void sgd_ref(int64_t n, const SgdUpdate& u, const float* grad, float* param, float* velocity) {
  for (int64_t i = 0; i < n; ++i) {
    float g = clipped(u.clip, grad[i]) + u.weight_decay * param[i];
    param[i] -= u.decay * param[i];
    if (velocity) {
      velocity[i] = u.momentum * velocity[i] + u.undamped * g;
      g = u.nesterov ? g + u.momentum * velocity[i] : velocity[i];
    }
    param[i] -= u.lr * g;
  }
}

void adam_ref(int64_t n, const AdamUpdate& u, const float* grad, float* param, float* m, float* v) {
  for (int64_t i = 0; i < n; ++i) {
    const float g = clipped(u.clip, grad[i]) + u.weight_decay * param[i];
    param[i] -= u.decay * param[i];
    m[i] += u.rest1 * (g - m[i]);
    v[i] = u.beta2 * v[i] + u.rest2 * g * g;
    param[i] -= u.step_size * m[i] / (__builtin_sqrtf(v[i]) * u.inverse_root2 + u.eps);
  }
}

void accumulate_ref(int64_t n, float factor, const float* x, float* sum) {
  for (int64_t i = 0; i < n; ++i) sum[i] = factor == 0.0f ? x[i] : factor * sum[i] + x[i];
}

}  // namespace

extern const UpdateKernels update;
const UpdateKernels update = {sgd_ref, adam_ref, accumulate_ref};

}  // namespace WL_ISA
}  // namespace wl
