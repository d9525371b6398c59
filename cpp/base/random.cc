#include "base/random.h"

#include <string.h>

#include "base/align.h"

namespace wl {

namespace {

// Natural logarithm of a positive normal number, to about 1e-16: own code, so that seeds mean the same everywhere.
double log_of(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint64_t sqrt_half = 0x3fe6a09e667f3bcdu;
  const int64_t e = (int64_t)(bits - sqrt_half) >> 52;
  bits -= (uint64_t)e << 52;
  memcpy(&x, &bits, sizeof x);
  const double s = (x - 1) / (x + 1), s2 = s * s;  // log x = 2 artanh(s), |s| < 0.172
  double series = 0;
  for (int k = 21; k >= 1; k -= 2) series = series * s2 + 1.0 / k;
  return (double)e * 0.6931471805599453 + 2 * s * series;
}

// Inverse of the standard normal distribution function: Wichura, "Algorithm AS 241", Applied Statistics 37 (1988), PPND7.
double normal_quantile(double p) {
  const double q = p - 0.5;
  if (q >= -0.425 && q <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * (((59.109374720 * r + 159.29113202) * r + 50.434271938) * r + 3.3871327179) /
           (((67.187563600 * r + 78.757757664) * r + 17.895169469) * r + 1.0);
  }
  double r = __builtin_sqrt(-log_of(q < 0 ? p : 1 - p)), y;
  if (r <= 5) {
    r -= 1.6;
    y = (((0.17023821103 * r + 1.3067284816) * r + 2.7568153900) * r + 1.4234372777) / ((0.12021132975 * r + 0.73700164250) * r + 1.0);
  } else {
    r -= 5;
    y = (((0.017337203997 * r + 0.42868294337) * r + 3.0812263860) * r + 6.6579051150) / ((0.012258202635 * r + 0.24197894225) * r + 1.0);
  }
  return q < 0 ? -y : y;
}

template <class Map>
void fill(uint64_t key, int64_t n, float* y, Map map) {
  uint32_t group[kRandomGroup];
  for (int64_t i = 0; i < n; i += kRandomGroup) {
    random_group(key, 0, (uint64_t)(i / kRandomGroup), group);
    for (int64_t j = 0; j < min_of(kRandomGroup, n - i); ++j) y[i + j] = map(group[j]);
  }
}

}  // namespace

void random_uniform_fill(uint64_t key, int64_t n, float* y) {
  fill(key, n, y, random_uniform);
}

void random_normal_fill(uint64_t key, int64_t n, float* y) {
  fill(key, n, y, [](uint32_t bits) { return (float)normal_quantile(((double)bits + 0.5) * 0x1p-32); });
}

void random_permutation(uint64_t key, int64_t n, int64_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = i;
  for (int64_t i = n - 1; i > 0; --i) {
    // 64 random bits, scaled to [0, i]: the bias of the multiplication is below n / 2^64.
    uint32_t c[4] = {(uint32_t)i, (uint32_t)((uint64_t)i >> 32), 0, 0};
    philox(c, (uint32_t)key, (uint32_t)(key >> 32));
    const uint64_t bits = (uint64_t)c[1] << 32 | c[0];
    const int64_t j = (int64_t)(uint64_t)(((unsigned __int128)bits * (uint64_t)(i + 1)) >> 64);
    const int64_t swapped = y[i];
    y[i] = y[j], y[j] = swapped;
  }
}

}  // namespace wl
