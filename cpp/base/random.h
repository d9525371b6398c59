// Counter-based random numbers: a number is a pure function of what it is for, never of what was drawn before it.
//
// A RandomKey is a hash of (seed, purpose, stream, step, micro-step). Below it every (sample, element) has one 32-bit number from
// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011). 64 neighbouring elements make a
// group of 16 counters: element e takes word (e % 64) / 16 of counter (e / 64) * 16 + e % 16, so that vectors need no shuffles.
#pragma once
#include <stdint.h>

namespace wl {

// Numbers are part of what a seed means: never reused.
enum class RandomPurpose : uint64_t { initialisation = 0, shuffle = 1, dropout = 2, augmentation = 3, split = 4 };

constexpr int kRandomGroup = 64;

constexpr uint32_t kPhiloxM0 = 0xd2511f53u, kPhiloxM1 = 0xcd9e8d57u, kPhiloxW0 = 0x9e3779b9u, kPhiloxW1 = 0xbb67ae85u;

// SplitMix64's finalizer over a running hash.
static inline uint64_t random_mix(uint64_t hash, uint64_t value) {
  uint64_t z = hash + 0x9e3779b97f4a7c15u + value;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static inline uint64_t random_key(uint64_t seed, uint64_t purpose, uint64_t stream, uint64_t step, uint64_t micro_step) {
  return random_mix(random_mix(random_mix(random_mix(random_mix(0, seed), purpose), stream), step), micro_step);
}

// Philox 4x32-10 of one counter, in place.
static inline void philox(uint32_t (&c)[4], uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = (uint64_t)kPhiloxM0 * c[0], p1 = (uint64_t)kPhiloxM1 * c[2];
    const uint32_t c0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0, c2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
    c[0] = c0, c[1] = (uint32_t)p1, c[2] = c2, c[3] = (uint32_t)p0;
    k0 += kPhiloxW0, k1 += kPhiloxW1;
  }
}

// The 32-bit numbers of elements 64 group … 64 group + 63.
static inline void random_group(uint64_t key, uint64_t sample, uint64_t group, uint32_t out[kRandomGroup]) {
  for (int lane = 0; lane < 16; ++lane) {
    const uint64_t counter = group * 16 + (uint64_t)lane;
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), (uint32_t)sample, (uint32_t)(sample >> 32)};
    philox(c, (uint32_t)key, (uint32_t)(key >> 32));
    for (int word = 0; word < 4; ++word) out[16 * word + lane] = c[word];
  }
}

// Uniform in [0, 1) on a grid of 2^-24.
static inline float random_uniform(uint32_t bits) {
  return (float)(bits >> 8) * 0x1p-24f;
}

// Fills of sample 0. Normal numbers have mean 0 and variance 1 (inverse of the distribution function, |y| < 6.4).
void random_uniform_fill(uint64_t key, int64_t n, float* y);
void random_normal_fill(uint64_t key, int64_t n, float* y);

// A permutation of 0 … n-1 (Fisher-Yates).
void random_permutation(uint64_t key, int64_t n, int64_t* y);

}  // namespace wl
