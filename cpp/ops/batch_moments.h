// Mean and variance of every channel of a tensor, gathered in parts by the op that writes it, while each part is still in cache. The parts
// are merged in order (Chan, Golub and LeVeque 1983), so the bits depend on how the shape is cut alone.
#pragma once
#include "kernels/reduce/reduce.h"
#include "ops/combining_time.h"
#include "ops/conv.h"

namespace wl {

class BatchMoments final : public Gathering {
 public:
  // Floats of memory, for a tensor of so many parts or fewer.
  static int64_t elements(int64_t parts, int64_t channels) {
    return round_up(max_of(parts, kParts) * (2 * channels + (int64_t)(sizeof(Range) / sizeof(float))), 16);
  }

  // mean and var have the channels of `t`. `memory` is for `parts` parts, aligned to 8 bytes.
  BatchMoments(const ReduceKernels& kernels, const Tensor& t, int64_t parts, float* memory, float* mean, float* var)
      : Gathering(t, parts),
        kernels_(kernels),
        data_(t.f32()),
        rows_of_(reinterpret_cast<Range*>(memory)),
        memory_(reinterpret_cast<float*>(rows_of_ + parts_)),
        mean_(mean),
        var_(var) {}

  void add(int64_t part, Range rows, Range channels) const override {
    if (channels.begin == 0) rows_of_[part] = rows;
    if (rows.size() == 0) return;
    const float* first = data_ + rows.begin * channels_ + channels.begin;  // differences from it are small, whatever the mean
    float* mean = memory_ + 2 * part * channels_ + channels.begin;
    kernels_.moments(rows.size(), channels.size(), first, channels_, first, mean, mean + channels_);
  }

 private:
  void combine(const Run& run) const override {  // the first part is not empty
    const CombiningTime combining(run);
    float *mean = memory_, *m2 = memory_ + channels_;
    for (int64_t part = 1; part < parts_; ++part) {
      const Range rows = rows_of_[part];
      if (rows.size() == 0) continue;
      float* other = memory_ + 2 * part * channels_;
      const float* first = data_ + rows.begin * channels_;
      for (int64_t c = 0; c < channels_; ++c) other[c] += first[c] - data_[c];
      kernels_.merge_moments(channels_, (double)rows.begin, mean, m2, (double)rows.size(), other, other + channels_);
    }
    for (int64_t c = 0; c < channels_; ++c) {
      mean_[c] = data_[c] + mean[c];
      var_[c] = m2[c] / (float)rows_;
    }
  }

  const ReduceKernels& kernels_;
  const float* data_;
  Range* rows_of_;                // [part]
  float *memory_, *mean_, *var_;  // memory: [part][mean, M2][channel]
};

}  // namespace wl
