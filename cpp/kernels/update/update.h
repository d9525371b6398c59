// One pass over flat parameters: optimizer steps and the sum of gradients. p, state and gradient have the same layout; n elements each.
#pragma once
#include <stdint.h>

namespace wl {

// What both optimizers do first: g = min(max(grad * factor, -maximum), maximum).
struct GradClip {
  float factor;   // of clip_factor; 1: none
  float maximum;  // infinity: none
};

struct SgdUpdate {
  GradClip clip;
  float lr, momentum;
  float undamped;      // 1 - dampening; 1 in the first step, where torch takes the gradient as it is
  float decay;         // decoupled: param is first scaled by 1 - decay (lr * weight_decay), else 0
  float weight_decay;  // coupled: added to the gradient times param, else 0
  bool nesterov;
};

struct AdamUpdate {
  GradClip clip;
  float decay;                       // decoupled: param is first scaled by 1 - decay (lr * weight_decay), else 0
  float weight_decay;                // coupled: added to the gradient times param, else 0
  float beta1, rest1, beta2, rest2;  // rest = 1 - beta, rounded from double
  float step_size;                   // lr / (1 - beta1^t)
  float inverse_root2;               // 1 / sqrt(1 - beta2^t)
  float eps;
};

struct UpdateKernels {
  // torch.optim.SGD; velocity is null without momentum.
  //   g += weight_decay * param; velocity = momentum * velocity + undamped * g; param -= lr * (nesterov ? g + momentum * velocity :
  //   velocity)
  void (*sgd)(int64_t n, const SgdUpdate& u, const float* grad, float* param, float* velocity);
  // torch.optim.Adam and AdamW.
  //   m += rest1 * (g - m); v = beta2 * v + rest2 * g²; param -= step_size * m / (sqrt(v) * inverse_root2 + eps)
  void (*adam)(int64_t n, const AdamUpdate& u, const float* grad, float* param, float* m, float* v);
  // sum = factor * sum + x; a factor of 0 does not read sum
  void (*accumulate)(int64_t n, float factor, const float* x, float* sum);
};

}  // namespace wl
