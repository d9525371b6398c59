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
  static constexpr int64_t kParts = 64;  // where the writer has no cut of its own

  // Floats of memory, for a tensor of so many parts or fewer.
  static int64_t elements(int64_t parts, int64_t channels) { return round_up(2 * max_of(parts, kParts) * channels, 16); }

  // dy and x, the input of `norm`, are dense and alike. `sums` has two rows of channels: Σ g and Σ g*(x - mean).
  BatchGradient(const ReduceKernels& kernels, const Tensor& dy, const Tensor& x, const BatchNorm& norm, int64_t parts, float* memory,
                float* sums)
      : kernels_(kernels),
        x_(x.f32()),
        dy_(dy.f32()),
        channels_(dy.dim_from_end(0)),
        rows_(dy.elements() / channels_),
        parts_(parts > 0 ? parts : min_of(kParts, rows_)),
        norm_(norm),
        memory_(memory),
        sums_(sums) {}

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

  // Once all parts are added, in every channel.
  void finish(const Run& run) const {
    const CombiningTime combining(run);
    for (int64_t c = 0; c < 2 * channels_; ++c) sums_[c] = 0;
    kernels_.columns(ReduceKind::sum, parts_, 2 * channels_, memory_, 2 * channels_, sums_);
  }

  // For a writer without parts of its own: a pass over both tensors.
  void gather(const Run& run) const {
    parallel_for(run, parts_, 0.5 * (double)(rows_ * channels_), [&](int64_t part, int) {
      add(part, piece(rows_, parts_, part), {0, channels_});
    });
    finish(run);
  }

 private:
  const ReduceKernels& kernels_;
  const float *x_, *dy_;
  int64_t channels_, rows_, parts_;
  BatchNorm norm_;
  float *memory_, *sums_;  // memory: [part][Σ g, Σ g*(x - mean)][channel]
};

}  // namespace wl
