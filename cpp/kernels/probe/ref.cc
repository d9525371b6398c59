#include "kernels/probe/probe.h"

namespace wl {
namespace ref {
namespace {

constexpr int kChains = 8;

float multiply_adds(int64_t rounds, float a, float b) {
  float acc[kChains], sum = 0;
  for (int c = 0; c < kChains; ++c) acc[c] = (float)c;
  for (int64_t r = 0; r < rounds; ++r)
    for (int c = 0; c < kChains; ++c) acc[c] = acc[c] * a + b;
  for (int c = 0; c < kChains; ++c) sum += acc[c];
  return sum;
}

float read(int64_t count, const float* x) {
  float sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += x[i];
  return sum;
}

void copy(int64_t count, const float* x, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = x[i];
}

}  // namespace

extern const ProbeKernels probe;
const ProbeKernels probe = {kChains, multiply_adds, read, copy};

}  // namespace ref
}  // namespace wl
