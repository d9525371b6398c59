#include "kernels/probe/probe.h"

#include "simd/simd.h"

namespace wl {
namespace WL_ISA {
namespace {

// Enough to hide the latency of a multiply-add on two units, few enough to stay in registers.
constexpr int kChains = kRegisters == 32 ? 24 : 12;
constexpr int kStreams = 8;  // vectors that one round of `read` or `copy` takes

float multiply_adds(int64_t rounds, float a, float b) {
  const f32v factor = set1(a), term = set1(b);
  f32v acc[kChains];
#pragma GCC unroll 32
  for (int c = 0; c < kChains; ++c) acc[c] = set1((float)c);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 32
    for (int c = 0; c < kChains; ++c) acc[c] = fma(acc[c], factor, term);
  }
  f32v sum = acc[0];
#pragma GCC unroll 32
  for (int c = 1; c < kChains; ++c) sum = sum + acc[c];
  return reduce_add(sum);
}

float read(int64_t count, const float* x) {
  f32v acc[kStreams] = {};
  int64_t i = 0;
  for (; i + kStreams * kLanes <= count; i += kStreams * kLanes) {
#pragma GCC unroll 8
    for (int s = 0; s < kStreams; ++s) acc[s] = acc[s] + load(x + i + s * kLanes);
  }
  float rest = 0;
  for (; i < count; ++i) rest += x[i];
  f32v sum = acc[0];
#pragma GCC unroll 8
  for (int s = 1; s < kStreams; ++s) sum = sum + acc[s];
  return reduce_add(sum) + rest;
}

void copy(int64_t count, const float* x, float* y) {
  int64_t i = 0;
  for (; i + kStreams * kLanes <= count; i += kStreams * kLanes) {
#pragma GCC unroll 8
    for (int s = 0; s < kStreams; ++s) store(y + i + s * kLanes, load(x + i + s * kLanes));
  }
  for (; i < count; ++i) y[i] = x[i];
}

}  // namespace

extern const ProbeKernels probe;
const ProbeKernels probe = {kChains, multiply_adds, read, copy};

}  // namespace WL_ISA
}  // namespace wl
