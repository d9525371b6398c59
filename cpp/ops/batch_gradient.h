// The sums that the gradient of batch normalisation begins with, gathered in parts by the op that writes dy, while each part is still in
// cache: Σ g and Σ g*(x - mean) per channel, with g = dy * act'(y) and y = act((x - mean)*scale + shift) computed anew from x. The parts
// are added in order, so the bits depend on how the shape is cut alone.
#pragma once
#include "kernels/reduce/reduce.h"
#include "ops/batch_norm.h"
#include "ops/combining_time.h"
#include "ops/conv.h"

namespace wl {

class BatchGradient final : public Gathering {
 public:
  // Floats of memory, for a tensor of so many parts or fewer.
  static int64_t elements(int64_t parts, int64_t channels) { return round_up(2 * max_of(parts, kParts) * channels, 16); }

  // dy and x, the input of `norm`, are dense and alike. `sums` has two rows of channels: Σ g and Σ g*(x - mean).
  BatchGradient(const ReduceKernels& kernels, const Tensor& dy, const Tensor& x, const BatchNorm& norm, int64_t parts, float* memory,
                float* sums)
      : Gathering(dy, parts), kernels_(kernels), x_(x.f32()), dy_(dy.f32()), norm_(norm), memory_(memory), sums_(sums) {}

  void add(int64_t part, Range rows, Range channels) const override {
    const int64_t first = channels.begin, at = rows.begin * channels_ + first;
    float *g = memory_ + 2 * part * channels_ + first, *gx = g + channels_;
    for (int64_t c = 0; c < channels.size(); ++c) g[c] = gx[c] = 0;
    BnSums p{};
    p.dy = dy_ + at, p.x = x_ + at;
    p.dy_row = p.x_row = channels_;
    p.mean = norm_.mean + first, p.scale = norm_.scale + first, p.offset = norm_.shift + first;
    p.activation = norm_.activation, p.alpha = norm_.alpha, p.beta = norm_.beta;
    kernels_.bn_sums(rows.size(), channels.size(), p, g, gx);
  }

 private:
  void combine(const Run& run) const override {
    const CombiningTime combining(run);
    for (int64_t c = 0; c < 2 * channels_; ++c) sums_[c] = 0;
    kernels_.columns(ReduceKind::sum, 1, parts_, 2 * channels_, memory_, 0, 2 * channels_, sums_);
  }

  const ReduceKernels& kernels_;
  const float *x_, *dy_;
  BatchNorm norm_;
  float *memory_, *sums_;  // memory: [part][Σ g, Σ g*(x - mean)][channel]
};

}  // namespace wl
