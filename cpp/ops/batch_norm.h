// Batch normalisation as other ops meet it: y = act((x - mean) * scale + shift), computed anew from x wherever it is needed, by the
// operations of bn_apply and so with its bits.
#pragma once
#include "kernels/eltwise/eltwise.h"
#include "ops/op.h"

namespace wl {

// scale = gamma / sqrt(var + eps), shift = beta; gamma and beta may be null. In loops that the compiler makes vectors of.
inline void scale_and_shift(int64_t c, const float* var, const float* gamma, const float* beta, float eps, float* scale, float* shift) {
  for (int64_t i = 0; i < c; ++i) scale[i] = __builtin_sqrtf(var[i] + eps);
  for (int64_t i = 0; i < c; ++i) scale[i] = (gamma ? gamma[i] : 1.0f) / scale[i];
  for (int64_t i = 0; i < c; ++i) shift[i] = beta ? beta[i] : 0.0f;
}

struct BatchNorm {
  const float *mean, *scale, *shift;
  UnaryKind activation;
  float alpha, beta;

  // Of a step whose inputs `first` to `first` + 3 are mean, var, gamma and beta; `memory` has room for 2 * channels floats.
  static BatchNorm of(const Step& step, int first, int64_t channels, UnaryKind activation, float* memory) {
    const auto data = [&](int i) { return step.in[first + i] ? step.in[first + i]->f32() : nullptr; };
    scale_and_shift(channels, data(1), data(2), data(3), (float)step.f(AttrKey::eps, 1e-5), memory, memory + channels);
    return {data(0), memory, memory + channels, activation, (float)step.f(AttrKey::alpha), (float)step.f(AttrKey::beta)};
  }

  // Channels `channels` of `rows` pixels: x and y point at the first of them.
  void apply(const EltwiseKernels& kernels, int64_t rows, Range channels, const float* x, int64_t x_row, float* y, int64_t y_row) const {
    const int64_t c = channels.begin;
    BnApply p{};
    p.x = x, p.x_row = x_row, p.y = y, p.y_row = y_row;
    p.mean = mean + c, p.scale = scale + c, p.shift = shift + c;
    p.activation = activation, p.alpha = alpha, p.beta = beta;
    kernels.bn_apply(rows, channels.size(), p);
  }
};

}  // namespace wl
