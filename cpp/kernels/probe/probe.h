// What one thread of this machine can do: multiply-adds in registers, floats read, floats copied. runtime/probe.h times them; nothing else
// calls them, and nothing is ever chosen by what they show.
#pragma once
#include <stdint.h>

namespace wl {

struct ProbeKernels {
  int chains;  // a round is `chains` independent multiply-adds of whole vectors, so 2 * chains * lanes floating-point operations
  // acc[c] = acc[c] * a + b for every chain, `rounds` times, in registers. Returns a sum of them all.
  float (*multiply_adds)(int64_t rounds, float a, float b);
  // Σ x[i], in several chains
  float (*read)(int64_t count, const float* x);
  // y[i] = x[i], with the ordinary stores that every kernel uses
  void (*copy)(int64_t count, const float* x, float* y);
};

}  // namespace wl
