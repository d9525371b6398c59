#include "kernels/update/update.h"

#include "simd/channels.h"

namespace wl {
namespace WL_ISA {
namespace {

WL_INLINE f32v clipped(f32v g, f32v factor, f32v maximum) {
  return min(max(g * factor, -maximum), maximum);
}

template <bool momentum>
void sgd_elements(int64_t n, const SgdUpdate& u, const float* grad, float* param, float* velocity) {
  const f32v factor = set1(u.clip.factor), maximum = set1(u.clip.maximum), decay = set1(u.weight_decay), shrink = set1(-u.decay);
  const f32v keep = set1(u.momentum), take = set1(u.undamped), step = set1(-u.lr);
  for_vectors(n, [&](int64_t i, auto at) {
    f32v p = at.get(param + i);
    f32v g = fma(decay, p, clipped(at.get(grad + i), factor, maximum));
    p = fma(shrink, p, p);
    if (momentum) {
      const f32v v = fma(keep, at.get(velocity + i), take * g);
      at.put(velocity + i, v);
      g = u.nesterov ? fma(keep, v, g) : v;
    }
    at.put(param + i, fma(step, g, p));
  });
}

void sgd_kernel(int64_t n, const SgdUpdate& u, const float* grad, float* param, float* velocity) {
  if (velocity) return sgd_elements<true>(n, u, grad, param, velocity);
  sgd_elements<false>(n, u, grad, param, velocity);
}

void adam_kernel(int64_t n, const AdamUpdate& u, const float* grad, float* param, float* m, float* v) {
  const f32v factor = set1(u.clip.factor), maximum = set1(u.clip.maximum), decay = set1(u.weight_decay), shrink = set1(-u.decay);
  const f32v rest1 = set1(u.rest1), beta2 = set1(u.beta2), rest2 = set1(u.rest2);
  const f32v step = set1(-u.step_size), root = set1(u.inverse_root2), eps = set1(u.eps);
  for_vectors(n, [&](int64_t i, auto at) {
    f32v p = at.get(param + i);
    const f32v g = fma(decay, p, clipped(at.get(grad + i), factor, maximum));
    p = fma(shrink, p, p);
    const f32v old = at.get(m + i), first = fma(rest1, g - old, old), second = fma(rest2 * g, g, beta2 * at.get(v + i));
    at.put(m + i, first);
    at.put(v + i, second);
    at.put(param + i, fma(step, first / fma(sqrt(second), root, eps), p));
  });
}

void accumulate_kernel(int64_t n, float factor, const float* x, float* sum) {
  if (factor == 0.0f) {
    memcpy(sum, x, (size_t)n * sizeof(float));
    return;
  }
  const f32v f = set1(factor);
  for_vectors(n, [&](int64_t i, auto at) { at.put(sum + i, fma(f, at.get(sum + i), at.get(x + i))); });
}

}  // namespace

extern const UpdateKernels update;
const UpdateKernels update = {sgd_kernel, adam_kernel, accumulate_kernel};

}  // namespace WL_ISA
}  // namespace wl
